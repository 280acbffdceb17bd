package keeper_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// heldStore is slow to store the reference blobs themselves.
type heldStore struct {
	store.Store
	held
}

func (s heldStore) Swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error) {
	if strings.HasPrefix(name, "import/") {
		s.stop()
	}
	return s.Store.Swap(ctx, name, old, value)
}

func (s heldStore) Scrub(ctx context.Context) error { return s.Store.(store.Scrubber).Scrub(ctx) }

// TestForgottenWhileImporting: a reference blob on its way into the store, while its
// node is forgotten, opens never again; not after the node was approved anew and its
// keys were rotated and retired, with the reference server's key at hand.
func TestForgottenWhileImporting(t *testing.T) {
	seal, with := reference(t)
	b := start(t, with(open()))
	raw, h := seal(volumeKey), hold()
	o := with(open())
	o.Store, o.KEK, o.Audit, o.Now = heldStore{b.store, h}, b.keys, b.log, b.clock
	slow, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer slow.Close()
	var data *secret.Bytes
	done := make(chan error)
	go func() {
		data, err = slow.Unseal(t.Context(), from(nodeA), raw)
		done <- err
	}()
	<-h.in
	b.ok(b.forget(nodeA, nodeA))
	close(h.goOn)
	err = <-done
	b.judge(data != nil, err, keeper.Denied, policy.NodeForgotten)
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	b.refused(nodeA, raw, keeper.Denied, keeper.KeyRetired) // no key yet
	b.sealed(nodeA, "a new key")
	b.refused(nodeA, raw, keeper.Denied, keeper.KeyRetired)
	_, err = b.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	b.ok(b.retire(nodeA, 2)) // seals nothing anew that is gone
	b.refused(nodeA, raw, keeper.Denied, keeper.KeyRetired)
}

// TestRetireTooMuch: versions that cannot be retired leave all as it is.
func TestRetireTooMuch(t *testing.T) {
	seal, with := reference(t)
	b := start(t, with(open()))
	b.opens(nodeA, seal(volumeKey), volumeKey)
	b.count("swap")
	b.count("append")
	if err := b.retire(nodeA, 1); !errors.Is(err, keeper.ErrRefused) || b.count("swap") != 0 || b.count("append") != 2 {
		t.Errorf("%v", err)
	}
	b.failing(only("append"))
	_, err := b.RotateKey(t.Context(), op, nodeA)
	if keeper.CodeOf(err) != keeper.Unavailable {
		t.Error(err)
	}
	b.failing(nil)
	_, err = b.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	b.failing(only("append"))
	if err := b.retire(nodeA, 1); keeper.CodeOf(err) != keeper.Unavailable || b.count("swap") != 0 {
		t.Errorf("what is not on record: %v", err)
	}
}

// TestImportsOfOne: to retire or forget a node reads its own reference blobs only.
func TestImportsOfOne(t *testing.T) {
	seal, with := reference(t)
	b := start(t, with(open()))
	for range 20 {
		b.opens(nodeB, seal(volumeKey), volumeKey)
	}
	mine := seal(volumeKey)
	b.opens(nodeA, mine, volumeKey)
	b.count("get")
	b.ok(b.forget(nodeA, nodeA))
	if n := b.count("get"); n > 5 {
		t.Errorf("%d records are read", n)
	}
	b.refused(nodeA, mine, keeper.Denied, policy.NodeForgotten)
	gone := 0
	for item, err := range b.store.List(t.Context(), "import/") {
		b.ok(err)
		if !strings.Contains(string(item.Value), "blob") {
			gone++
		}
	}
	if gone != 1 {
		t.Errorf("%d reference blobs are destroyed", gone)
	}
}

// failingScrub counts, and fails as long as it is told.
type failingScrub struct {
	store.Store
	fail bool
	n    int
}

func (s *failingScrub) Scrub(ctx context.Context) error {
	if s.n++; s.fail {
		return errPlanned
	}
	return s.Store.(store.Scrubber).Scrub(ctx)
}

// TestScrubAgain: what was destroyed, and not cleaned up, is cleaned up by the next
// try, with nothing left to destroy.
func TestScrubAgain(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "one")
	_, err := b.RotateKey(t.Context(), op, nodeA)
	b.ok(err)
	s := &failingScrub{Store: b.store, fail: true}
	o := open()
	o.Store, o.KEK, o.Audit, o.Now = s, b.keys, b.log, b.clock
	k, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer k.Close()
	if n, err := k.RetireKeys(t.Context(), op, nodeA, 2); n != 1 || !errors.Is(err, errPlanned) {
		t.Errorf("%d, %v", n, err)
	}
	s.fail = false
	if n, err := k.RetireKeys(t.Context(), op, nodeA, 2); n != 0 || err != nil || s.n != 2 {
		t.Errorf("%d, %v, %d scrubs", n, err, s.n)
	}
}

// TestGarbageOfANodeWithoutAKey is told apart from a blob whose key was retired.
func TestGarbageOfANodeWithoutAKey(t *testing.T) {
	_, with := reference(t)
	b := start(t, with(open()))
	raw := b.sealed(nodeB, "data")
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	b.refused(nodeA, raw, keeper.Denied, keeper.NotAuthentic)
	b.refused(nodeA, make([]byte, blob.ReferenceSize), keeper.Denied, keeper.NotAuthentic)
	_, err := b.RotateKey(t.Context(), op, nodeB)
	b.ok(err)
	newer := b.sealed(nodeB, "data")
	b.ok(b.retire(nodeB, 1))
	b.refused(nodeB, raw, keeper.Denied, keeper.KeyRetired)
	b.sealed(nodeA, "data")
	b.refused(nodeA, newer, keeper.Denied, keeper.NotAuthentic)
}
