package volume

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/probe"
)

// Opener opens volumes.
type Opener struct {
	System System
	Keys   keys.Options // Former is taken from the [Encryption] of each volume
}

func (o *Opener) log() *slog.Logger {
	if o.Keys.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Keys.Log
}

// Volume is an open volume.
type Volume struct {
	Spec       Spec
	Device     string    // the partition
	Path       string    // what is mounted: the mapping, or the partition of a plain volume
	Filesystem string    // what is on it: XFS, Ext4, Swap or None
	Identity   *Identity // nil for a plain volume, and for one that was mapped and no key opens
	Slot       int       // that opened it; -1 for none
	Formatted  bool      // just now
	Existing   bool      // it was mapped already
	// Locked says why no key opens a volume that is mapped nevertheless.
	Locked error

	opener  *Opener
	file    *luks.File
	session *keys.Session // until the slots are reconciled
	dir     string
}

// Open brings a volume to where it can be mounted. What it refuses it leaves
// untouched.
func (o *Opener) Open(ctx context.Context, device string, spec Spec) (*Volume, error) {
	v := &Volume{Spec: spec, Device: device, Slot: -1, opener: o}
	open := v.openPlain
	if spec.Encryption != nil {
		open = v.openEncrypted
	}
	if err := open(ctx); err != nil {
		v.Release()
		return nil, fmt.Errorf("volume %s on %s: %w", spec.Name, device, err)
	}
	return v, nil
}

func (v *Volume) openEncrypted(ctx context.Context) error {
	h, err := v.header(ctx)
	if err != nil {
		return err
	}
	if err := v.Spec.Known.check(h, nil); err != nil {
		return err
	}
	opts := v.opener.Keys
	opts.Former = v.Spec.Encryption.Former
	if v.session, err = keys.Open(ctx, h, v.Spec.Name, v.Spec.Encryption.Keys, opts); err != nil {
		return v.takeOver(h, err)
	}
	key := v.session.VolumeKey()
	if err := v.Spec.Known.check(h, key); err != nil {
		return err
	}
	v.Slot = key.Slot()
	return v.activate(ctx, h, key)
}

// header reads the header, of a volume that is made for it when there is none
// and the partition is empty.
func (v *Volume) header(ctx context.Context) (h *luks.Header, err error) {
	for range 2 {
		if v.file, err = luks.OpenFile(v.Device, luks.ReadWrite); err != nil {
			return nil, err
		}
		h, err = luks.Read(v.file)
		switch {
		case err == nil:
			return h, overwritten(h, v.file)
		case !errors.Is(err, luks.NotLUKS):
			return nil, fmt.Errorf("the LUKS header is refused: %w", err)
		}
		v.file.Close()
		if v.file = nil; v.Formatted {
			break
		}
		if err := v.format(ctx); err != nil {
			return nil, err
		}
	}
	return nil, err
}

// overwritten is an error when something else begins where the primary copy of
// the header was: it would be destroyed when the copy is written again.
func overwritten(h *luks.Header, dev luks.Device) error {
	copies := h.Copies()
	if copies[0].State != luks.CopyAbsent {
		return nil
	}
	found, err := probe.Signatures(dev)
	if err != nil {
		return err
	}
	for _, f := range found {
		if f.Offset < copies[1].Offset && f.Kind != probe.KindMarker && !strings.HasPrefix(f.Kind, "luks") {
			return fmt.Errorf("%w: %s, over the LUKS header of volume %s", ErrContent, f, h.UUID())
		}
	}
	return nil
}

// mayFormat is nil when a partition that is proven empty may be formatted.
func (v *Volume) mayFormat() error {
	switch known := v.Spec.Known; {
	case known != nil:
		return fmt.Errorf("%w: the partition is empty, and volume %s was recorded on it", ErrStranger, known.UUID)
	case !v.Spec.MayFormat:
		return ErrEmpty
	}
	return nil
}

