package keeper

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// generational is a memory that can say that nothing changed.
type generational struct {
	*memory
	reads, generation atomic.Int64
}

func (g *generational) Generation() uint64 { return uint64(g.generation.Load()) }

func (g *generational) Get(ctx context.Context, name string, age time.Duration) (store.Entry, error) {
	g.reads.Add(1)
	return g.memory.Get(ctx, name, age)
}

func (g *generational) Swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error) {
	defer g.generation.Add(1)
	return g.memory.Swap(ctx, name, old, value)
}

// TestSweepReadsOnce: a store that did not change is not read again for each node
// that is kept, and one that did is.
func TestSweepReadsOnce(t *testing.T) {
	keys, err := kek.Create(t.Context(), t.TempDir()+"/kek.json", kek.Secret{KeyFile: secret.Random(32)})
	if err != nil {
		t.Fatal(err)
	}
	g := &generational{memory: &memory{values: map[string]store.Entry{}}}
	k, err := New(t.Context(), Options{Store: g, KEK: keys, Audit: nowhere{}, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	const kept, gone = "01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdee"
	for _, node := range []string{kept, gone} {
		if _, err := k.Seal(t.Context(), Request{Node: node}, secret.Random(32)); err != nil {
			t.Fatal(err)
		}
	}
	k.sweep(t.Context())
	before := g.reads.Load()
	k.sweep(t.Context())
	if n := g.reads.Load() - before; n != 0 {
		t.Errorf("%d reads of a store that did not change", n)
	}
	e, err := g.Get(t.Context(), "node/"+gone, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Swap(t.Context(), "node/"+gone, e.Revision, []byte("what another one wrote")); err != nil {
		t.Fatal(err)
	}
	k.sweep(t.Context())
	if all := k.cache.all(); len(all) != 1 || string(all[0].node) != kept {
		t.Errorf("%d nodes are kept after one was changed", len(all))
	}
}
