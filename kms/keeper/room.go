package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
)

const (
	countEvery = time.Second // until the nodes were counted
	countAgain = time.Minute // at most, when there is no room
	purgers    = 32          // that share their syncs

	// PendingPerSource is how many nodes of one address, or one IPv6 network of 64
	// bits, may ask to be registered in an hour, and at once.
	PendingPerSource = 1000
)

// counted is how many nodes there are. They are counted when the store is there: a
// server starts without it.
type counted struct {
	turn  chan struct{} // held by the one who counts
	known atomic.Bool
	at    atomic.Pointer[time.Time]

	all     atomic.Int64
	keyed   atomic.Int64 // that have keys
	pending atomic.Int64 // that wait for approval, and never had one
}

// change counts a record in place of another one, nil for none.
func (c *counted) change(from, to *record) {
	for r, n := range map[*record]int64{from: -1, to: 1} {
		if r == nil || r.Purged {
			continue
		}
		c.all.Add(n)
		if len(r.Keys) > 0 {
			c.keyed.Add(n)
		} else if r.waits() {
			c.pending.Add(n)
		}
	}
}

// waits reports whether nobody but the node itself did anything about it.
func (r *record) waits() bool { return r.Policy.State == policy.Pending && r.Last == 0 }

// draft is the record of a node to be changed: a new one, if there is none.
func (k *Keeper) draft(n *known) *record {
	if n.there() {
		return n.rec.clone()
	}
	return &record{Format: recordFormat, Made: k.o.Now().UTC()}
}

// room says why a node may not register itself: with a key, or to wait for approval.
func (k *Keeper) room(ctx context.Context, id blob.Node, source netip.Addr, key bool) error {
	if err := k.count(ctx); err != nil {
		return err
	}
	full := func() bool {
		if key {
			return k.counted.keyed.Load() >= int64(k.o.MaxNodes)
		}
		return k.counted.pending.Load() >= int64(k.o.MaxPending)
	}
	now := k.o.Now()
	if full() && now.Sub(*k.counted.at.Load()) >= countAgain {
		k.counted.known.Store(false) // other servers may have made room
		if err := k.count(ctx); err != nil {
			return err
		}
	}
	switch {
	case key && full():
		return &Error{Code: RateLimited, Node: id, Reason: TooMany, RetryAfter: countAgain}
	case key:
		return nil
	case full():
		return &Error{Code: RateLimited, Node: id, Reason: TooManyPending, RetryAfter: countAgain}
	}
	if wait := k.cache.mayAsk(source, now); wait > 0 {
		return &Error{Code: RateLimited, Node: id, Reason: TooManyPending, RetryAfter: wait}
	}
	return nil
}

// mayAsk takes one of the registrations that a source has; or says how long until
// there is one.
func (c *cache) mayAsk(source netip.Addr, now time.Time) time.Duration {
	source = source.Unmap()
	bits := source.BitLen()
	if source.Is6() {
		bits = 64
	}
	network, _ := source.Prefix(bits) // of no address: that of all who have none
	c.mu.Lock()
	defer c.mu.Unlock()
	after, _, wait := c.sources[network].Take(policy.Limit{PerHour: PendingPerSource, Burst: PendingPerSource}, now)
	c.sources[network] = after
	return wait
}

// count counts the nodes if that was not done before.
func (k *Keeper) count(ctx context.Context) error {
	c := &k.counted
	if c.known.Load() {
		return nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return unavailable("", NoStore, ctx.Err())
	}
	if c.known.Load() {
		return nil // someone else counted meanwhile
	}
	var found counted
	for item, err := range k.o.Store.List(ctx, nodePrefix) {
		if err != nil {
			return unavailable("", NoStore, fmt.Errorf("count the nodes: %w", err))
		}
		rec, err := parseRecord(item.Value)
		if err != nil {
			rec = &record{Keys: make([]nodeKey, 1)} // of a newer program, perhaps
		}
		found.change(nil, rec)
	}
	now := k.o.Now()
	c.all.Store(found.all.Load())
	c.keyed.Store(found.keyed.Load())
	c.pending.Store(found.pending.Load())
	c.at.Store(&now)
	c.known.Store(true)
	return nil
}

// countNodes counts in advance, so that no node has to wait for it.
func (k *Keeper) countNodes(ctx context.Context) {
	for ctx.Err() == nil {
		if k.count(ctx) == nil {
			return
		}
		pause(ctx, countEvery)
	}
}

// Count returns how many nodes were found when they were counted last and made
// since by this server; ok is false as long as the store could not be asked.
func (k *Keeper) Count() (n int64, ok bool) { return k.counted.all.Load(), k.counted.known.Load() }

// errWaits ends a purge of one node: it was approved, or denied, meanwhile.
var errWaits = errors.New("it does not wait any more")

// PurgePending forgets those who wait for approval since a time before this one, as
// if they had never asked, and returns how many. Whoever of them is a node asks again.
func (k *Keeper) PurgePending(ctx context.Context, by Operator, before time.Time) (n int, err error) {
	event := by.Event("purge")
	event.After = "pending_before=" + before.UTC().Format(time.RFC3339)
	if err := k.note(event); err != nil {
		return 0, unavailable("", NoAudit, err)
	}
	n, err = k.purge(ctx, before)
	event.Outcome, event.Detail = "done", fmt.Sprintf("%d nodes", n)
	if err != nil {
		event.Outcome, event.Detail = "failed", fmt.Sprintf("after %d nodes: %v", n, err)
	}
	return n, errors.Join(err, k.note(event))
}

func (k *Keeper) purge(ctx context.Context, before time.Time) (int, error) {
	var workers sync.WaitGroup
	var purged atomic.Int64
	nodes, failed := make(chan blob.Node), make(chan error, purgers)
	for range purgers {
		workers.Go(func() {
			var first error
			for id := range nodes {
				switch err := k.purgeOne(ctx, id, before); {
				case err == nil:
					purged.Add(1)
				case first == nil && !errors.Is(err, errWaits):
					first = err
				}
			}
			failed <- first
		})
	}
	var problems []error
	for info, err := range k.Nodes(ctx) {
		if err != nil {
			problems = append(problems, err)
		} else if info.Policy.State == policy.Pending && info.Made.Before(before) {
			nodes <- info.Node
		}
	}
	close(nodes)
	workers.Wait()
	for range purgers {
		problems = append(problems, <-failed)
	}
	return int(purged.Load()), errors.Join(problems...)
}

func (k *Keeper) purgeOne(ctx context.Context, id blob.Node, before time.Time) error {
	return k.change(ctx, id, func(_ blob.Node, r *record) error {
		if !r.waits() || !r.Made.Before(before) {
			return errWaits
		}
		*r = record{Format: recordFormat, Policy: policy.Node{State: policy.Pending}, Made: r.Made, Purged: true}
		return nil
	})
}
