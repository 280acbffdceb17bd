package etcd_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store/etcd"
	"github.com/cryptctl/cryptctl/secret"
)

const node = "01234567-89ab-cdef-0123-456789abcdef"

func request(n string) keeper.Request {
	return keeper.Request{Node: n, Source: netip.MustParseAddr("192.0.2.7")}
}

// servers makes n keepers, each with its own connection and log, and one keyset.
func servers(t *testing.T, c *cluster, n int) (all []*keeper.Keeper) {
	t.Helper()
	keys, err := kek.Create(t.Context(), filepath.Join(t.TempDir(), "kek.json"), kek.Secret{KeyFile: secret.Random(32)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		l, err := audit.Open(t.TempDir(), audit.Options{})
		if err != nil {
			t.Fatal(err)
		}
		k, err := keeper.New(t.Context(), keeper.Options{
			Store: c.open(i%len(c.members), etcd.Options{}), KEK: keys, Audit: l, Rules: policy.Rules{Enrol: policy.Open},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { k.Close(); l.Close() })
		all = append(all, k)
	}
	return all
}

func TestServersShareNodes(t *testing.T) {
	all := servers(t, startCluster(t, 3), 3)
	var wg sync.WaitGroup
	blobs := make([][]byte, 12)
	for i := range blobs { // the first seals of one node, at three servers at once
		wg.Go(func() {
			var err error
			if blobs[i], err = all[i%3].Seal(t.Context(), request(node), secret.Copy(fmt.Append(nil, "data ", i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, raw := range blobs {
		for s, k := range all {
			data, err := k.Unseal(t.Context(), request(node), raw)
			if err != nil || string(data.Bytes()) != fmt.Sprint("data ", i) {
				t.Errorf("blob %d at server %d: %v", i, s, err)
			}
			k.Release(data)
		}
	}
}

// TestRevocationWithinASecond: servers under load stop answering.
func TestRevocationWithinASecond(t *testing.T) {
	all := servers(t, startCluster(t, 3), 3)
	raw, err := all[0].Seal(t.Context(), request(node), secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		data, err := k.Unseal(t.Context(), request(node), raw)
		if err != nil {
			t.Fatal(err)
		}
		k.Release(data)
	}
	if err := all[0].Revoke(t.Context(), keeper.Operator{Name: "op"}, node); err != nil {
		t.Fatal(err)
	}
	revoked := time.Now()
	var wg sync.WaitGroup
	for s, k := range all {
		wg.Go(func() {
			for {
				asked := time.Since(revoked)
				data, err := k.Unseal(t.Context(), request(node), raw)
				k.Release(data)
				switch {
				case keeper.CodeOf(err) == keeper.Revoked:
					t.Logf("server %d knew after %v", s, asked.Round(time.Millisecond))
					return
				case err != nil:
					t.Error(err)
					return
				case asked > time.Second:
					t.Errorf("server %d unseals %v after the revocation", s, asked)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestForgetEverywhere(t *testing.T) {
	all := servers(t, startCluster(t, 1), 2)
	raw, err := all[0].Seal(t.Context(), request(node), secret.Random(32))
	if err != nil {
		t.Fatal(err)
	}
	data, err := all[1].Unseal(t.Context(), request(node), raw)
	if err != nil {
		t.Fatal(err)
	}
	all[1].Release(data)
	if _, err := all[0].Forget(t.Context(), keeper.Operator{Name: "op"}, node, node); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	if _, err := all[1].Unseal(t.Context(), request(node), raw); keeper.CodeOf(err) != keeper.Denied {
		t.Errorf("the other server: %v", err)
	}
	if err := all[1].Approve(t.Context(), keeper.Operator{Name: "op"}, node, keeper.Approval{}); err != nil {
		t.Fatal(err)
	}
	if _, err := all[1].Seal(t.Context(), request(node), secret.Random(32)); err != nil {
		t.Fatal(err)
	}
	if _, err := all[0].Unseal(t.Context(), request(node), raw); keeper.CodeOf(err) != keeper.Denied {
		t.Errorf("a new key opens the old blob: %v", err)
	}
}
