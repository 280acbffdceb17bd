package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/volume"
)

// Boot brings the node up as far as it goes: to Running, or to Maintenance when
// it has no configuration yet. Its error says why STATE did not open; what is
// wrong with other volumes is in the status. Keys whose servers have not answered
// by then are seen to in the background, see [Node.Finish]; another call interrupts
// that, and Close ends it. On a running node it tries again what failed, and waits
// for it; a staged configuration waits for the next start.
func (n *Node) Boot(ctx context.Context) error {
	ctx, end, err := n.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	if n.trial != nil && !n.trial.over {
		return fmt.Errorf("%w: a configuration is on trial", ErrPhase)
	}
	if n.config != nil {
		return n.again(ctx)
	}
	err = n.boot(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errClosing) {
		err = fmt.Errorf("%w: %w", errClosing, err)
	}
	if err != nil {
		n.phase(Failed, err.Error())
	}
	return err
}

// again opens what is not open, and gives every header the keys of the
// configuration in force, which may be one whose trial could not be taken back yet.
func (n *Node) again(ctx context.Context) error {
	notes, err := n.readNotes()
	if err != nil {
		return err
	}
	err = n.wipe(ctx, notes)
	if n.trial != nil {
		return errors.Join(err, n.revert(ctx, (*volume.Volume).Reconcile))
	}
	return errors.Join(err, n.activate(ctx, n.config, false, (*volume.Volume).Reconcile))
}

func (n *Node) boot(ctx context.Context) error {
	n.phase(Booting, "")
	notes, err := n.findMeta()
	if err != nil {
		return err
	}
	if slices.Contains(notes.wiping, stateName) {
		// Without a configuration in force nothing depends on a STATE that is open: a
		// first configuration failed, and is undone.
		if err := n.closeVolume(stateName); err != nil {
			return err
		}
		if err := n.wipe(ctx, notes); err != nil && slices.Contains(notes.wiping, stateName) {
			return err
		}
	}
	if n.state == nil {
		if err := n.openState(ctx, notes); err != nil {
			return n.noState(ctx, err)
		}
	}
	// Only now: that a volume was wiped has to be noted in STATE.
	if err := n.wipe(ctx, notes); err != nil {
		n.notice("%v", err)
	}
	stored, err := n.files().config(n.read)
	switch {
	case err != nil:
		return fmt.Errorf("the stored machine configuration: %w; apply another one", err)
	case stored == nil && n.opts.Config == nil:
		n.phase(Maintenance, "STATE is open and holds no machine configuration: apply one")
		return nil
	case stored == nil:
		return n.install(ctx, n.opts.Config)
	}
	n.follow(ctx, stored)
	return nil
}

// findMeta reads META for the first time.
func (n *Node) findMeta() (notes *notes, err error) {
	if n.meta, err = n.opts.System.Find(metaName); err != nil {
		return nil, err
	}
	if notes, err = n.readNotes(); err != nil {
		return nil, err
	}
	for _, damage := range notes.damage {
		n.notice("META: %s; meta repair mends it", damage)
	}
	if n.uuid = n.opts.Machine.UUID; notes.uuid != "" {
		n.uuid = notes.uuid
	}
	return notes, nil
}

// noState is for a STATE that did not open: an empty one means a node without a
// configuration.
func (n *Node) noState(ctx context.Context, err error) error {
	if n.blank = errors.Is(err, volume.ErrEmpty); !n.blank {
		n.failed(stateName, err)
		return err
	}
	n.view.volume(stateName, func(s *VolumeStatus) { s.Phase = VolumeWiped })
	if n.opts.Config != nil {
		return n.install(ctx, n.opts.Config)
	}
	n.phase(Maintenance, "STATE is empty: apply a machine configuration")
	return nil
}

// follow does what the configuration in force says. The node is Running when its
// volumes are there. The latch is closed before; where the TPM has a part in it,
// the slots are brought in step before that. A key server that does not answer
// keeps nobody waiting: its keys are left for finish.
func (n *Node) follow(ctx context.Context, m *machine) {
	n.use(m)
	n.openOthers(ctx, m)
	run := func() {
		n.closeLatch(ctx) // whatever the configuration says, which may be a stranger's
		n.phase(Running, "")
	}
	sealed := m.hasLatch() || n.opensSealed()
	if !sealed {
		run()
	}
	n.syncState(ctx)
	n.syncOthers(ctx, (*volume.Volume).ReconcileLocal)
	n.pending()
	n.settle()
	if sealed {
		run()
	}
}

func (n *Node) files() files { return files{n.mountPoint(stateName), n.before} }

// failed shows why a volume did not open.
func (n *Node) failed(name string, err error) {
	phase := VolumeFailed
	switch {
	case errors.Is(err, volume.ErrMissing):
		phase = VolumeMissing
	case errors.Is(err, volume.ErrContent), errors.Is(err, volume.ErrStranger), errors.Is(err, volume.ErrAmbiguous), isRefusal(err):
		phase = VolumeRefused
	}
	n.log.Error("volume", "name", name, "error", err)
	n.view.volume(name, func(s *VolumeStatus) { s.Phase, s.Errors = phase, []string{err.Error()} })
}

func isRefusal(err error) bool {
	var r *luks.Refusal
	return errors.As(err, &r)
}
