package etcd_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/kms/store/etcd"
	"github.com/cryptctl/cryptctl/kms/store/storetest"
)

func TestSuite(t *testing.T) {
	c, n := startCluster(t, 1), 0
	storetest.Run(t, func(*testing.T) store.Store {
		n++
		return c.open(0, etcd.Options{Prefix: fmt.Sprintf("/test-%d/", n)})
	})
}

// settled waits until the store answers from its copy.
func settled(t *testing.T, s *etcd.Store, name, want string) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		e, err := s.Get(t.Context(), name, time.Second)
		if err == nil && string(e.Value) == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %q, %v, want %q", name, e.Value, err, want)
		}
	}
}

// TestSeenWithinASecond changes a value at one member and reads it, with an age
// of a second, at the others: after a second at most none may give the old one.
func TestSeenWithinASecond(t *testing.T) {
	c := startCluster(t, 3)
	writer := c.open(0, etcd.Options{})
	var readers []*etcd.Store
	for i := range 3 {
		readers = append(readers, c.open(i, etcd.Options{}))
	}
	rev, err := writer.Swap(t.Context(), "node/a", 0, []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i <= 20; i++ {
		want := fmt.Sprint(i)
		if rev, err = writer.Swap(t.Context(), "node/a", rev, []byte(want)); err != nil {
			t.Fatal(err)
		}
		written := time.Now()
		for r := 0; r < len(readers); {
			e, err := readers[r].Get(t.Context(), "node/a", time.Second)
			switch late := time.Since(written); {
			case err != nil && !errors.Is(err, store.ErrNotFound): // that is the oldest state
				t.Fatal(err)
			case string(e.Value) == want:
				r++
			case late > time.Second:
				t.Fatalf("%s after %v, want %s", e.Value, late, want)
			}
		}
	}
	// And one that a reader must ask for: an age of 0 is never behind.
	if rev, err = writer.Swap(t.Context(), "node/a", rev, []byte("now")); err != nil {
		t.Fatal(err)
	}
	for i, r := range readers {
		if e, err := r.Get(t.Context(), "node/a", 0); err != nil || string(e.Value) != "now" || e.Revision != rev {
			t.Errorf("reader %d: %q, %v", i, e.Value, err)
		}
	}
}

// TestWithoutQuorum: a member that is left alone does not answer from a copy
// that may be old, and goes on when the others are back.
func TestWithoutQuorum(t *testing.T) {
	c := startCluster(t, 3)
	s := c.open(0, etcd.Options{Timeout: 500 * time.Millisecond})
	if _, err := s.Swap(t.Context(), "node/a", 0, []byte("1")); err != nil {
		t.Fatal(err)
	}
	settled(t, s, "node/a", "1")
	c.stop(1)
	c.stop(2)
	time.Sleep(1200 * time.Millisecond)
	if e, err := s.Get(t.Context(), "node/a", time.Second); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("answers %q, %v", e.Value, err)
	}
	if _, err := s.Swap(t.Context(), "node/b", 0, []byte("1")); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("writes: %v", err)
	}
	c.start(1)
	c.ready(1)
	settled(t, s, "node/a", "1")
}

// TestLeaderLost goes on with the other two.
func TestLeaderLost(t *testing.T) {
	c := startCluster(t, 3)
	s, err := etcd.Open(etcd.Options{Endpoints: []string{c.endpoint(0), c.endpoint(1), c.endpoint(2)}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	rev, err := s.Swap(t.Context(), "node/a", 0, []byte("0"))
	if err != nil {
		t.Fatal(err)
	}
	c.stop(c.leader())
	for end := time.Now().Add(15 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err = s.Swap(t.Context(), "node/a", rev, []byte("1")); err == nil {
			break
		}
		if errors.Is(err, store.ErrConflict) {
			break // an earlier one was stored, and its answer lost with the leader
		}
		if !errors.Is(err, store.ErrUnavailable) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
	settled(t, s, "node/a", "1")
}

// TestScrub: the history of a value is gone, the value is not.
func TestScrub(t *testing.T) {
	c := startCluster(t, 1)
	s := c.open(0, etcd.Options{})
	rev, err := s.Swap(t.Context(), "node/a", 0, []byte("a wrapped key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Swap(t.Context(), "node/a", rev, []byte("forgotten")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and again, with nothing to do
		if err := s.Scrub(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	settled(t, s, "node/a", "forgotten")
	if got := historyOf(t, c, "/cryptctl/kms/v/node/a", int64(rev)); got != "" {
		t.Errorf("revision %d is still there: %q", rev, got)
	}
	if files := filesWith(t, c.configs[0].Dir+"/member/snap", "a wrapped key"); len(files) > 0 {
		t.Errorf("still in %v", files)
	}
}

// TestScrubEverywhere: the history is gone from all members, also those that the
// server has not been told of; and those who want it at once get it.
func TestScrubEverywhere(t *testing.T) {
	c := startCluster(t, 3)
	s := c.open(0, etcd.Options{Timeout: 2 * time.Second})
	rev, err := s.Swap(t.Context(), "node/a", 0, []byte("a wrapped key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Swap(t.Context(), "node/a", rev, []byte("forgotten")); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	for range 10 {
		go func() { done <- s.Scrub(t.Context()) }()
	}
	for range 10 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i, m := range c.configs {
		if files := filesWith(t, m.Dir+"/member/snap", "a wrapped key"); len(files) > 0 {
			t.Errorf("member %d: still in %v", i, files)
		}
	}
	c.stop(2)
	if err := s.Scrub(t.Context()); err == nil {
		t.Error("one is down, and nobody is told that it was not cleaned")
	}
}

// TestDeletedByHand: we never delete, someone with etcdctl may.
func TestDeletedByHand(t *testing.T) {
	c := startCluster(t, 1)
	s := c.open(0, etcd.Options{})
	if _, err := s.Swap(t.Context(), "node/a", 0, []byte("1")); err != nil {
		t.Fatal(err)
	}
	settled(t, s, "node/a", "1")
	remove(t, c, "/cryptctl/kms/v/node/a")
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := s.Get(t.Context(), "node/a", time.Second); errors.Is(err, store.ErrNotFound) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the copy keeps what was deleted")
		}
	}
}
