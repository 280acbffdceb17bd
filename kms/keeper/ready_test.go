package keeper_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/secret"
)

// eventually waits for what the keeper does by itself.
func (b *bench) eventually(what string, is func() bool) {
	b.t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatalf("%s: it does not come to that", what)
		}
	}
}

// TestStartWithoutStore: a keeper starts while its store is away, answers
// Unavailable, and works when the store comes back, its limit of nodes too.
func TestStartWithoutStore(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	b.failing(func(call string, _ int) bool { return call == "get" || call == "list" || call == "swap" })
	o := open()
	o.MaxNodes = 2
	o.Store, o.KEK, o.Audit, o.Now = countedStore{b.counter, b.store}, countedKEK{b.counter, b.keys}, b.log, b.clock
	k, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer k.Close()
	if _, err := k.Unseal(t.Context(), from(nodeA), raw); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("without a store: %v", err)
	}
	if h := k.Health(t.Context()); h.Store == nil || keeper.CodeOf(h.Ready()) != keeper.Unavailable || h.KEK != nil || h.Audit != nil {
		t.Errorf("%+v", h)
	}
	if _, ok := k.Count(); ok {
		t.Error("it counted")
	}
	b.failing(only("list")) // it can be read, but nothing was counted
	if _, err := k.Seal(t.Context(), from(nodeB), secret.New(8)); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("a node more, and nobody knows how many there are: %v", err)
	}
	if err := k.Approve(t.Context(), op, nodeC, keeper.Approval{}); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("the same by an operator: %v", err)
	}
	b.failing(nil)
	b.ok(k.Ready(t.Context()))
	data, err := k.Unseal(t.Context(), from(nodeA), raw)
	b.ok(err)
	data.Wipe()
	b.eventually("counted", func() bool { n, ok := k.Count(); return ok && n == 1 })
	if _, err := k.Seal(t.Context(), from(nodeB), secret.New(8)); err != nil {
		t.Error(err)
	}
	e := &keeper.Error{}
	if _, err := k.Seal(t.Context(), from(nodeC), secret.New(8)); !errors.As(err, &e) || e.Reason != keeper.TooMany {
		t.Errorf("one too many: %v", err)
	}
}

// remoteKEK is a KEK that can be out of reach.
type remoteKEK struct {
	kek.Wrapper
	down atomic.Pointer[error]
}

func (r *remoteKEK) fail(err error) { r.down.Store(&err) }

// Probe implements what the keeper looks for.
func (r *remoteKEK) Probe(context.Context) error { return *r.down.Load() }

// TestKEKOutOfReach: before it answered once no node can be answered; after that
// some can.
func TestKEKOutOfReach(t *testing.T) {
	b := start(t, open())
	far := &remoteKEK{Wrapper: b.keys}
	far.fail(kek.ErrSealed)
	o := open()
	o.Store, o.KEK, o.Audit, o.Now = b.store, far, b.log, b.clock
	k, err := keeper.New(t.Context(), o)
	b.ok(err)
	defer k.Close()
	b.eventually("sealed", func() bool {
		err := k.Ready(t.Context())
		return err != nil && strings.Contains(err.Error(), "kek: "+kek.ErrSealed.Error())
	})
	far.fail(nil)
	b.eventually("ready", func() bool { return k.Ready(t.Context()) == nil })
	if h := k.Health(t.Context()); h.KEK != nil || !h.Answered {
		t.Errorf("%+v", h)
	}
}
