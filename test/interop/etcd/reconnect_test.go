package etcd_test

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/store/etcd"
)

// TestSeenAfterReconnect cuts a server off while so much is changed that etcd tells
// it in many parts afterwards, a revocation in the last one. As soon as it answers
// again, it answers with that.
func TestSeenAfterReconnect(t *testing.T) {
	c := startCluster(t, 1)
	to, err := url.Parse(c.endpoint(0))
	if err != nil {
		t.Fatal(err)
	}
	way := newLink(t, to.Host)
	reader, err := etcd.Open(etcd.Options{Endpoints: []string{"http://" + way.address}})
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writer := c.open(0, etcd.Options{})
	rev, err := writer.Swap(t.Context(), "node/a", 0, []byte("approved"))
	if err != nil {
		t.Fatal(err)
	}
	settled(t, reader, "node/a", "approved")
	way.cutAll()
	others, value := sync.WaitGroup{}, []byte(strings.Repeat("x", 1000))
	for g := range 32 {
		others.Go(func() {
			for i := range 200 {
				if _, err := writer.Swap(t.Context(), fmt.Sprintf("node/b%d-%d", g, i), 0, value); err != nil {
					t.Error(err)
				}
			}
		})
	}
	others.Wait()
	if _, err = writer.Swap(t.Context(), "node/a", rev, []byte("revoked")); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	time.Sleep(1500 * time.Millisecond)
	way.heal()
	seen := 0
	for end := time.Now().Add(20 * time.Second); seen < 1000 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		switch e, err := reader.Get(t.Context(), "node/a", time.Second); {
		case err == nil && string(e.Value) == "revoked":
			seen++
		case err == nil:
			t.Fatalf("%s, %v after it was revoked", e.Value, time.Since(revoked))
		}
	}
	if seen == 0 {
		t.Error("it does not answer again")
	}
}
