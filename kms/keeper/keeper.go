package keeper

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// MaxAge is how old a record may be that an Unseal is decided by: how long a
// revocation on one server may stay unseen by another one.
const MaxAge = time.Second

// The defaults of Options.
const (
	DefaultCache    = 1024    // with a page of locked memory for each key
	DefaultMaxNodes = 100_000 // registered by nodes themselves
)

// Recorder takes audit records. An [audit.Log] is one.
type Recorder interface {
	// Append returns when the record is durable.
	Append(audit.Event) error
}

// Options of a [Keeper]. Store, KEK and Audit are needed.
type Options struct {
	Store store.Store
	KEK   kek.Wrapper
	Audit Recorder
	// Rules hold until others are stored, by SetRules on any server.
	Rules policy.Rules
	// Import opens blobs of the reference server; nil refuses them.
	Import *blob.Reference
	// Cache is how many nodes are kept with their keys unwrapped.
	Cache int
	// MaxNodes is how many nodes there may be for one more to register itself;
	// each server counts those it found at its start and its own.
	MaxNodes int
	Now      func() time.Time // default time.Now
}

// Keeper seals and unseals. Its methods may be called from many goroutines.
type Keeper struct {
	o     Options
	cache cache
	count atomic.Int64 // nodes
	rules atomic.Pointer[storedRules]

	answers pool

	stop context.CancelFunc
	done sync.WaitGroup
}

// Request is who asks. The front has proven what can be.
type Request struct {
	Node   string     // UUID, in any case
	Source netip.Addr // where it came from
	Actor  string     // whose certificate it was, for the record; may be empty
}

// New returns a keeper. It counts the nodes, so the store must be there. Store,
// KEK and Audit stay the caller's to close, after [Keeper.Close].
func New(ctx context.Context, o Options) (*Keeper, error) {
	if o.Store == nil || o.KEK == nil || o.Audit == nil {
		return nil, errors.New("keeper: a store, a key-encryption key and an audit log are needed")
	}
	if err := o.Rules.Check(); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if o.Cache <= 0 {
		o.Cache = DefaultCache
	}
	if o.MaxNodes <= 0 {
		o.MaxNodes = DefaultMaxNodes
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keeper{o: o}
	k.cache.size, k.cache.nodes, k.cache.buckets = o.Cache, map[blob.Node]*list.Element{}, map[blob.Node]policy.Bucket{}
	k.cache.seen = map[blob.Node]Seen{}
	k.rules.Store(&storedRules{rules: o.Rules})
	for _, err := range o.Store.List(ctx, nodePrefix) {
		if err != nil {
			return nil, fmt.Errorf("keeper: count the nodes: %w", err)
		}
		k.count.Add(1)
	}
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	k.done.Go(func() { k.run(ctx) })
	return k, nil
}

// Close wipes all keys. No method may be called afterwards.
func (k *Keeper) Close() {
	k.stop()
	k.done.Wait()
	for _, n := range k.cache.all() {
		n.wipe()
	}
	k.answers.wipe()
	k.o.Import.Wipe()
}

// run cleans up once in [MaxAge]: a key must not stay in memory because nobody
// asks for its node.
func (k *Keeper) run(ctx context.Context) {
	tick := time.NewTicker(MaxAge)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.sweep(ctx)
		}
	}
}

// sweep wipes nodes whose record was changed, and forgets buckets at rest.
func (k *Keeper) sweep(ctx context.Context) {
	k.cache.rest(k.o.Now())
	for _, n := range k.cache.all() {
		e, err := k.o.Store.Get(ctx, nodePrefix+string(n.node), MaxAge)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return // the store is not there: nothing can be used anyway
		}
		if e.Revision != n.revision {
			k.cache.drop(n.node, n.revision)
		}
	}
}

// generation returns the store's generation, plus one; 0 if it has none.
func (k *Keeper) generation() uint64 {
	if g, ok := k.o.Store.(store.Generational); ok {
		return g.Generation() + 1
	}
	return 0
}

// node returns a node as it was at most age ago.
func (k *Keeper) node(ctx context.Context, id blob.Node, age time.Duration) (*known, error) {
	now := k.generation()
	if now > 0 {
		if n := k.cache.find(id, func(n *known) bool { return n.checked.Load() == now }); n != nil {
			return n, nil
		}
	}
	e, err := k.o.Store.Get(ctx, nodePrefix+string(id), age)
	if errors.Is(err, store.ErrNotFound) {
		return newKnown(id, 0, nil), nil
	}
	if err != nil {
		return nil, unavailable(id, NoStore, err)
	}
	n := k.cache.find(id, func(n *known) bool { return n.revision == e.Revision })
	if n == nil {
		rec, err := parseRecord(e.Value)
		if err != nil {
			return nil, unavailable(id, NoStore, fmt.Errorf("record of the node: %w", err))
		}
		n = k.cache.put(newKnown(id, e.Revision, rec))
	}
	n.checked.Store(now)
	return n, nil
}

// save stores a node's record in place of the one that n has.
func (k *Keeper) save(ctx context.Context, n *known, rec *record) error {
	text, err := rec.encode()
	if err != nil {
		return unavailable(n.node, NoStore, fmt.Errorf("record of the node: %w", err))
	}
	if _, err = k.o.Store.Swap(ctx, nodePrefix+string(n.node), n.revision, text); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return err
		}
		return unavailable(n.node, NoStore, err)
	}
	if n.revision == 0 {
		k.count.Add(1)
	}
	k.cache.drop(n.node, n.revision)
	return nil
}

// addKey gives a record one more version of the node's key.
func (k *Keeper) addKey(ctx context.Context, node blob.Node, rec *record) error {
	if len(rec.Keys) >= maxKeys {
		return denied(node, TooMany, fmt.Errorf("%d versions of its key are kept; retire some", maxKeys))
	}
	key := secret.Random(blob.KeySize)
	defer key.Wipe()
	version := rec.Last + 1
	wrapped, err := k.o.KEK.Wrap(ctx, key, associated(node, version))
	if err != nil {
		return unavailable(node, NoKEK, err)
	}
	rec.Last = version
	rec.Keys = append(rec.Keys, nodeKey{Version: version, Wrapped: wrapped, Made: k.o.Now().UTC()})
	return nil
}

// Ready says why the server cannot answer, as far as asking costs nothing.
func (k *Keeper) Ready(ctx context.Context) error {
	if _, err := k.o.Store.Get(ctx, "ready", MaxAge); err != nil && !errors.Is(err, store.ErrNotFound) {
		return unavailable("", NoStore, err)
	}
	if log, ok := k.o.Audit.(interface{ Err() error }); ok && log.Err() != nil {
		return unavailable("", NoAudit, log.Err())
	}
	return nil
}
