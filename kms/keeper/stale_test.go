package keeper_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// staleStore answers a Get with an age as of the last call of catchUp, as a
// replicated store may for a second.
type staleStore struct {
	store.Store
	mu  sync.Mutex
	old map[string]store.Entry
}

func (s *staleStore) catchUp(t *testing.T) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.old = map[string]store.Entry{}
	for item, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		s.old[item.Name] = item.Entry
	}
}

func (s *staleStore) Get(ctx context.Context, name string, age time.Duration) (store.Entry, error) {
	if age == 0 {
		return s.Store.Get(ctx, name, 0)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.old[name]
	if !ok {
		return e, fmt.Errorf("%s: %w", name, store.ErrNotFound)
	}
	return e, nil
}

// TestStaleServer: a server that is behind by less than a second refuses nothing
// that was sealed, or granted, meanwhile at another one.
func TestStaleServer(t *testing.T) {
	seal, with := reference(t)
	b := start(t, with(open()))
	behind := &staleStore{Store: b.store}
	behind.catchUp(t)
	o := with(open())
	o.Store, o.KEK, o.Audit, o.Now = behind, b.keys, b.log, b.clock
	o.Rules.Limit = policy.Limit{PerHour: 100}
	other, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer other.Close()
	opens := func(raw []byte, data string) {
		t.Helper()
		got, err := other.Unseal(t.Context(), from(nodeA), raw)
		if err != nil || string(got.Bytes()) != data {
			t.Fatalf("%v", err)
		}
		other.Release(got)
	}
	first := b.sealed(nodeA, "one")
	opens(first, "one") // of a node it has not heard of
	behind.catchUp(t)
	_, err = b.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	opens(b.sealed(nodeA, "two"), "two") // of a version it has not heard of
	b.ok(b.Freeze(t.Context(), op, nodeA))
	behind.catchUp(t)
	b.ok(b.Thaw(t.Context(), op, nodeA))
	opens(first, "one") // that it thinks is frozen

	raw := seal(volumeKey)
	b.opens(nodeA, raw, volumeKey)
	opens(raw, volumeKey) // imported without its knowledge
	behind.catchUp(t)
	_, err = b.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	b.ok(b.retire(nodeA, 2))
	opens(raw, volumeKey) // sealed anew without its knowledge

	// What it believes of a node that is shut out costs a second at most.
	b.ok(b.Revoke(t.Context(), op, nodeA))
	behind.catchUp(t)
	if _, err := other.Unseal(t.Context(), from(nodeA), first); keeper.CodeOf(err) != keeper.Revoked {
		t.Errorf("%v", err)
	}
	if _, err := other.Seal(t.Context(), from(nodeA), secret.New(3)); keeper.CodeOf(err) != keeper.Revoked {
		t.Errorf("%v", err)
	}
}
