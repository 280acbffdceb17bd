package luks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
)

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
	if err := backup.Trusted(); err != nil {
		return nil, fmt.Errorf("the backup is refused: %w", err)
	}
	if low, size := backup.KeyslotsArea(); dev.Size() < low+size {
		return nil, fmt.Errorf("the device of %d bytes is too small for the backup's header of %d bytes", dev.Size(), low+size)
	}
	if !opensData(backup.meta) {
		r.Concerns = append(r.Concerns, "the backup has no keyslot that opens the data")
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
	case !r.saysItIs(backup):
		r.Concerns = append(r.Concerns, fmt.Sprintf("the device has a header that cannot be used (%v) and does not say that it is volume %s", err, printable(backup.UUID())))
	}
	r.checkData()
	for _, k := range backup.meta.keyslots {
		r.Revived = append(r.Revived, k.ID)
	}
	return r, nil
}

// saysItIs reports whether a copy on the device, damaged as it is, names the
// backup's volume.
func (r *Restoration) saysItIs(backup *Header) bool {
	for _, offset := range []int64{0, backup.MetadataSize()} {
		p := make([]byte, binarySize)
		if readAt(r.dev, p, offset) != nil {
			continue
		}
		if b := decodeBinary(p); (b.Magic == primaryMagic || b.Magic == secondaryMagic) && b.UUID == backup.binary.UUID {
			return true
		}
	}
	return false
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
	if err := r.dev.Sync(); err != nil { // see makeDurable
		return nil, fmt.Errorf("sync before the restore: %w", err)
	}
	now, err := read(r.dev)
	var refusal *Refusal
	switch {
	case err != nil && !errors.As(err, &refusal):
		return nil, err // of the device, and says nothing about a header
	case (err == nil) != (r.Current != nil) || err == nil && now.SeqID() != r.Current.SeqID():
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
