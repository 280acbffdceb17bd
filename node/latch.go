package node

import (
	"context"
	"reflect"
	"slices"

	"github.com/cryptctl/cryptctl/config"
)

// Latch ends unsealing for this boot: keys that the TPM sealed with a latch cannot
// be had any more, by whoever controls the machine from here on. A node does it by
// itself before it is Running. A daemon that hands control to anyone else before
// that, such as a shell for someone to look what failed, calls it first, and does
// not go on when it fails.
func (n *Node) Latch(ctx context.Context) error {
	defer n.begin()()
	return n.latch(ctx)
}

func (n *Node) latch(ctx context.Context) error {
	if n.latched {
		return nil
	}
	if err := n.opts.Machine.TPM.Latch(ctx); err != nil {
		return err
	}
	n.latched = true
	n.log.Info("the TPM's latch is closed")
	return nil
}

// closeLatch is latch for a node that goes on all the same: the volumes are in
// use, and its operator is told.
func (n *Node) closeLatch(ctx context.Context) {
	if err := n.latch(ctx); err != nil {
		n.notice("the TPM's latch did not close, so that its keys can still be unsealed in this boot: %v", err)
	}
}

// hasLatch reports whether a key cannot be unsealed once the latch is closed.
func hasLatch(k config.Key) bool { return k.TPM != nil && !k.TPM.NoLatch }

func (m *machine) hasLatch() bool {
	return slices.ContainsFunc(m.Volumes, func(e config.Encryption) bool { return slices.ContainsFunc(e.Keys, hasLatch) })
}

// sameTPM reports whether the keys that the TPM seals are configured alike; the
// form of META does not have all that the configuration has of them.
func sameTPM(a, b *config.Encryption) bool {
	return slices.EqualFunc(a.Keys, b.Keys, func(x, y config.Key) bool { return x.Slot == y.Slot && equalTPM(x.TPM, y.TPM) })
}

func equalTPM(a, b *config.TPM) bool {
	if a == nil || b == nil || !slices.Equal(a.PCRs, b.PCRs) {
		return a == b
	}
	x, y := *a, *b
	x.PCRs, y.PCRs = nil, nil // which may be empty in two ways
	return reflect.DeepEqual(x, y)
}
