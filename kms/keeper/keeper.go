package keeper

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// readAge is the half of it for what was read before; the other half is for the
// KEK and the audit log, and after that it is read and decided again.
const readAge = MaxAge / 2

// The defaults of Options.
const (
	DefaultCache    = 1024    // with a page of locked memory for each key
	DefaultMaxNodes = 100_000 // registered by nodes themselves

	DefaultMaxPending = 10_000
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
	// MaxNodes is how many nodes with keys there may be for one more to register
	// itself. Each server counts those it found and its own, and all of them again
	// before it refuses, once a minute.
	MaxNodes int
	// MaxPending is how many may wait for approval for one more to ask for it.
	// Anybody can make up names, so they take no room from those with keys.
	MaxPending int
	Now        func() time.Time // default time.Now
	// Log takes what the audit log could not; nil throws it away.
	Log *slog.Logger
}

// Keeper seals and unseals. Its methods may be called from many goroutines.
type Keeper struct {
	o     Options
	cache cache
	rules atomic.Pointer[storedRules]

	counted counted
	probed  atomic.Pointer[probe]
	opened  atomic.Bool // the KEK has unwrapped a node's key

	owed owed

	answers pool
	asked   asked

	stop context.CancelFunc
	done sync.WaitGroup
}

// Request is who asks. The front has proven what can be.
type Request struct {
	Node   string     // UUID, in any case
	Source netip.Addr // where it came from
	Actor  string     // whose certificate it was, for the record; may be empty
}

// New returns a keeper. Store and KEK need not be there: until they are, it answers
// Unavailable. Store, KEK and Audit stay the caller's to close, after
// [Keeper.Close].
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
	if o.MaxPending <= 0 {
		o.MaxPending = DefaultMaxPending
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	k := &Keeper{o: o}
	k.cache.size, k.cache.nodes, k.cache.buckets = o.Cache, map[blob.Node]*list.Element{}, map[blob.Node]policy.Bucket{}
	k.cache.seen, k.cache.sources = map[blob.Node]Seen{}, map[netip.Prefix]policy.Bucket{}
	k.rules.Store(&storedRules{rules: o.Rules})
	k.counted.turn = make(chan struct{}, 1)
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	k.done.Go(func() { k.run(ctx) })
	k.done.Go(func() { k.countNodes(ctx) })
	if p, ok := o.KEK.(prober); ok {
		k.probed.Store(&probe{err: ErrNotAsked})
		k.done.Go(func() { k.watchKEK(ctx, p) })
	}
	if log, ok := o.Audit.(interface{ Probe() error }); ok {
		k.done.Go(func() { k.watchAudit(ctx, log) })
	}
	return k, nil
}

// Close wipes all keys. No method may be called afterwards.
func (k *Keeper) Close() {
	k.stop()
	k.done.Wait()
	k.payOwed()
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
			k.payOwed()
			k.sweep(ctx)
		}
	}
}

// sweep wipes nodes whose record was changed, and forgets buckets at rest.
func (k *Keeper) sweep(ctx context.Context) {
	k.cache.rest(k.o.Now())
	now := k.generation()
	for _, n := range k.cache.all() {
		if now > 0 && n.checked.Load() == now {
			continue // nothing changed since
		}
		e, err := k.get(ctx, nodePrefix+string(n.node), MaxAge)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return // the store is not there: nothing can be used anyway
		}
		if e.Revision != n.revision {
			k.cache.drop(n.node, n.revision)
			continue
		}
		n.checked.Store(now)
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
	e, err := k.get(ctx, nodePrefix+string(id), age)
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
	if n.revision == 0 { // counted before there is one more
		if err := k.count(ctx); err != nil {
			return err
		}
	}
	if _, err = k.swap(ctx, nodePrefix+string(n.node), n.revision, text); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return err
		}
		return unavailable(n.node, NoStore, err)
	}
	k.counted.change(n.rec, rec)
	k.cache.drop(n.node, n.revision)
	return nil
}

// addKey gives a record one more version of the node's key.
func (k *Keeper) addKey(ctx context.Context, node blob.Node, rec *record) error {
	if len(rec.Keys) >= maxKeys {
		return fmt.Errorf("%w: %d versions of the key of node %s are kept; retire some", ErrRefused, maxKeys, node)
	}
	key := secret.Random(blob.KeySize)
	defer key.Wipe()
	version := rec.Last + 1
	wrapped, err := k.wrap(ctx, key, associated(node, version))
	if err != nil {
		return noKEK(node, err)
	}
	made := nodeKey{Version: version, Wrapped: wrapped, Made: k.o.Now().UTC()}
	if err := k.proveWrapped(ctx, node, made, key); err != nil {
		return err
	}
	rec.Last = version
	rec.Keys = append(rec.Keys, made)
	return nil
}

// proveWrapped looks whether a wrapped key opens, before it is stored: the newest
// version is the one that seals, and with one that does not open the node would
// have nothing sealed ever again.
func (k *Keeper) proveWrapped(ctx context.Context, node blob.Node, made nodeKey, key *secret.Bytes) error {
	back, err := k.unwrap(ctx, node, &record{Keys: []nodeKey{made}}, made.Version)
	if err != nil {
		return err
	}
	defer back.Wipe()
	if !back.Equal(key) {
		return unavailable(node, NoKEK, fmt.Errorf("key version %d came back as another key when it was wrapped; it was not stored", made.Version))
	}
	return nil
}
