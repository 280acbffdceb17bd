package keeper

import (
	"container/list"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

func emptyCache(size int) *cache {
	return &cache{size: size, nodes: map[blob.Node]*list.Element{}, buckets: map[blob.Node]policy.Bucket{}, seen: map[blob.Node]Seen{}, sources: map[netip.Prefix]policy.Bucket{}}
}

// with returns a node that has a key in memory, and the key.
func with(node blob.Node, revision uint64) (*known, *secret.Bytes) {
	n, key := newKnown(node, revision, &record{}), secret.Random(32)
	n.add(1, key)
	return n, key
}

func find(c *cache, node blob.Node, revision uint64) *known {
	return c.find(node, func(n *known) bool { return n.revision == revision })
}

func TestCacheIsBoundedAndWiped(t *testing.T) {
	c := emptyCache(3)
	var keys []*secret.Bytes
	for i := range 5 {
		n, key := with(blob.Node(fmt.Sprint(i)), 1)
		c.put(n)
		keys = append(keys, key)
		find(c, "0", 1) // stays the most recent
	}
	for i, want := range []bool{true, false, false, true, true} {
		if there := find(c, blob.Node(fmt.Sprint(i)), 1) != nil; there != want || keys[i].Len() != 0 != want {
			t.Errorf("node %d: there %v, key of %d bytes", i, there, keys[i].Len())
		}
	}
}

func TestCacheKeepsTheNewest(t *testing.T) {
	c := emptyCache(3)
	old, oldKey := with("a", 1)
	c.put(old)
	recent, recentKey := with("a", 2)
	if c.put(recent) != recent || oldKey.Len() != 0 {
		t.Error("the old one's key is still in memory")
	}
	late := newKnown("a", 1, &record{})
	if c.put(late) != late || find(c, "a", 2) != recent || recentKey.Len() == 0 {
		t.Error("a late reader threw out the newest one")
	}
	if late.add(1, secret.Random(32)) {
		t.Error("a late reader keeps a key, and nobody would wipe it")
	}
	twin, _ := with("a", 2)
	if c.put(twin) != recent {
		t.Error("two of one revision")
	}
	if c.drop("a", 1); find(c, "a", 2) == nil {
		t.Error("a late drop threw out the newest one")
	}
	if c.drop("a", 2); find(c, "a", 2) != nil || recentKey.Len() != 0 {
		t.Error("not dropped, or not wiped")
	}
	if recent.add(2, secret.Random(32)) {
		t.Error("a key was added to a node that was wiped")
	}
}

func TestBucketsAtRestAreForgotten(t *testing.T) {
	c, now := emptyCache(1), time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	n := newKnown("a", 1, &record{Policy: policy.Node{State: policy.Approved}})
	rules := policy.Rules{Limit: policy.Limit{PerHour: 6}}
	if d := c.decide(rules, n, policy.Request{Op: policy.Unseal}, now); !d.Allow || len(c.buckets) != 1 {
		t.Fatalf("%+v", d)
	}
	if c.rest(now.Add(9 * time.Minute)); len(c.buckets) != 1 {
		t.Error("forgotten too early")
	}
	if c.rest(now.Add(10 * time.Minute)); len(c.buckets) != 0 {
		t.Error("never forgotten")
	}
}

func TestPool(t *testing.T) {
	var p pool
	a := p.take(32)
	copy(a.Bytes(), "something that must not be seen.")
	p.give(a)
	p.give(a)
	if b := p.take(33); b.Len() != 33 {
		t.Errorf("%d bytes", b.Len())
	}
	if b := p.take(32); b != a || !b.Equal(secret.New(32)) {
		t.Error("another one, or not zeroed")
	}
	if b := p.take(32); b == a {
		t.Error("one secret given out twice")
	}
	p.give(nil)
	p.give(secret.New(0))
	for range maxIdle + 5 {
		p.give(secret.New(32))
	}
	if p.n != maxIdle || len(p.idle[32]) != maxIdle {
		t.Errorf("%d are kept, at most %d", p.n, maxIdle)
	}
	last := p.idle[32][0]
	if p.wipe(); last.Len() != 0 || p.n != 0 {
		t.Error("not wiped")
	}
}
