package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/volume"
)

// Backoff is how long a boot that failed waits before the next attempt: First,
// and twice as long each time up to Most.
type Backoff struct{ First, Most time.Duration }

// DefaultBackoff leaves a key server time to come back.
var DefaultBackoff = Backoff{5 * time.Second, 5 * time.Minute}

// BootUntilUp boots again and again while waiting can help: a key that was not
// to be had, a disk that is not there yet. Other errors end it, since the same
// keys on the same disk fail the same way.
func (n *Node) BootUntilUp(ctx context.Context, b Backoff) error {
	for wait := b.First; ; wait = min(2*wait, b.Most) {
		err := n.Boot(ctx)
		if err == nil || !canPass(err) {
			return err
		}
		n.log.Warn("STATE does not open; trying again", "in", wait)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		switch s := n.Status(); {
		case s.Phase == Running, s.Phase == Maintenance:
			return nil // someone else brought it up
		case s.Phase == Booting && s.Reason == isClosed:
			return errClosing
		}
	}
}

// canPass reports whether the same may work later. A PIN that is refused would be
// refused again, until the TPM locks itself; and a node that is closed is not to be
// opened again.
func canPass(err error) bool {
	return !isPINWrong(err) && !errors.Is(err, errClosing) && (errors.Is(err, keys.ErrUnavailable) || errors.Is(err, volume.ErrMissing))
}

func isPINWrong(err error) bool {
	if tpm.ReasonOf(err) == tpm.PINWrong {
		return true
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return isPINWrong(e.Unwrap())
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), isPINWrong)
	}
	return false
}
