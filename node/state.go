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
	v, err := n.openStateAs(ctx, n.stateSpec(notes, notes.sets()))
	if given := n.given().encryption(stateName); given != nil && errors.Is(err, volume.ErrContent) && len(notes.sets()) == 0 {
		// META lost its note, and STATE is encrypted: the configuration that the
		// operator gave may open it all the same.
		v, err = n.openStateAs(ctx, n.stateSpec(notes, []*config.Encryption{given}))
	}
	switch {
	case errors.Is(err, volume.ErrStranger) && len(notes.sets()) == 0:
		return fmt.Errorf("%w: %w; a wipe of STATE (reset) ends that", ErrWeaken, err)
	case err != nil:
		return err
	}
	if err := v.Mount(ctx, n.mountPoint(stateName)); err != nil {
		return errors.Join(err, v.Close())
	}
	n.state, n.blank = v, false
	n.opened(v)
	if v.Identity != nil && (notes.identity == nil || *notes.identity != *v.Identity) {
		return n.changeNotes(func(e *editor) { e.identity(v.Identity) })
	}
	return nil
}

// stateSpec is STATE with the keys that may open it, those in force first.
func (n *Node) stateSpec(notes *notes, sets []*config.Encryption) volume.Spec {
	spec := volume.Spec{Name: stateName, Known: n.known(notes)}
	if len(sets) > 0 {
		spec.Encryption = encryptionOf(n.machine(), sets[0], sets[1:]...)
	}
	return spec
}

func (n *Node) openStateAs(ctx context.Context, spec volume.Spec) (*volume.Volume, error) {
	device, err := n.opts.System.Find(stateName)
	if err != nil {
		return nil, err
	}
	return n.opener().Open(ctx, device, spec)
}

// given is the configuration that the options bring; an empty one when there is
// none, or when it cannot be read, which install reports.
func (n *Node) given() *machine {
	if n.opts.Config != nil {
		if m, err := n.readNew("the configuration given", n.opts.Config); err == nil {
			return m
		}
	}
	return &machine{Config: &config.Config{}}
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
	m, err := n.readNew("the configuration given", text)
	if err != nil {
		return err
	}
	made := n.state == nil
	if made {
		if err := n.makeState(ctx, m.encryption(stateName)); err != nil {
			return err
		}
	}
	f := n.files()
	if _, err := f.config(n.read); err != nil {
		if err := f.setAside(); err != nil {
			return fmt.Errorf("keep the configuration that cannot be read: %w", err)
		}
	}
	if err := f.write(configFile, m.text.Bytes()); err != nil {
		return err
	}
	err = n.changeNotes(func(e *editor) {
		if made || n.state.Identity != nil {
			e.identity(n.state.Identity)
		}
		if made { // else META has keys that opened it, and syncState sees to the rest
			e.state(m.encryption(stateName))
			e.candidates(nil)
		}
		e.wiping(e.without(stateName))
	})
	if err != nil {
		return err
	}
	n.follow(ctx, m)
	return nil
}

// makeState formats an empty STATE and mounts it. META has the keys before the
// header does, and a plain file system that is cut off is wiped again.
func (n *Node) makeState(ctx context.Context, e *config.Encryption) error {
	notes, err := n.readNotes()
	if err != nil {
		return err
	}
	if slices.Contains(notes.wiping, stateName) { // an attempt before this one was cut off
		if err := n.wipe(ctx, notes); err != nil {
			return err
		}
	}
	err = n.changeNotes(func(ed *editor) {
		if ed.candidates(withSet(notes.candidates, e)); e == nil {
			ed.wiping(append(ed.without(stateName), stateName))
		}
	})
	if err != nil {
		return err
	}
	spec := volume.Spec{Name: stateName, Known: n.known(notes), MayFormat: true, Encryption: encryptionOf(n.machine(), e)}
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
	n.state, n.blank = v, false
	n.opened(v)
	return nil
}

// syncState brings STATE's slots in line with the configuration in force, and
// META with the slots.
func (n *Node) syncState(ctx context.Context) {
	report, err := n.rekeyState(ctx, n.config.encryption(stateName), false, (*volume.Volume).ReconcileLocal)
	n.reconciled(stateName, report, err)
}

