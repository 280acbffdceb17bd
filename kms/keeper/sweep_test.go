package keeper

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// memory is a store for one test, on which others write.
type memory struct {
	mu       sync.Mutex
	values   map[string]store.Entry
	revision uint64
	down     bool
}

func (m *memory) Get(_ context.Context, name string, _ time.Duration) (store.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.values[name]
	switch {
	case m.down:
		return e, store.ErrUnavailable
	case !ok:
		return e, fmt.Errorf("%s: %w", name, store.ErrNotFound)
	}
	return e, nil
}

func (m *memory) Swap(_ context.Context, name string, old uint64, value []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.values[name].Revision != old {
		return 0, store.ErrConflict
	}
	m.revision++
	m.values[name] = store.Entry{Value: value, Revision: m.revision}
	return m.revision, nil
}

func (m *memory) List(context.Context, string) iter.Seq2[store.Item, error] {
	return func(func(store.Item, error) bool) {}
}

type nowhere struct{}

func (nowhere) Append(audit.Event) error { return nil }

// TestSweep: a node that someone else forgot loses its keys here without being
// asked for.
func TestSweep(t *testing.T) {
	keys, err := kek.Create(t.Context(), t.TempDir()+"/kek.json", kek.Secret{KeyFile: secret.Random(32)})
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{values: map[string]store.Entry{}}
	k, err := New(t.Context(), Options{Store: m, KEK: keys, Audit: nowhere{}, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	key := map[string]*secret.Bytes{}
	for _, node := range []string{"01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdee"} {
		if _, err := k.Seal(t.Context(), Request{Node: node}, secret.Random(32)); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range k.cache.all() {
		key[string(n.node)] = n.keys[1]
	}
	m.down = true
	k.sweep(t.Context())
	m.down = false
	const gone = "01234567-89ab-cdef-0123-456789abcdef"
	e, _ := m.Get(t.Context(), "node/"+gone, 0)
	if _, err := m.Swap(t.Context(), "node/"+gone, e.Revision, []byte("what another server wrote")); err != nil {
		t.Fatal(err)
	}
	k.sweep(t.Context())
	for node, key := range key {
		if wiped := key.Len() == 0; wiped != (node == gone) {
			t.Errorf("%s: wiped %v", node, wiped)
		}
	}
	if len(key) != 2 || len(k.cache.all()) != 1 {
		t.Errorf("%d keys, %d nodes", len(key), len(k.cache.all()))
	}
}
