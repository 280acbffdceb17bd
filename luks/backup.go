package luks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// Backup writes the header as it is on the disk now to w: both copies and the
// areas in use, in cryptsetup's backup format, an image of the header area. Room
// that no keyslot uses is written as zeros, so a backup carries no key that was
// removed before it was made.
func (h *Header) Backup(w io.Writer) error {
	image, err := h.image()
	if err != nil {
		return err
	}
	_, err = w.Write(image)
	return err
}

// image renders the header area.
func (h *Header) image() ([]byte, error) {
	release, err := lock(h.dev, false)
	if err != nil {
		return nil, err
	}
	defer release()
	now, err := read(h.dev)
	if err != nil {
		return nil, err
	}
	if !h.sameVolume(now) {
		return nil, fmt.Errorf("the volume itself: %w", ErrConflict)
	}
	low, size := now.KeyslotsArea()
	image := make([]byte, low+size)
	for i, offset := range []int64{0, now.MetadataSize()} {
		b := now.binary
		b.Magic, b.HdrOffset = [][6]byte{primaryMagic, secondaryMagic}[i], uint64(offset)
		data, err := encodeCopy(b, now.doc.encode())
		if err != nil {
			return nil, err
		}
		copy(image[offset:], data)
	}
	for _, a := range now.meta.areas() {
		if err := readAt(now.dev, image[a.Offset:a.end()], a.Offset); err != nil {
			return nil, fmt.Errorf("key material: %w", err)
		}
	}
	return image, nil
}