// rekeyState gives STATE the keys of an encryption. On trial, META goes on
// saying that those before are in force, and keeps the new ones as candidates.
func (n *Node) rekeyState(ctx context.Context, want *config.Encryption, trial bool, sync reconciler) (*keys.Report, error) {
	if want == nil || n.state.Spec.Encryption == nil {
		return nil, nil // a wipe is needed, or there is nothing to do
	}
	notes, err := n.readNotes()
	if err != nil {
		return nil, err
	}
	if sameKeys(notes.state, want) && len(notes.candidates) == 0 {
		return n.inPlace(ctx, want, notes, sync)
	}
	candidates := notes.candidates
	if !sameKeys(notes.state, want) {
		candidates = withSet(candidates, want)
	}
	if err := n.changeNotes(func(e *editor) { e.candidates(candidates) }); err != nil {
		return nil, err
	}
	if err := n.before("slots of STATE"); err != nil {
		return nil, err
	}
	if err := n.state.Reopen(ctx, encryptionOf(n.machine(), want, notes.sets()...)); err != nil {
		return nil, err
	}
	report, err := sync(n.state, ctx)
	if report == nil || trial || !proven(report) {
		return report, err
	}
	return report, errors.Join(err, n.noteKeys(report, err, notes, want))
}

// noteKeys has META say that STATE opens by these keys, of which one was seen to
// open it, and which others its slots may still have.
func (n *Node) noteKeys(report *keys.Report, err error, notes *notes, want *config.Encryption) error {
	var left []*config.Encryption
	if err != nil || report.Blocked() > 0 {
		left = stillNeeded(report, withSet(withSet(notes.candidates, notes.state), nil), want)
	}
	return n.changeNotes(func(e *editor) {
		e.state(want)
		e.candidates(left)
		if n.state.Identity != nil {
			e.identity(n.state.Identity)
		}
	})
}

// inPlace brings STATE's slots in line with keys that META has already.
func (n *Node) inPlace(ctx context.Context, want *config.Encryption, notes *notes, sync reconciler) (*keys.Report, error) {
	if !n.state.Reconciled() {
		// META, by which it was opened, does not say all that is to be known of a key.
		if err := n.state.Reconfigure(encryptionOf(n.machine(), want)); err != nil {
			return nil, err
		}
		return sync(n.state, ctx)
	}
	if err := n.state.Reopen(ctx, encryptionOf(n.machine(), want)); err != nil {
		return nil, err
	}
	report, err := sync(n.state, ctx)
	if id := n.state.Identity; id != nil && notes.identity == nil { // it was mapped, and no key opened it
		err = errors.Join(err, n.changeNotes(func(e *editor) { e.identity(id) }))
	}
	return report, err
}

// maxCandidates bounds how many key sets META keeps while slots cannot be put in
// step.
const maxCandidates = 4

// stillNeeded are the former key sets that a slot may have which is not as
// configured.
func stillNeeded(r *keys.Report, sets []*config.Encryption, want *config.Encryption) (left []*config.Encryption) {
	for _, set := range sets {
		needed := slices.ContainsFunc(set.Keys, func(k config.Key) bool {
			same := func(w config.Key) bool { return sameKey(w, k) }
			return !slices.ContainsFunc(want.Keys, same) && slices.ContainsFunc(r.Slots, func(s keys.Result) bool {
				return s.Slot == k.Slot && (s.Outcome == keys.WasBlocked || s.Outcome == keys.StayedForeign)
			})
		})
		if needed && !sameKeys(set, want) && len(left) < maxCandidates {
			left = append(left, set)
		}
	}
	return left
}

// proven reports whether a configured key was seen to open the volume.
func proven(r *keys.Report) bool {
	return slices.ContainsFunc(r.Slots, func(s keys.Result) bool { return isProven(s.Outcome) })
}

func isProven(o keys.Outcome) bool { return o == keys.Kept || o == keys.Added || o == keys.Replaced }
