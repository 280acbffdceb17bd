package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/volume"
)

// ErrWeaken is wrapped when META would have an encrypted STATE be taken for a
// plain one.
var ErrWeaken = errors.New("META says that STATE is not encrypted, and it was")

// openState opens and mounts STATE as META says. It formats nothing.
func (n *Node) openState(ctx context.Context, notes *notes) error {
	sets := notes.sets()
	if c := n.given(); c != nil && len(sets) == 0 {
		// META lost its note: the configuration that the operator gave may open
		// STATE all the same.
		if e := c.encryption(stateName); e != nil {
			sets = []*config.Encryption{e}
		}
	}
	spec := volume.Spec{Name: stateName, Known: n.known(notes)}
	if len(sets) > 0 {
		spec.Encryption = encryptionOf(n.machine(), sets[0], sets[1:]...)
	}
	v, err := n.openStateAs(ctx, spec)
	if err != nil {
		return err
	}
	if spec.Encryption == nil && spec.Known != nil {
		return errors.Join(fmt.Errorf("%w: volume %s was recorded, and the partition holds a plain file system; a wipe of STATE (reset) ends that", ErrWeaken, spec.Known.UUID), v.Close())
	}
	if err := v.Mount(ctx, n.mountPoint(stateName)); err != nil {
		return errors.Join(err, v.Close())
	}
	if n.state = v; notes.identity == nil || v.Identity != nil && *notes.identity != *v.Identity {
		if err := n.changeNotes(func(e *editor) { e.identity(v.Identity) }); err != nil {
			return err
		}
	}
	n.opened(v)
	return nil
}

func (n *Node) openStateAs(ctx context.Context, spec volume.Spec) (*volume.Volume, error) {
	device, err := n.opts.System.Find(stateName)
	if err != nil {
		return nil, err
	}
	return n.opener().Open(ctx, device, spec)
}

// given is the configuration that the options bring, when it can be read.
func (n *Node) given() *machine {
	if n.opts.Config == nil {
		return nil
	}
	m, err := n.read("the configuration given", n.opts.Config)
	if err != nil {
		return nil // install reports it
	}
	return m
}

// known is what STATE is held against.
func (n *Node) known(notes *notes) *volume.Identity {
	if slices.Contains(n.opts.Accept, stateName) {
		return nil
	}
	return notes.identity
}

// install brings a configuration to a node that has none: STATE is made as it
// says, when it is empty, and the rest follows.
func (n *Node) install(ctx context.Context, text []byte) error {
	m, err := n.read("the configuration given", text)
	if err != nil {
		return err
	}
	if n.state == nil {
		if err := n.makeState(ctx, m.encryption(stateName)); err != nil {
			return err
		}
	}
	if err := n.files().write(configFile, m.text); err != nil {
		return err
	}
	v := n.state
	err = n.changeNotes(func(e *editor) {
		e.identity(v.Identity)
		if v.Spec.Encryption == nil || v.Formatted { // else syncState sees to it
			e.state(m.encryption(stateName))
			e.candidates(nil)
		}
		e.wiping(nil)
	})
	if err != nil {
		return err
	}
	return n.follow(ctx, m)
}

// makeState formats an empty STATE and mounts it. META has the keys before the
// header does, and a plain file system that is cut off is wiped again.
func (n *Node) makeState(ctx context.Context, e *config.Encryption) error {
	spec := volume.Spec{Name: stateName, MayFormat: true, Encryption: encryptionOf(n.machine(), e)}
	err := n.changeNotes(func(ed *editor) {
		ed.identity(nil)
		ed.state(nil)
		ed.candidates(withSet(nil, e))
		if e == nil {
			ed.wiping([]string{stateName})
		}
	})
	if err != nil {
		return err
	}
	v, err := n.openStateAs(ctx, spec)
	if err != nil {
		if e == nil && !errors.Is(err, volume.ErrHalfMade) {
			err = errors.Join(err, n.noteWipe(stateName, false)) // what is there is not ours
		}
		return err
	}
	if err := v.Mount(ctx, n.mountPoint(stateName)); err != nil {
		return errors.Join(err, v.Close())
	}
	n.state = v
	n.opened(v)
	return nil
}

// syncState brings STATE's slots in line with the configuration in force, and
// META with the slots.
func (n *Node) syncState(ctx context.Context) {
	report, err := n.rekeyState(ctx, n.config.encryption(stateName), false)
	n.reconciled(stateName, report, err)
	n.pending(stateName, n.config)
}

// rekeyState gives STATE the keys of an encryption. On trial, META goes on
// saying that those before are in force, and keeps the new ones as candidates.
func (n *Node) rekeyState(ctx context.Context, want *config.Encryption, trial bool) (*keys.Report, error) {
	if want == nil || n.state.Spec.Encryption == nil {
		return nil, nil // a wipe is needed, or there is nothing to do
	}
	notes, err := n.readNotes()
	if err != nil {
		return nil, err
	}
	if sameKeys(notes.state, want) && len(notes.candidates) == 0 {
		if n.state.Reconciled() {
			return n.state.Rekey(ctx, encryptionOf(n.machine(), want))
		}
		return n.state.Reconcile(ctx)
	}
	candidates := withSet(notes.candidates, want)
	if err := n.changeNotes(func(e *editor) { e.candidates(candidates) }); err != nil {
		return nil, err
	}
	if err := n.before("slots of STATE"); err != nil {
		return nil, err
	}
	report, err := n.state.Rekey(ctx, encryptionOf(n.machine(), want, notes.sets()...))
	if report == nil || trial || !proven(report) {
		return report, err
	}
	var left []*config.Encryption
	if err != nil || report.Blocked() > 0 {
		left = withSet(withSet(candidates, notes.state), want)[1:]
	}
	return report, errors.Join(err, n.changeNotes(func(e *editor) {
		e.state(want)
		e.candidates(left)
	}))
}

// proven reports whether a configured key was seen to open the volume.
func proven(r *keys.Report) bool {
	return slices.ContainsFunc(r.Slots, func(s keys.Result) bool {
		return s.Outcome == keys.Kept || s.Outcome == keys.Added || s.Outcome == keys.Replaced
	})
}