// BackupFile makes a new file, readable by its owner only, with a backup. It
// never overwrites one, and the file is on stable storage when it returns.
func (h *Header) BackupFile(path string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s exists already and is left as it is; name a new file", path)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(path)
		}
	}()
	if err := h.Backup(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a new name in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// Restoration is what restoring a backup would do. Making one writes nothing.
type Restoration struct {
	// Current is the header on the device, or nil when it cannot be read.
	Current *Header
	// Revived are slots whose keys would open the volume again: keys that were
	// removed or changed after the backup. Lost are slots made since.
	Revived, Lost []int
	// Concerns are reasons that need force: what the restore would destroy.
	Concerns []string

	dev    Device
	backup *Header
}

// ErrNeedsForce is wrapped when a restore has concerns and force was not given.
var ErrNeedsForce = errors.New("the restore needs force")

// PlanRestore compares a backup, read with [Read] from its file, with a device.
func PlanRestore(dev Device, backup *Header) (*Restoration, error) {
	r := &Restoration{dev: dev, backup: backup}
	if err := backup.trusted(); err != nil {
		return nil, fmt.Errorf("the backup is refused: %w", err)
	}
	if low, size := backup.KeyslotsArea(); dev.Size() < low+size {
		return nil, fmt.Errorf("the device of %d bytes is too small for the backup's header of %d bytes", dev.Size(), low+size)
	}
	current, err := Read(dev)
	var refusal *Refusal
	switch {
	case err == nil:
		r.Current = current
		if !r.sameLayout() {
			r.checkData()
		}
		return r, r.compare()
	case errors.As(err, &refusal) && refusal.Code == NotLUKS:
		r.Concerns = append(r.Concerns, "the device holds no LUKS header; whatever lies in its first bytes would be overwritten")
	case errors.As(err, &refusal) && refusal.Code == LUKS1:
		r.Concerns = append(r.Concerns, "the device holds a LUKS1 volume, whose header would be overwritten")
	case !errors.As(err, &refusal):
		return nil, err
	}
	r.checkData()
	for _, k := range backup.meta.keyslots {
		r.Revived = append(r.Revived, k.ID)
	}
	return r, nil
}

// checkData compares the device with the place of the data, which only a
// detached header has elsewhere.
func (r *Restoration) checkData() {
	if begin := r.backup.meta.segments[0].Offset; begin != 0 && r.dev.Size() <= begin {
		r.Concerns = append(r.Concerns, fmt.Sprintf("the device ends at byte %d and the backup's data begins at byte %d, which is right for a detached header only", r.dev.Size(), begin))
	}
}

// compare fills in what differs from the current header.
func (r *Restoration) compare() error {
	if r.Current.UUID() != r.backup.UUID() {
		r.Concerns = append(r.Concerns, fmt.Sprintf("the backup is of volume %s, the device holds %s", printable(r.backup.UUID()), printable(r.Current.UUID())))
	}
	if !r.sameKey() {
		r.Concerns = append(r.Concerns, "the backup has another volume key, so the data on the device would be lost")
	}
	if !r.sameLayout() {
		r.Concerns = append(r.Concerns, "the backup has another layout, so the header is overwritten in place and a power cut leaves neither; keep the backup until it is done")
	}
	for _, k := range r.backup.meta.keyslots {
		same, err := r.sameSlot(k)
		if err != nil {
			return err
		}
		if !same {
			r.Revived = append(r.Revived, k.ID)
		}
	}
	for _, k := range r.Current.meta.keyslots {
		there, ok := r.backup.meta.keyslot(k.ID)
		same := false
		if ok {
			var err error
			if same, err = r.sameSlot(there); err != nil {
				return err
			}
		}
		if !same {
			r.Lost = append(r.Lost, k.ID)
		}
	}
	return nil
}

func (r *Restoration) sameKey() bool {
	a, _ := r.Current.meta.dataDigest()
	b, _ := r.backup.meta.dataDigest()
	return r.Current.digestText(a.ID) == r.backup.digestText(b.ID)
}

func (r *Restoration) sameLayout() bool {
	a, b := r.Current, r.backup
	return a.binary.HdrSize == b.binary.HdrSize && a.meta.keyslotsSize == b.meta.keyslotsSize &&
		slices.EqualFunc(a.meta.segments, b.meta.segments, equalSegment)
}

func equalSegment(a, b Segment) bool {
	return a.Offset == b.Offset && a.Size == b.Size && a.SectorSize == b.SectorSize && a.Encryption == b.Encryption
}

// sameSlot reports whether the device has that slot of the backup, material and
// all.
func (r *Restoration) sameSlot(k Keyslot) (bool, error) {
	now, ok := r.Current.meta.keyslot(k.ID)
	if !ok || now.KeySize != k.KeySize || now.Area.Size != k.Area.Size || !slices.Equal(now.KDF.Salt, k.KDF.Salt) {
		return false, nil
	}
	// Whole areas: the slot need not be one that can be used.
	a, b := make([]byte, k.Area.Size), make([]byte, k.Area.Size)
	if err := readAt(r.Current.dev, a, now.Area.Offset); err != nil {
		return false, fmt.Errorf("key material: %w", err)
	}
	if err := readAt(r.backup.dev, b, k.Area.Offset); err != nil {
		return false, fmt.Errorf("the backup's key material: %w", err)
	}
	return bytes.Equal(a, b), nil
}

// Run restores the backup. Where the layout is the same it is one atomic change
// like any other: the backup's key material goes to free areas, then the header
// is switched. Where it is not, or the device's header cannot be read, material
// and copies are written in place, in order.
func (r *Restoration) Run(force bool) (*Header, error) {
	if len(r.Concerns) > 0 && !force {
		return nil, fmt.Errorf("%w: %s", ErrNeedsForce, r.Concerns[0])
	}
	if r.Current == nil || !r.sameLayout() {
		return r.inPlace()
	}
	return r.Current.update(func(now *Header) (*draft, error) {
		if !r.Current.sameVolume(now) || now.SeqID() != r.Current.SeqID() {
			return nil, fmt.Errorf("the volume: %w", ErrConflict)
		}
		return r.relocate(now)
	})
}

// relocate drafts the backup's document with its areas at free places. Slots
// that the device has already stay where they are.
func (r *Restoration) relocate(now *Header) (*draft, error) {
	d := &draft{base: &now.snapshot, now: &now.snapshot, next: r.backup.doc.clone(), unguarded: true}
	d.binary = &r.backup.binary
	for _, k := range r.backup.meta.keyslots {
		o, _ := d.child("keyslots").child(fmt.Sprint(k.ID))
		area, _ := o.child("area")
		if !slices.Contains(r.Revived, k.ID) {
			there, _ := now.meta.keyslot(k.ID)
			area.set("offset", decimal(there.Area.Offset))
			area.set("size", decimal(there.Area.Size))
			continue
		}
		material := make([]byte, k.Area.Size)
		if err := readAt(r.backup.dev, material, k.Area.Offset); err != nil {
			return nil, fmt.Errorf("the backup's key material: %w", err)
		}
		offset, err := d.allocate(k.Area.Size)
		if err != nil {
			return nil, err
		}
		area.set("offset", decimal(offset))
		d.writes = append(d.writes, areaWrite{offset, material, k.Area.Size})
	}
	return d, nil
}

func (r *Restoration) inPlace() (*Header, error) {
	release, err := lock(r.dev, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if now, err := read(r.dev); (err == nil) != (r.Current != nil) || err == nil && now.SeqID() != r.Current.SeqID() {
		return nil, fmt.Errorf("the device: %w", ErrConflict)
	}
	var areas []areaWrite
	for _, a := range r.backup.meta.areas() {
		material := make([]byte, a.Size)
		if err := readAt(r.backup.dev, material, a.Offset); err != nil {
			return nil, fmt.Errorf("the backup's key material: %w", err)
		}
		areas = append(areas, areaWrite{a.Offset, material, a.Size})
	}
	next := r.backup.snapshot
	if r.Current != nil {
		next.binary.SeqID = max(next.binary.SeqID, r.Current.binary.SeqID)
	}
	next.binary.SeqID++
	return writeInPlace(r.dev, &next, areas)
}

// Erase removes every keyslot and token and overwrites all key material: the
// data is lost for good, to everyone without a backup of the header. It works on
// headers that are valid but not trusted, too.
func (h *Header) Erase() (*Header, error) {
	return h.update(func(now *Header) (*draft, error) {
		if !h.sameVolume(now) {
			return nil, fmt.Errorf("the volume itself: %w", ErrConflict)
		}
		d := &draft{base: &h.snapshot, now: &now.snapshot, next: now.doc.clone(), unguarded: true}
		d.next.set("keyslots", &object{})
		d.next.set("tokens", &object{})
		for _, m := range d.child("digests").members {
			m.value.(*object).set("keyslots", []any{})
		}
		d.child("config").remove("requirements")
		return d, nil
	})
}

// Repair writes what is in force over a damaged or stale copy, and wipes key
// material that nothing uses. It reports what it did; nothing when nothing was
// to do.
func Repair(dev Device) (h *Header, done []string, err error) {
	release, err := lock(dev, true)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if h, err = read(dev); err != nil {
		return nil, nil, err
	}
	for _, c := range h.copies {
		if c.State != CopyGood {
			done = append(done, fmt.Sprintf("the %s copy, which was %s, was written again from the other", c.Name, c.State))
		}
	}
	if err := h.restoreCopies(); err != nil {
		return nil, nil, err
	}
	dirty, err := h.Leftovers()
	if err != nil {
		return nil, nil, err
	}
	if len(dirty) > 0 {
		done = append(done, "key material that no keyslot uses was wiped")
		if err := zero(dev, dirty); err != nil {
			return nil, nil, err
		}
	}
	h, err = read(dev)
	return h, done, err
}

// Repair is [Repair] of the device that the header was read from.
func (h *Header) Repair() (next *Header, done []string, err error) { return Repair(h.dev) }
