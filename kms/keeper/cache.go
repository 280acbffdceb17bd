package keeper

import (
	"container/list"
	"context"
	"errors"
	"maps"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

// known is a node as one revision of its record says, and its keys as far as they
// were needed. Its record does not change; another revision is another known.
type known struct {
	node     blob.Node
	revision uint64 // 0: there is no record
	rec      *record

	checked atomic.Uint64 // the store's generation, plus one, in which it was the newest; 0: not known

	unwrapping chan struct{} // held by the one who asks the KEK

	mu   sync.RWMutex // held for reading while keys are in use
	keys map[uint32]*secret.Bytes
	dead bool // wiped: no key may be added
}

func newKnown(node blob.Node, revision uint64, rec *record) *known {
	return &known{node: node, revision: revision, rec: rec, unwrapping: make(chan struct{}, 1), keys: map[uint32]*secret.Bytes{}}
}

// policy returns the node's state; the zero Node if it has none.
func (k *known) policy() policy.Node {
	if !k.there() {
		return policy.Node{}
	}
	return k.rec.Policy
}

// there reports whether the node is registered.
func (k *known) there() bool { return k.rec != nil && !k.rec.Purged }

// has reports whether there is this version of its key; any, for 0.
func (k *known) has(version uint32) bool {
	if k.rec == nil {
		return false
	}
	_, ok := k.rec.key(version)
	return ok
}

// wipe destroys the keys once nobody uses them.
func (k *known) wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.keys {
		key.Wipe()
	}
	clear(k.keys)
	k.dead = true
}

// use calls do with a version of the key, which it must not keep. ok is false if
// the key is not there.
func (k *known) use(version uint32, do func(*secret.Bytes) error) (ok bool, err error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, ok := k.keys[version]
	if !ok {
		return false, nil
	}
	return true, do(key)
}

// add keeps a key that was unwrapped. It is the caller's again if ok is false.
func (k *known) add(version uint32, key *secret.Bytes) (ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dead || k.keys[version] != nil {
		return false
	}
	k.keys[version] = key
	return true
}

// withKey calls do with a version of the node's key, unwrapped by the KEK if it
// was not before.
func (k *Keeper) withKey(ctx context.Context, n *known, version uint32, do func(*secret.Bytes) error) error {
	if ok, err := n.use(version, do); ok {
		return err
	}
	select {
	case n.unwrapping <- struct{}{}:
		defer func() { <-n.unwrapping }()
	case <-ctx.Done():
		return unavailable(n.node, NoKEK, ctx.Err())
	}
	if ok, err := n.use(version, do); ok {
		return err // someone else asked meanwhile
	}
	key, err := k.unwrap(ctx, n.node, n.rec, version)
	if err != nil {
		return err
	}
	if n.add(version, key) {
		// Not found any more only if it was wiped since: then with our own copy.
		if ok, err := n.use(version, do); ok {
			return err
		}
		return unavailable(n.node, NoStore, errors.New("the node's record was changed meanwhile"))
	}
	defer key.Wipe()
	return do(key)
}

// unwrap asks the KEK for a version of a node's key.
func (k *Keeper) unwrap(ctx context.Context, node blob.Node, rec *record, version uint32) (*secret.Bytes, error) {
	wrapped, ok := rec.key(version)
	if !ok {
		return nil, denied(node, KeyRetired, nil)
	}
	if err := k.notRetired(ctx, node, kek.Version(wrapped.Wrapped), readAge); err != nil {
		return nil, err
	}
	k.asked.kek.Add(1)
	key, err := k.o.KEK.Unwrap(ctx, wrapped.Wrapped, associated(node, version))
	if err == nil && key.Len() != blob.KeySize {
		key.Wipe()
		err = errors.New("it is not a node key")
	}
	if err != nil {
		return nil, noKEK(node, err)
	}
	k.opened.Store(true)
	return key, nil
}

// cache is the nodes that were asked for last, and the rate state of all that are
// not at rest.
type cache struct {
	mu      sync.Mutex
	size    int
	nodes   map[blob.Node]*list.Element // of *known
	recent  list.List                   // most recent in front
	buckets map[blob.Node]policy.Bucket
	seen    map[blob.Node]Seen // of nodes that have a record
	sources map[netip.Prefix]policy.Bucket
}

// saw notes that a node was here.
func (c *cache) saw(node blob.Node, at time.Time, source netip.Addr, unsealed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Seen{At: at, Source: source, Unsealed: c.seen[node].Unsealed}
	if unsealed {
		s.Unsealed = at
	}
	c.seen[node] = s
}

func (c *cache) lastSeen(node blob.Node) Seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[node]
}

// find returns a node that fits, if there is one.
func (c *cache) find(node blob.Node, fits func(*known) bool) *known {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.nodes[node]
	if !ok || !fits(e.Value.(*known)) {
		return nil
	}
	c.recent.MoveToFront(e)
	return e.Value.(*known)
}

// put keeps n in place of an older revision, and returns the one to use: another
// goroutine may have been faster. What has to go is wiped.
func (c *cache) put(n *known) *known {
	c.mu.Lock()
	var gone []*known
	if e, ok := c.nodes[n.node]; ok {
		old := e.Value.(*known)
		if old.revision >= n.revision {
			c.mu.Unlock()
			if old.revision == n.revision {
				return old
			}
			n.wipe() // a reader that is late: nobody knows n but him, so it keeps no key
			return n
		}
		gone = append(gone, c.remove(e))
	}
	c.nodes[n.node] = c.recent.PushFront(n)
	for c.recent.Len() > c.size {
		gone = append(gone, c.remove(c.recent.Back()))
	}
	c.mu.Unlock()
	for _, g := range gone {
		g.wipe()
	}
	return n
}

// remove takes an element out; the caller holds the lock and wipes it later.
func (c *cache) remove(e *list.Element) *known {
	n := c.recent.Remove(e).(*known)
	delete(c.nodes, n.node)
	return n
}

// drop wipes a node unless it is there in a newer revision.
func (c *cache) drop(node blob.Node, revision uint64) {
	c.mu.Lock()
	e, ok := c.nodes[node]
	if ok && e.Value.(*known).revision <= revision {
		n := c.remove(e)
		c.mu.Unlock()
		n.wipe()
		return
	}
	c.mu.Unlock()
}

func (c *cache) all() []*known {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]*known, 0, len(c.nodes))
	for _, e := range c.nodes {
		out = append(out, e.Value.(*known))
	}
	return out
}

// decide asks the policy and takes a token if it allows.
func (c *cache) decide(rules policy.Rules, n *known, req policy.Request, now time.Time) policy.Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	bucket := c.buckets[n.node]
	d := policy.Decide(rules, n.policy(), req, bucket, now)
	if d.Bucket != bucket {
		c.buckets[n.node] = d.Bucket
	}
	return d
}

func (c *cache) bucket(node blob.Node) policy.Bucket {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.buckets[node]
}

// giveBack returns what decide took.
func (c *cache) giveBack(node blob.Node, d policy.Decision) {
	if d.Took > 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.buckets[node] = c.buckets[node].Return(d.Took)
	}
}

// rest forgets buckets that are full.
func (c *cache) rest(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for node, b := range c.buckets {
		if b.Full(now) {
			delete(c.buckets, node)
		}
	}
	maps.DeleteFunc(c.sources, func(_ netip.Prefix, b policy.Bucket) bool { return b.Full(now) })
}
