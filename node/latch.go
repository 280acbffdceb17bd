package node

import (
	"context"
	"fmt"
	"reflect"
	"slices"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/volume"
)

// Latch ends unsealing for this boot: keys that the TPM sealed with a latch cannot
// be had any more, by whoever controls the machine from here on. A node does it by
// itself before it is Running. A daemon that hands control to anyone else before
// that, such as a shell for someone to look what failed, calls it first, and does
// not go on when it fails. Without a TPM there is nothing to close.
func (n *Node) Latch(ctx context.Context) error {
	_, end, err := n.begin(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer end()
	if err := n.latch(ctx); tpm.ReasonOf(err) != tpm.NoTPM {
		return err
	}
	return nil
}

// latch closes the latch, also when the caller's time is over.
func (n *Node) latch(ctx context.Context) error {
	if n.latched {
		return nil
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), keys.DefaultTimeout)
	defer stop()
	if err := n.opts.Machine.TPM.Latch(ctx); err != nil {
		return err
	}
	n.latched = true
	secret.Erase() // who takes the machine over from here on may read its memory
	n.view.mu.Lock()
	n.view.status.Latched = true
	n.view.mu.Unlock()
	n.log.Info("the TPM's latch is closed")
	return nil
}

// closeLatch is latch for a node that goes on all the same: the volumes are in
// use, and its operator is told.
func (n *Node) closeLatch(ctx context.Context) {
	err := n.latch(ctx)
	if err != nil && (tpm.ReasonOf(err) != tpm.NoTPM || n.config.hasLatch()) {
		n.notice("the TPM's latch did not close, so that its keys can still be unsealed in this boot: %v", err)
	}
}

// hasLatch reports whether a key cannot be unsealed once the latch is closed.
func hasLatch(k config.Key) bool { return k.TPM != nil && !k.TPM.NoLatch }

func (m *machine) hasLatch() bool {
	return slices.ContainsFunc(m.Volumes, func(e config.Encryption) bool { return slices.ContainsFunc(e.Keys, hasLatch) })
}

// opensSealed reports whether the TPM may be needed to open what is open again.
func (n *Node) opensSealed() bool {
	sealed := func(v *volume.Volume) bool {
		if v == nil || v.Spec.Encryption == nil {
			return false
		}
		sets := append([][]keys.Key{v.Spec.Encryption.Keys}, v.Spec.Encryption.Former...)
		return slices.ContainsFunc(slices.Concat(sets...), func(k keys.Key) bool { return k.Kind == kindTPM })
	}
	for _, v := range n.volumes {
		if sealed(v) {
			return true
		}
	}
	return sealed(n.state)
}

// kindTPM is what config calls the kind of a key that the TPM seals.
const kindTPM = "tpm"

// waits says why a volume's slots cannot be given other keys in this boot; "" when
// they can. In force is what the slots have.
func (n *Node) waits(inForce, want *config.Encryption) string {
	switch {
	case !n.latched || want == nil:
	case inForce == nil && slices.ContainsFunc(want.Keys, hasLatch), inForce != nil && sealsAnew(inForce, want):
		return "a key that the TPM seals before its latch closes"
	case inForce != nil && !sameKeyList(inForce, want) && !slices.ContainsFunc(inForce.Keys, func(k config.Key) bool { return !hasLatch(k) }):
		return "only the TPM opens it, whose latch is closed"
	}
	return ""
}

// sealsAnew reports whether a key with a latch is new or has changed.
func sealsAnew(inForce, want *config.Encryption) bool {
	return slices.ContainsFunc(want.Keys, func(k config.Key) bool {
		return hasLatch(k) && !slices.ContainsFunc(inForce.Keys, func(o config.Key) bool { return sameKey(o, k) })
	})
}

// sameKey reports whether two entries make the same key of the same slot.
func sameKey(a, b config.Key) bool {
	return sameKeyList(&config.Encryption{Keys: []config.Key{a}}, &config.Encryption{Keys: []config.Key{b}})
}

// sameSettings reports whether sealed keys are configured alike; the form of META
// does not have all that the configuration has of them.
func sameSettings(a, b *config.Encryption) bool {
	return slices.EqualFunc(a.Keys, b.Keys, func(x, y config.Key) bool {
		return x.Slot == y.Slot && equalTPM(x.TPM, y.TPM) && equalKMS(x.KMS, y.KMS)
	})
}

func equalTPM(a, b *config.TPM) bool {
	if a == nil || b == nil || !slices.Equal(a.PCRs, b.PCRs) {
		return a == b
	}
	x, y := *a, *b
	x.PCRs, y.PCRs = nil, nil // which may be empty in two ways
	return reflect.DeepEqual(x, y)
}

func equalKMS(a, b *config.KMS) bool {
	if a == nil || b == nil || !a.Key.Equal(b.Key) {
		return a == b
	}
	x, y := *a, *b
	x.Key, y.Key = nil, nil
	return reflect.DeepEqual(x, y)
}

// changeOf says when a volume's change of keys takes effect, and words it.
func (n *Node) changeOf(name, what string, to *config.Encryption) (string, When) {
	var inForce *config.Encryption
	if n.config != nil {
		inForce = n.config.encryption(name)
	}
	if why := n.waits(inForce, to); why != "" {
		return fmt.Sprintf("%s: %s", what, why), NextBoot
	}
	return what, Now
}