// format makes the volume on a partition that is proven empty.
func (v *Volume) format(ctx context.Context) error {
	f, err := luks.OpenFile(v.Device, luks.Exclusive)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := proveEmpty(f); err != nil {
		return err
	}
	if err := v.mayFormat(); err != nil {
		return err
	}
	e := v.Spec.Encryption
	key := luks.NewVolumeKey(cmp.Or(e.KeySize/8, luks.DefaultVolumeKeySize))
	defer key.Wipe()
	layout := luks.FormatOptions{UUID: luks.NewUUID(), Cipher: e.Cipher, SectorSize: e.SectorSize, Empty: proveEmpty}
	if v.Spec.Filesystem != None {
		mark, err := freshMark(key, layout.UUID)
		if err != nil {
			return err
		}
		layout.Config = map[string]json.RawMessage{freshMember: mark}
	}
	if _, err := keys.Format(ctx, f, v.Spec.Name, e.Keys, key, layout, v.opener.Keys); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	v.Formatted = true
	return nil
}

// proveEmpty is nil for a device that is proven empty; its error wraps
// [ErrContent] and names what is there.
func proveEmpty(dev luks.Device) error {
	err := probe.Prove(dev)
	var content *probe.NotEmptyError
	if errors.As(err, &content) {
		return fmt.Errorf("%w: %s", ErrContent, content.Finding)
	}
	return err
}

// activate maps the volume and sees to its file system.
func (v *Volume) activate(ctx context.Context, h *luks.Header, key *luks.VolumeKey) error {
	m, err := v.opener.System.Activate(h, key, v.file.File(), mapping.Options{
		Name: MappingName(v.Spec.Name), Flags: v.Spec.Encryption.Flags,
	})
	if err != nil {
		return err
	}
	v.Path, v.Existing = m.Path, m.Existing
	err = v.prepare(ctx, h, key)
	if err == nil {
		var id Identity
		id, err = identify(h, key, v.Filesystem != None)
		v.Identity = &id
	}
	if err != nil && !v.Existing {
		err = errors.Join(err, v.opener.System.Deactivate(m.Name))
	}
	return err
}

// takeOver returns a volume that is mapped already although no key opens it now:
// its data is in use, and its slots wait.
func (v *Volume) takeOver(h *luks.Header, noKey error) error {
	if !errors.Is(noKey, keys.ErrNoKey) {
		return noKey
	}
	m, err := v.opener.System.Mapped(h, MappingName(v.Spec.Name))
	if err != nil {
		return noKey
	}
	v.Path, v.Existing, v.Locked = m.Path, true, noKey
	if v.Filesystem = None; v.Spec.Filesystem == None {
		return nil
	}
	if v.Filesystem, err = v.look(); err == nil && v.Filesystem == None {
		err = noKey // without it no file system can be made
	}
	return err
}

// prepare makes the file system of a volume that never had one, and finds the
// one of any other.
func (v *Volume) prepare(ctx context.Context, h *luks.Header, key *luks.VolumeKey) (err error) {
	if v.Spec.Filesystem == None {
		v.Filesystem = None
		return nil
	}
	if !isFresh(h, key) {
		if v.Filesystem, err = v.look(); err == nil && v.Filesystem == None {
			err = fmt.Errorf("%w: it unlocks, and what is in it is no file system that is known here", ErrContent)
		}
		return err
	}
	if err := v.mkfs(ctx); err != nil {
		return err
	}
	if err := v.session.Commit(luks.SetConfig(freshMember, nil)); err != nil {
		return fmt.Errorf("note that the file system is made: %w", err)
	}
	return nil
}

func (v *Volume) openPlain(ctx context.Context) (err error) {
	v.Path = v.Device
	v.Filesystem, err = v.look()
	switch known := v.Spec.Known; {
	case err != nil:
		return err
	case known != nil && (v.Filesystem != None || v.Spec.Filesystem == None):
		return fmt.Errorf("%w: it is plain, and the encrypted volume %s was recorded", ErrStranger, known.UUID)
	case v.Filesystem != None || v.Spec.Filesystem == None:
		return nil
	}
	f, err := luks.OpenFile(v.Device, luks.Exclusive)
	if err != nil {
		return err
	}
	err = proveEmpty(f)
	f.Close()
	if err == nil {
		err = v.mayFormat()
	}
	if err != nil {
		return err
	}
	v.Formatted = true
	return v.mkfs(ctx)
}
