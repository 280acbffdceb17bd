// Package storetest is the suite that every store of the key server must pass.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/store"
)

// Run runs the suite. open gives a new, empty store each time.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	t.Run("one value", func(t *testing.T) { oneValue(t, open(t)) })
	t.Run("revisions", func(t *testing.T) { revisions(t, open(t)) })
	t.Run("copies", func(t *testing.T) { copies(t, open(t)) })
	t.Run("list", func(t *testing.T) { list(t, open(t)) })
	t.Run("long list", func(t *testing.T) { longList(t, open(t)) })
	t.Run("many writers", func(t *testing.T) { manyWriters(t, open(t)) })
	t.Run("many names", func(t *testing.T) { manyNames(t, open(t)) })
	t.Run("bounds", func(t *testing.T) { bounds(t, open(t)) })
	t.Run("ended context", func(t *testing.T) { endedContext(t, open(t)) })
}

func oneValue(t *testing.T, s store.Store) {
	if _, err := s.Get(t.Context(), "node/a", 0); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a name that is not there: %v", err)
	}
	rev, err := s.Swap(t.Context(), "node/a", 0, []byte("one"))
	if err != nil || rev == 0 {
		t.Fatal(rev, err)
	}
	e, err := s.Get(t.Context(), "node/a", 0)
	if err != nil || string(e.Value) != "one" || e.Revision != rev {
		t.Fatalf("%q, revision %d of %d, %v", e.Value, e.Revision, rev, err)
	}
	if _, err := s.Get(t.Context(), "node/a/b", 0); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a longer name: %v", err)
	}
}

