package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
)

// Mount mounts the volume's file system on a directory and lets it fill its
// device. One that is mounted there already stays. Swap is switched on, and needs
// no directory.
func (v *Volume) Mount(ctx context.Context, dir string) error {
	sys := v.opener.System
	switch v.Filesystem {
	case None:
		return fmt.Errorf("mount volume %s: it has no file system", v.Spec.Name)
	case Swap:
		dir = v.Path
	}
	switch on, err := sys.Mounted(dir); {
	case err != nil:
		return fmt.Errorf("mount volume %s: %w", v.Spec.Name, err)
	case on == v.Path:
		v.dir = dir
		return nil
	case on != "":
		return fmt.Errorf("mount volume %s: %s has %s mounted already", v.Spec.Name, dir, on)
	}
	if err := sys.Mount(v.Path, dir, v.Filesystem); err != nil {
		return fmt.Errorf("mount volume %s on %s: %w", v.Spec.Name, dir, err)
	}
	v.dir = dir
	if err := sys.Grow(ctx, v.Path, dir, v.Filesystem); err != nil {
		v.opener.log().Warn("the file system was not grown to its device", "volume", v.Spec.Name, "error", err)
	}
	return nil
}

// Dir is where the volume is mounted, "" when it is not; for swap its device.
func (v *Volume) Dir() string { return v.dir }

// Reconcile makes the slots match the keys of the specification, with the keys
// that opened the volume. It waits for providers that have not answered yet. When
// the context ends before that it may be called again.
func (v *Volume) Reconcile(ctx context.Context) (*keys.Report, error) {
	if err := v.mayReconcile(); err != nil {
		return nil, err
	}
	report, err := v.session.Apply(ctx)
	if report != nil || ctx.Err() == nil {
		v.Release()
	}
	return report, v.about(err)
}

// ReconcileLocal is Reconcile without waiting for remote keys; see
// [keys.Session.ApplyLocal]. When it leaves any, the volume is not reconciled and
// Reconcile does the rest.
func (v *Volume) ReconcileLocal(ctx context.Context) (*keys.Report, error) {
	if err := v.mayReconcile(); err != nil {
		return nil, err
	}
	report, err := v.session.ApplyLocal(ctx)
	if err != nil || len(report.Asking) == 0 {
		v.Release()
	}
	return report, v.about(err)
}

func (v *Volume) mayReconcile() error {
	switch {
	case v.Spec.Encryption == nil:
		return fmt.Errorf("volume %s: it is plain and has no slots", v.Spec.Name)
	case v.Locked != nil:
		return v.Locked
	case v.session == nil:
		return errors.New("the slots are reconciled already")
	}
	return nil
}

// about says which volume an error is about.
func (v *Volume) about(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("volume %s: %w", v.Spec.Name, err)
}

// Reconfigure gives the keys of an open volume other settings, before its slots
// are reconciled.
func (v *Volume) Reconfigure(e *Encryption) error {
	if v.session == nil {
		return errors.New("the slots are reconciled already")
	}
	return v.session.Reconfigure(e.Keys)
}

// Reopen unlocks an open volume by other keys, or former ones, so that its slots
// can be reconciled with them. One of these must open it now.
func (v *Volume) Reopen(ctx context.Context, e *Encryption) error {
	v.Release()
	if v.Spec.Encryption == nil {
		return fmt.Errorf("volume %s: it is plain and has no slots", v.Spec.Name)
	}
	err := v.reopen(ctx, e)
	if err != nil {
		v.Release()
	}
	return v.about(err)
}

func (v *Volume) reopen(ctx context.Context, e *Encryption) (err error) {
	if v.file, err = luks.OpenFile(v.Device, luks.ReadWrite); err != nil {
		return err
	}
	h, err := luks.Read(v.file)
	if err != nil {
		return err
	}
	opts := v.opener.Keys
	opts.Former = e.Former
	if v.session, err = keys.Open(ctx, h, v.Spec.Name, e.Keys, opts); err != nil {
		return err
	}
	known := v.Identity
	if known == nil {
		known = v.Spec.Known
	}
	if err := known.check(h, v.session.VolumeKey()); err != nil {
		return err
	}
	if v.Locked != nil {
		id, err := identify(h, v.session.VolumeKey(), v.Filesystem != None)
		if err != nil {
			return err
		}
		v.Locked, v.Identity, v.Slot = nil, &id, v.session.VolumeKey().Slot()
	}
	return nil
}

// Close unmounts the volume and takes its mapping away. In use, it stays, with a
// [*mapping.BusyError].
func (v *Volume) Close() error {
	v.Release()
	sys := v.opener.System
	if v.dir != "" {
		if err := sys.Unmount(v.dir); err != nil {
			return fmt.Errorf("unmount volume %s from %s: %w", v.Spec.Name, v.dir, err)
		}
		v.dir = ""
	}
	if v.Path == v.Device {
		return nil
	}
	if err := sys.Deactivate(MappingName(v.Spec.Name)); err != nil && !errors.Is(err, mapping.ErrNotOpen) {
		return fmt.Errorf("close volume %s: %w", v.Spec.Name, err)
	}
	return nil
}

// Release gives up the keys and the file that an open volume holds in this process.
// Its slots are not reconciled any more, but after [Volume.Reopen].
func (v *Volume) Release() {
	if v.session != nil {
		v.session.Close()
		v.session = nil
	}
	if v.file != nil {
		v.file.Close()
		v.file = nil
	}
}

// Reconciled reports whether the slots are as the specification says, or were
// tried to be made so.
func (v *Volume) Reconciled() bool { return v.session == nil }
