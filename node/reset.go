package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/volume"
)

// Reset destroys the volumes with these labels, by name and for good: STATE,
// EPHEMERAL, or one that the configuration declares. A volume in use is wiped
// on the next boot; the error then wraps a mapping.BusyError.
func (n *Node) Reset(ctx context.Context, labels []string) error {
	defer n.begin()()
	if len(labels) == 0 {
		return errors.New("no labels: say which volumes are to be wiped")
	}
	for _, label := range labels {
		if label == metaName {
			return errors.New("META is not wiped: it says how STATE opens and what is being wiped; `meta delete` takes values out of it")
		}
		if _, err := n.opts.System.Find(label); err != nil {
			return err
		}
		if err := n.losesSalt(label, labels); err != nil {
			return err
		}
	}
	for _, label := range labels {
		if err := n.noteWipe(label, true); err != nil {
			return err
		}
	}
	notes, err := n.readNotes()
	if err != nil {
		return err
	}
	if err := n.closeFor(labels); err != nil {
		return fmt.Errorf("%w; what was named is wiped on the next boot", err)
	}
	if err := n.wipe(ctx, notes); err != nil {
		return err
	}
	return n.strikeOut(notes)
}

// losesSalt is an error when wiping STATE would lock a volume that stays.
func (n *Node) losesSalt(label string, labels []string) error {
	if label != stateName || n.config == nil {
		return nil
	}
	for _, e := range n.config.Volumes {
		locked := 0
		for _, k := range e.Keys {
			if k.LockToState {
				locked++
			}
		}
		if locked > 0 && locked == len(e.Keys) && !slices.Contains(labels, e.Volume) {
			return fmt.Errorf("all keys of %s are locked to STATE: without STATE nothing opens it; wipe it too, or give it another key first", e.Volume)
		}
	}
	return nil
}

// closeFor closes the volumes that are to be wiped, and with STATE all others,
// whose records it holds.
func (n *Node) closeFor(labels []string) error {
	for _, name := range mountOrder(n.volumes, true) {
		if slices.Contains(labels, name) || slices.Contains(labels, stateName) || slices.Contains(labels, ephemeralName) {
			if err := n.closeVolume(name); err != nil {
				return err
			}
		}
	}
	if slices.Contains(labels, stateName) {
		if err := n.closeVolume(stateName); err != nil {
			return err
		}
		n.endTrial()
		n.phase(Maintenance, "STATE was wiped: reboot, or apply a machine configuration")
	}
	return nil
}

// noteWipe notes in META that a wipe begins, or strikes it out.
func (n *Node) noteWipe(label string, begins bool) error {
	return n.changeNotes(func(e *editor) {
		labels := e.without(label)
		if begins {
			labels = append(labels, label)
		}
		e.wiping(labels)
	})
}

// wipe makes what META names read as zeros. The note stays until strikeOut: a
// boot that is cut off wipes again.
func (n *Node) wipe(ctx context.Context, notes *notes) error {
	for _, label := range notes.wiping {
		device, err := n.opts.System.Find(label)
		if errors.Is(err, volume.ErrMissing) {
			continue
		}
		if err == nil {
			n.log.Warn("wiping", "volume", label, "device", device)
			err = n.opts.System.Zero(ctx, device)
		}
		if err != nil {
			return fmt.Errorf("wipe %s: %w", label, err)
		}
		n.view.volume(label, func(s *VolumeStatus) { *s = VolumeStatus{Name: label, Phase: VolumeWiped, Slot: -1} })
	}
	if slices.Contains(notes.wiping, stateName) { // and with it all records of the others
		notes.state, notes.candidates, notes.identity = nil, nil, nil
		return n.strikeOut(notes)
	}
	return nil
}

// strikeOut forgets what was wiped: first which volume it was, which STATE or
// META knows, then that it is being wiped. After that it is formatted as any
// empty partition.
func (n *Node) strikeOut(notes *notes) error {
	if len(notes.wiping) == 0 {
		return nil
	}
	state := slices.Contains(notes.wiping, stateName)
	if !state && n.state == nil {
		return nil // the next boot does it, which opens STATE
	}
	for _, label := range notes.wiping {
		if state {
			break
		}
		if err := n.files().record(label, nil); err != nil {
			return err
		}
	}
	done := notes.wiping
	notes.wiping = nil
	return n.changeNotes(func(e *editor) {
		if e.wiping(e.without(done...)); state {
			e.state(nil)
			e.candidates(nil)
			e.identity(nil)
		}
	})
}
