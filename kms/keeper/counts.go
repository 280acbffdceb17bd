package keeper

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// Counts are what a keeper asked of others since it was made. A steady Unseal of
// a bolt store adds to none of them.
type Counts struct {
	StoreReads  int64 // of single records
	StoreWrites int64
	KEKCalls    int64
}

// Counts returns the counts of now.
func (k *Keeper) Counts() Counts {
	return Counts{StoreReads: k.asked.reads.Load(), StoreWrites: k.asked.writes.Load(), KEKCalls: k.asked.kek.Load()}
}

type asked struct{ reads, writes, kek atomic.Int64 }

func (k *Keeper) get(ctx context.Context, name string, age time.Duration) (store.Entry, error) {
	k.asked.reads.Add(1)
	return k.o.Store.Get(ctx, name, age)
}

func (k *Keeper) swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error) {
	k.asked.writes.Add(1)
	return k.o.Store.Swap(ctx, name, old, value)
}

func (k *Keeper) wrap(ctx context.Context, key *secret.Bytes, associated []byte) ([]byte, error) {
	if err := k.agree(ctx); err != nil {
		return nil, err
	}
	k.asked.kek.Add(1)
	return k.o.KEK.Wrap(ctx, key, associated)
}
