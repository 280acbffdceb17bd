package keeper_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

func made(i int) string { return fmt.Sprintf("01234567-89ab-cdef-0123-%012x", i) }

// asks has a node ask to be registered, from an address of its own.
func (b *bench) asks(i int) (*keeper.Error, error) {
	r := from(made(i))
	r.Source = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	_, err := b.Seal(b.t.Context(), r, secret.New(3))
	e, _ := errors.AsType[*keeper.Error](err)
	return e, err
}

// TestMadeUpNodes: names that somebody makes up fill what is kept for those who
// wait, and nothing else; and an operator makes room again.
func TestMadeUpNodes(t *testing.T) {
	b := start(t, keeper.Options{MaxNodes: 5, MaxPending: 20})
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	for i := range 20 {
		if e, err := b.asks(i); e == nil || e.Code != keeper.Pending {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if e, err := b.asks(20); e == nil || e.Code != keeper.RateLimited || e.Reason != keeper.TooManyPending || e.RetryAfter <= 0 {
		t.Errorf("one more: %v", err)
	}
	b.opens(nodeA, b.sealed(nodeA, "approved"), "approved") // there is room for its key
	b.ok(b.Approve(t.Context(), op, made(7), keeper.Approval{}))
	if e, err := b.asks(20); e == nil || e.Code != keeper.Pending {
		t.Errorf("after one of them was approved: %v", err)
	}
	b.pass(time.Hour)
	if n, err := b.PurgePending(t.Context(), op, b.clock().Add(-2*time.Hour)); n != 0 || err != nil {
		t.Errorf("older than all: %d, %v", n, err)
	}
	if n, err := b.PurgePending(t.Context(), op, b.clock()); n != 20 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
	if r := b.recorded(); r.Op != "purge" || r.Outcome != "done" || r.Detail == "" {
		t.Errorf("on record: %+v", r)
	}
	listed := 0
	for _, err := range b.Nodes(t.Context()) {
		b.ok(err)
		listed++
	}
	if _, err := b.Info(t.Context(), made(3)); listed != 2 || !errors.Is(err, keeper.ErrUnknown) {
		t.Errorf("%d nodes are listed; one that was purged: %v", listed, err)
	}
	dir := b.dir
	b.stop()
	b = startIn(t, dir, keeper.Options{MaxNodes: 5, MaxPending: 20}) // counted anew
	b.pass(time.Hour)
	for _, i := range []int{3, 21} { // one that was purged, and a new one
		if e, err := b.asks(i); e == nil || e.Code != keeper.Pending {
			t.Errorf("node %d: %v", i, err)
		}
		if info, err := b.Info(t.Context(), made(i)); err != nil || info.Policy.State != policy.Pending || !info.Made.Equal(b.clock()) {
			t.Errorf("node %d: %+v, %v", i, info, err)
		}
	}
	b.ok(b.Approve(t.Context(), op, made(4), keeper.Approval{})) // of one that was purged
	b.sealed(made(4), "data")
}

// TestForgottenNodesLeaveRoom: under open enrolment too.
func TestForgottenNodesLeaveRoom(t *testing.T) {
	o := open()
	o.MaxNodes = 3
	b := start(t, o)
	for i := range 3 {
		b.sealed(made(i), "data")
	}
	if e := (&keeper.Error{}); !errors.As(b.sealErr(nodeA), &e) || e.Code != keeper.RateLimited || e.Reason != keeper.TooMany || e.RetryAfter <= 0 {
		t.Errorf("%v", e)
	}
	b.ok(b.forget(made(1), made(1)))
	b.sealed(nodeA, "data")
	b.ok(b.forget(made(2), made(2)))
	dir := b.dir
	b.stop()
	b = startIn(t, dir, o)
	b.sealed(nodeB, "data")
	b.sealRefused(nodeC, 3, keeper.RateLimited, keeper.TooMany)
}

func (b *bench) sealErr(node string) error {
	_, err := b.Seal(b.t.Context(), from(node), secret.New(3))
	return err
}

// TestOtherServersMakeRoom: what another server forgot, this one finds out before
// it refuses for more than a minute.
func TestOtherServersMakeRoom(t *testing.T) {
	o := open()
	o.MaxNodes = 1
	b := start(t, o)
	b.sealed(nodeA, "data")
	b.sealRefused(nodeB, 3, keeper.RateLimited, keeper.TooMany)
	o.Store, o.KEK, o.Audit, o.Now = b.store, b.keys, b.log, b.clock
	other, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer other.Close()
	_, err = other.Forget(t.Context(), op, nodeA, nodeA)
	b.ok(err)
	b.count("list")
	b.sealRefused(nodeB, 3, keeper.RateLimited, keeper.TooMany)
	if n := b.count("list"); n != 0 {
		t.Errorf("it counts %d times at once", n)
	}
	b.pass(time.Minute)
	b.sealed(nodeB, "data")
}

// TestOneSourceRegistersSlowly: a source cannot take all the room there is.
func TestOneSourceRegistersSlowly(t *testing.T) {
	b := start(t, keeper.Options{})
	asks := func(i int, source string) *keeper.Error {
		t.Helper()
		r := from(made(i))
		r.Source = netip.MustParseAddr(source)
		_, err := b.Seal(t.Context(), r, secret.New(3))
		e, ok := errors.AsType[*keeper.Error](err)
		if !ok {
			t.Fatal(err)
		}
		return e
	}
	n := 0
	for ; asks(n, fmt.Sprintf("2001:db8::%x", n)).Code == keeper.Pending; n++ {
		if n > keeper.PendingPerSource {
			t.Fatal("without end")
		}
	}
	if e := asks(n, "2001:db8::1"); n != keeper.PendingPerSource || e.Code != keeper.RateLimited || e.Reason != keeper.TooManyPending || e.RetryAfter <= 0 {
		t.Errorf("after %d: %v", n, e)
	}
	if e := asks(0, "2001:db8::1"); e.Code != keeper.Pending { // it is there already
		t.Errorf("one of them again: %v", e)
	}
	if e := asks(n, "2001:db8:0:1::1"); e.Code != keeper.Pending {
		t.Errorf("from another network: %v", e)
	}
}
