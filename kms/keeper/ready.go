package keeper

import (
	"context"
	"errors"
	"time"

	"github.com/cryptctl/cryptctl/kms/store"
)

const (
	probeEvery = 5 * time.Second // a key-encryption key that answers
	probeAgain = time.Second     // one that does not
)

// prober is a KEK elsewhere, which can be out of reach. Probe uses it once.
type prober interface {
	Probe(ctx context.Context) error
}

// Health says what of the parts is not available, and why; nil is well.
type Health struct {
	Store, KEK, Audit error
	// Answered is that the KEK answered, or a keyset opened a node's key, since the
	// start. Keys that were unwrapped before it went away are still used, and a keyset
	// that lacks the newest version opens what older ones wrapped.
	Answered bool
}

// Ready says why no node at all can be answered.
func (h Health) Ready() error {
	switch {
	case h.Store != nil:
		return unavailable("", NoStore, h.Store)
	case h.Audit != nil:
		return unavailable("", NoAudit, h.Audit)
	case h.KEK != nil && !h.Answered:
		return noKEK("", h.KEK)
	}
	return nil
}

// Health looks at the parts, as far as that costs next to nothing: the store is
// asked for a record that may be [MaxAge] old; of a KEK elsewhere and of the audit
// log it says what the last use found, seconds ago; a keyset must be that of the
// store.
func (k *Keeper) Health(ctx context.Context) Health {
	var h Health
	if _, err := k.get(ctx, "ready", MaxAge); err != nil && !errors.Is(err, store.ErrNotFound) {
		h.Store = err
	}
	if log, ok := k.o.Audit.(interface{ Err() error }); ok {
		h.Audit = log.Err()
	}
	if p := k.probed.Load(); p != nil {
		h.KEK, h.Answered = p.err, p.answered
	} else if h.Store == nil {
		h.KEK, h.Store = k.checkKEK(ctx, MaxAge)
		h.Answered = k.opened.Load()
	}
	return h
}

// Ready says why no node can be answered, as far as asking costs nothing.
func (k *Keeper) Ready(ctx context.Context) error { return k.Health(ctx).Ready() }

// probe is what became of the last use of the KEK. There is none for a KEK that
// cannot be out of reach.
type probe struct {
	err      error
	answered bool
}

// ErrNotAsked is said of a KEK, for a moment after the start.
var ErrNotAsked = errors.New("it was not asked yet")

// watchAudit has a log that nobody writes tried, so that a full disk is known
// before a node asks.
func (k *Keeper) watchAudit(ctx context.Context, log interface{ Probe() error }) {
	for wait := probeEvery; ctx.Err() == nil; {
		if pause(ctx, wait); ctx.Err() != nil {
			return
		}
		if wait = probeEvery; log.Probe() != nil {
			wait = probeAgain
		}
	}
}

// watchKEK uses the KEK again and again, so that it is known whether it answers
// before a node needs it.
func (k *Keeper) watchKEK(ctx context.Context, p prober) {
	for ctx.Err() == nil {
		err, before := p.Probe(ctx), k.probed.Load()
		k.probed.Store(&probe{err, before.answered || err == nil})
		wait := probeEvery
		if err != nil {
			wait = probeAgain
		}
		pause(ctx, wait)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
