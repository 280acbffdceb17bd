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

// Reset destroys the volumes with these labels, by name and for good: STATE,
// EPHEMERAL, or one that the configuration declares. A volume in use is wiped
// on the next boot; the error then wraps a mapping.BusyError.
func (n *Node) Reset(ctx context.Context, labels []string) error {
	ctx, end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if len(labels) == 0 {
		return errors.New("no labels: say which volumes are to be wiped")
	}
	for _, label := range labels {
		if !config.IsVolume(label) {
			return fmt.Errorf("%q is not a volume of the node, and is not wiped: STATE, EPHEMERAL and those that a configuration can declare are", label)
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
	if err := n.closeFor(labels); err != nil {
		err = fmt.Errorf("%w; what was named is wiped on the next boot", err)
		if n.state == nil { // which is unmounted, and mapped for someone else
			n.phase(Failed, err.Error())
		}
		return err
	}
	notes, err := n.readNotes()
	if err == nil {
		err = n.wipe(ctx, notes)
	}
	if !slices.Contains(labels, stateName) {
		return err
	}
	if n.blank = err == nil; n.blank {
		next := "reboot, or apply a machine configuration"
		if n.latched {
			next += " without tpm keys, which are sealed after a reboot only"
		}
		n.phase(Maintenance, "STATE was wiped: "+next)
	} else {
		n.phase(Failed, err.Error())
	}
	return err
}

// losesSalt is an error when wiping STATE would lock a volume that stays: it has
// keys that are locked to STATE, and no other one was seen to open it.
func (n *Node) losesSalt(label string, labels []string) error {
	if label != stateName || n.config == nil {
		return nil
	}
	known, err := n.files().identities()
	if err != nil {
		return err
	}
	for _, e := range n.config.Volumes {
		locked := slices.ContainsFunc(e.Keys, func(k config.Key) bool { return k.LockToState })
		if !locked || known[e.Volume] == nil || slices.Contains(labels, e.Volume) || n.opensWithoutSalt(e) {
			continue
		}
		return fmt.Errorf("%s has keys that are locked to STATE, and no other was seen to open it: without STATE it would be lost; wipe it too, or give it another key first", e.Volume)
	}
	return nil
}

func (n *Node) opensWithoutSalt(e config.Encryption) bool {
	report := n.reports[e.Volume]
	return report != nil && slices.ContainsFunc(e.Keys, func(k config.Key) bool {
		return !k.LockToState && slices.ContainsFunc(report.Slots, func(s keys.Result) bool {
			return s.Slot == k.Slot && isProven(s.Outcome)
		})
	})
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
		return n.closeVolume(stateName)
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

// wipe makes what META names read as zeros, and strikes it out. What is open here
// or not there keeps its note; so do volumes as long as STATE is closed, in which
// is noted which volume they were. A boot that is cut off wipes again.
func (n *Node) wipe(ctx context.Context, notes *notes) error {
	var done []string
	var errs []error
	for _, label := range notes.wiping {
		wiped, err := n.wipeOne(ctx, label)
		if err != nil {
			errs = append(errs, fmt.Errorf("wipe %s: %w; it is not opened before that is done", label, err))
		}
		if wiped {
			done = append(done, label)
		}
	}
	if slices.Contains(done, stateName) { // with it go all records
		notes.state, notes.candidates, notes.identity = nil, nil, nil
	} else if n.state == nil {
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, n.strikeOut(notes, done))...)
}

func (n *Node) wipeOne(ctx context.Context, label string) (done bool, err error) {
	switch {
	case !config.IsVolume(label): // META is not authenticated
		n.notice("META says that %q is to be wiped, which is not a volume: it is left alone", label)
		return false, nil
	case n.volumes[label] != nil, label == stateName && n.state != nil:
		n.notice("%s is in use and is wiped on the next boot", label)
		return false, nil
	}
	device, err := n.opts.System.Find(label)
	if errors.Is(err, volume.ErrMissing) && label != stateName {
		n.notice("%s is to be wiped and is not there", label)
		return false, nil
	}
	if err == nil {
		n.log.Warn("wiping", "volume", label, "device", device)
		err = n.opts.System.Zero(ctx, device)
	}
	if err != nil {
		return false, err
	}
	n.view.volume(label, func(s *VolumeStatus) { *s = VolumeStatus{Name: label, Phase: VolumeWiped, Slot: -1} })
	return true, nil
}

// strikeOut forgets what was wiped: first which volume it was, which STATE or
// META knows, then that it is being wiped. After that it is formatted as any
// empty partition.
func (n *Node) strikeOut(notes *notes, done []string) error {
	if len(done) == 0 {
		return nil
	}
	state := slices.Contains(done, stateName)
	for _, label := range done {
		if state {
			break
		}
		if err := n.files().record(label, nil); err != nil {
			return err
		}
	}
	err := n.changeNotes(func(e *editor) {
		if e.wiping(e.without(done...)); state {
			e.state(nil)
			e.candidates(nil)
			e.identity(nil)
		}
	})
	if err == nil {
		notes.wiping = slices.DeleteFunc(notes.wiping, func(l string) bool { return slices.Contains(done, l) })
	}
	return err
}
