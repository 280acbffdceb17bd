package volume

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
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
	noted   uint64 // sequence number of the header that notes the new file system
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
		v.release()
		return nil, fmt.Errorf("volume %s on %s: %w", spec.Name, device, err)
	}
	return v, nil
}

// release gives up what an open volume holds in this process.
func (v *Volume) release() {
	if v.session != nil {
		v.session.Close()
		v.session = nil
	}
	if v.file != nil {
		v.file.Close()
		v.file = nil
	}
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
	case !v.Spec.MayFormat:
		return ErrEmpty
	case known != nil:
		return fmt.Errorf("%w: the partition is empty, and volume %s was recorded on it", ErrStranger, known.UUID)
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
	if err := ProveEmpty(f); err != nil {
		return err
	}
	if err := v.mayFormat(); err != nil {
		return err
	}
	e := v.Spec.Encryption
	key := luks.NewVolumeKey(cmp.Or(e.KeySize/8, luks.DefaultVolumeKeySize))
	defer key.Wipe()
	layout := luks.FormatOptions{UUID: luks.NewUUID(), Cipher: e.Cipher, SectorSize: e.SectorSize, Empty: ProveEmpty}
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

// ProveEmpty is nil for a device that is proven empty; its error wraps
// [ErrContent] and names what is there.
func ProveEmpty(dev luks.Device) error {
	report, err := probe.Probe(dev)
	if err != nil {
		return err
	}
	if f, found := report.Content(); found {
		return fmt.Errorf("%w: %s", ErrContent, f)
	}
	return nil
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
	now, err := h.Commit(luks.SetConfig(freshMember, nil))
	if err != nil {
		return fmt.Errorf("note that the file system is made: %w", err)
	}
	v.noted = now.SeqID()
	return nil
}

// xfsLeast is below what mkfs.xfs takes (xfsprogs 5.19 and later, 300 MiB).
const xfsLeast = 320 << 20

func (v *Volume) mkfs(ctx context.Context) error {
	v.Filesystem = v.Spec.Filesystem
	if v.Filesystem == Auto {
		f, err := luks.OpenFile(v.Path, luks.ReadOnly)
		if err != nil {
			return err
		}
		defer f.Close()
		if v.Filesystem = XFS; f.Size() < xfsLeast {
			v.Filesystem = Ext4
		}
	}
	if err := v.opener.System.Mkfs(ctx, v.Path, v.Filesystem); err != nil {
		return fmt.Errorf("make the %s file system: %w", v.Filesystem, err)
	}
	return nil
}

// look returns the file system on an open volume, None when there is nothing;
// anything but the expected is an error.
func (v *Volume) look() (string, error) {
	f, err := os.Open(v.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return "", err
	}
	found, err := probe.Signatures(area{f, size})
	if err != nil {
		return "", err
	}
	return v.judge(found)
}

// judge says which file system the findings on an open volume are. It goes by the
// superblock that is mounted: what else looks like one, such as the backup of an
// older file system, or a file that imitates it, is content.
func (v *Volume) judge(found []probe.Finding) (string, error) {
	want, name := v.Spec.Filesystem, ""
	var other *probe.Finding
	for _, f := range found {
		head := headName(f)
		switch {
		case f.Kind == probe.KindMarker: // [ProveEmpty] judges it
		case head != "" && name == "":
			name = head
		case head != "" && head != name, isLUKS(f, want):
			return "", fmt.Errorf("%w: %s", ErrContent, f)
		case head == "" && other == nil:
			other = &f
		}
	}
	switch {
	case want == None: // what is in there is for its user to say
		return None, nil
	case name != "" && (want == name || want == Auto && name != Swap):
		return name, nil
	case name != "":
		return "", fmt.Errorf("%w: the file system %s", ErrContent, name)
	case other != nil:
		return "", fmt.Errorf("%w: %s", ErrContent, other)
	}
	return None, nil
}

// headName returns the file system whose superblock a finding is; "" for one that
// is not made here, and for a copy.
func headName(f probe.Finding) string {
	switch {
	case f.Kind == "xfs" && f.Offset == 0:
		return XFS
	case f.Kind == "ext" && f.Offset == 0x438:
		return Ext4
	case f.Kind == "swap":
		return Swap
	}
	return ""
}

// isLUKS reports whether a finding means that the data is encrypted. A lone
// secondary header does where the volume is to have no file system: with one, it
// is a leftover or somebody's file.
func isLUKS(f probe.Finding, want string) bool {
	switch f.Kind {
	case probe.KindLUKS1, probe.KindLUKS2, "luks":
		return true
	case probe.KindLUKS2Secondary:
		return want == None
	}
	return false
}

// area is an open file as package probe wants it.
type area struct {
	*os.File
	size int64
}

func (a area) Size() int64 { return a.size }

func (v *Volume) openPlain(ctx context.Context) (err error) {
	v.Path = v.Device
	if v.Filesystem, err = v.look(); err != nil || v.Filesystem != None || v.Spec.Filesystem == None {
		return err
	}
	f, err := luks.OpenFile(v.Device, luks.Exclusive)
	if err != nil {
		return err
	}
	err = ProveEmpty(f)
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