func revisions(t *testing.T, s store.Store) {
	first, err := s.Swap(t.Context(), "a", 0, []byte("1"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Swap(t.Context(), "a", first, []byte("2"))
	if err != nil || second <= first {
		t.Fatalf("%d after %d: %v", second, first, err)
	}
	for _, old := range []uint64{0, first, second + 1} {
		if _, err := s.Swap(t.Context(), "a", old, []byte("3")); !errors.Is(err, store.ErrConflict) {
			t.Errorf("swap of revision %d: %v", old, err)
		}
	}
	if _, err := s.Swap(t.Context(), "b", first, []byte("3")); !errors.Is(err, store.ErrConflict) {
		t.Errorf("swap of a name that is not there: %v", err)
	}
	if e, err := s.Get(t.Context(), "a", 0); err != nil || string(e.Value) != "2" || e.Revision != second {
		t.Errorf("%q, %d, %v", e.Value, e.Revision, err)
	}
}

func copies(t *testing.T, s store.Store) {
	value := []byte("value")
	if _, err := s.Swap(t.Context(), "a", 0, value); err != nil {
		t.Fatal(err)
	}
	value[0] = 'X'
	for _, age := range []time.Duration{0, time.Hour} {
		for range 2 { // what a reader did to its copy, the next one does not see
			e := eventually(t, s, "a", age)
			if string(e.Value) != "value" {
				t.Fatalf("age %v: %q", age, e.Value)
			}
			e.Value[0] = 'Y'
		}
	}
}

// eventually reads a value that is there; with an age it may take until the store
// sees it.
func eventually(t *testing.T, s store.Store, name string, age time.Duration) store.Entry {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		e, err := s.Get(t.Context(), name, age)
		if err == nil {
			return e
		}
		if age == 0 || !errors.Is(err, store.ErrNotFound) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func names(t *testing.T, s store.Store, prefix string) string {
	t.Helper()
	var got []string
	for item, err := range s.List(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		if string(item.Value) != "value of "+item.Name || item.Revision == 0 {
			t.Errorf("%s: %q, %d", item.Name, item.Value, item.Revision)
		}
		got = append(got, item.Name)
	}
	return strings.Join(got, " ")
}

func list(t *testing.T, s store.Store) {
	for _, name := range []string{"node/b", "nodes", "node/a", "import/x", "node/a/1", "node.a"} {
		if _, err := s.Swap(t.Context(), name, 0, []byte("value of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	for prefix, want := range map[string]string{
		"node/":  "node/a node/a/1 node/b",
		"node/a": "node/a node/a/1",
		"":       "import/x node.a node/a node/a/1 node/b nodes",
		"none":   "",
	} {
		if got := names(t, s, prefix); got != want {
			t.Errorf("%q: %q, want %q", prefix, got, want)
		}
	}
	seen := 0
	for item, err := range s.List(t.Context(), "node/") { // writing meanwhile, and leaving early
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Swap(t.Context(), item.Name, item.Revision, []byte("value of "+item.Name)); err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 2 {
			break
		}
	}
	if seen != 2 {
		t.Errorf("%d items", seen)
	}
}

// longList changes and cleans up the store while a long list is being read: none that
// was there is missing.
func longList(t *testing.T, s store.Store) {
	const total = 1200 // more than two pages of any
	var wg sync.WaitGroup
	for first := range 40 {
		wg.Go(func() {
			for i := first; i < total; i += 40 {
				if _, err := s.Swap(t.Context(), fmt.Sprintf("node/%04d", i), 0, []byte("value")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	seen := 0
	for item, err := range s.List(t.Context(), "node/") {
		if err != nil || item.Name != fmt.Sprintf("node/%04d", seen) {
			t.Fatalf("%d: %s, %v", seen, item.Name, err)
		}
		if seen++; seen > 1 {
			continue
		}
		_, err := s.Swap(t.Context(), item.Name, item.Revision, []byte("another"))
		if sc, ok := s.(store.Scrubber); ok && err == nil {
			err = sc.Scrub(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen != total {
		t.Errorf("%d of %d", seen, total)
	}
}

// manyWriters counts up one value: a lost update would be missing in the end.
func manyWriters(t *testing.T, s store.Store) {
	const people, each = 8, 10
	if _, err := s.Swap(t.Context(), "count", 0, []byte("0")); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range people {
		wg.Go(func() {
			for done := 0; done < each; {
				e, err := s.Get(t.Context(), "count", 0)
				if err != nil {
					t.Error(err)
					return
				}
				var n int
				fmt.Sscan(string(e.Value), &n)
				_, err = s.Swap(t.Context(), "count", e.Revision, fmt.Append(nil, n+1))
				switch {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e, err := s.Get(t.Context(), "count", 0); err != nil || string(e.Value) != fmt.Sprint(people*each) {
		t.Errorf("counted to %s, want %d: %v", e.Value, people*each, err)
	}
}

func manyNames(t *testing.T, s store.Store) {
	const n = 100
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			name := fmt.Sprintf("node/%03d", i)
			if _, err := s.Swap(t.Context(), name, 0, []byte("value of "+name)); err != nil {
				t.Error(err)
			}
			if e, err := s.Get(t.Context(), name, 0); err != nil || string(e.Value) != "value of "+name {
				t.Errorf("%s right after its swap: %q, %v", name, e.Value, err)
			}
		})
	}
	wg.Wait()
	if got := len(strings.Fields(names(t, s, "node/"))); got != n {
		t.Errorf("%d names, want %d", got, n)
	}
}

func bounds(t *testing.T, s store.Store) {
	big := make([]byte, store.MaxValue)
	for i := range big {
		big[i] = byte(i)
	}
	longest := strings.Repeat("n", store.MaxName)
	if _, err := s.Swap(t.Context(), longest, 0, big); err != nil {
		t.Fatal(err)
	}
	if e, err := s.Get(t.Context(), longest, 0); err != nil || string(e.Value) != string(big) {
		t.Errorf("%d bytes, %v", len(e.Value), err)
	}
	for _, bad := range []string{"", longest + "n", "Upper", "a b", "a\x00", "é", "a,b", "a:b"} {
		if _, err := s.Swap(t.Context(), bad, 0, []byte("x")); err == nil {
			t.Errorf("name %.20q is stored", bad)
		}
		if _, err := s.Get(t.Context(), bad, 0); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("name %.20q is looked for: %v", bad, err)
		}
	}
	for _, bad := range [][]byte{nil, {}, append(big, 1)} {
		if _, err := s.Swap(t.Context(), "a", 0, bad); err == nil {
			t.Errorf("a value of %d bytes is stored", len(bad))
		}
	}
}

func endedContext(t *testing.T, s store.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Swap(ctx, "a", 0, []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("swap: %v", err)
	}
	if _, err := s.Get(ctx, "a", 0); !errors.Is(err, context.Canceled) {
		t.Errorf("get: %v", err)
	}
	for _, err := range s.List(ctx, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("list: %v", err)
		}
	}
}
