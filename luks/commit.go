package luks

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/probe/marker"
	"github.com/cryptctl/cryptctl/secret"
)

// This file is the only one that writes to a device. The order of writes and
// syncs is what keeps a header readable at every instant:
//
//	lock exclusively, read the header again, apply the changes to it, sync what
//	an earlier writer left unsynced
//	0  a damaged or stale copy <- what is in force       sync
//	1  key material            -> areas nothing uses     sync, read back
//	2  primary copy            <- new, sequence + 1      sync
//	3  secondary copy          <- new                    sync
//	4  everything in the keyslots area that nothing uses <- zeros, sync
//
// Before the sync of 2 the old header counts, after it the new one; neither
// depends on anything that is being written at that time. Step 4 wipes the areas
// that the change gave up and also what an earlier, interrupted change left.

// Errors of changes that are, or may be, in force.
var (
	// ErrNotWiped: the change is in force, but the key material that it gave up
	// could not be overwritten. The next change tries again.
	ErrNotWiped = errors.New("the change is committed, but old key material was not wiped")
	// ErrUncertain: the device failed while the header was switched, so the old
	// header is in force or the new one. Both were whole, and both open.
	ErrUncertain = errors.New("the change may be in force or not")
)

// Commit applies changes to the header on the disk as one step: after a power
// cut either all of them are in force or none. The caller planned on h; under
// the lock the header is read again and the changes are applied to what is there
// now, and they fail with [ErrConflict] when another process changed the very
// objects they are about. It returns the new header; beside an error that wraps
// [ErrNotWiped] or [ErrUncertain] the one that is there now, if it can be read.
func (h *Header) Commit(changes ...Change) (*Header, error) {
	return h.update(func(now *Header) (*draft, error) {
		if err := now.Trusted(); err != nil {
			return nil, fmt.Errorf("the header is refused: %w", err)
		}
		if !h.sameVolume(now) {
			return nil, fmt.Errorf("the volume itself: %w", ErrConflict)
		}
		d := &draft{base: &h.snapshot, now: &now.snapshot, next: now.doc.clone()}
		for _, c := range changes {
			if err := c.apply(d); err != nil {
				return nil, err
			}
		}
		return d, nil
	})
}

// sameVolume reports whether two headers are of one volume: same UUID, same key.
func (h *Header) sameVolume(o *Header) bool {
	a, _ := h.meta.dataDigest()
	b, _ := o.meta.dataDigest()
	return h.binary.UUID == o.binary.UUID && h.digestText(a.ID) == o.digestText(b.ID)
}

// update runs one locked read-change-write cycle.
func (h *Header) update(change func(now *Header) (*draft, error)) (*Header, error) {
	release, err := lock(h.dev, true)
	if err != nil {
		return nil, err
	}
	defer release()
	now, err := read(h.dev)
	if err != nil {
		return nil, err
	}
	d, err := change(now)
	if err != nil {
		return nil, err
	}
	next, err := d.finish(now.binary.SeqID + 1)
	if err != nil {
		return nil, err
	}
	if err := lastKeyGuard(now.meta, next.meta); err != nil && !d.unguarded {
		return nil, err
	}
	if !d.unguarded && bytes.Equal(next.doc.encode(), now.doc.encode()) {
		// Nothing to change. Erase and restore go on: the first must wipe what an
		// erase before it did not get to, the second may change the label alone.
		return now, nil
	}
	return now.write(next, d.writes)
}

// makeDurable comes before the first write. An earlier writer may have been killed
// between a write and its sync: were the other copy written on top of that, one
// power cut could tear both. What the device holds after the sync must be what
// the change was made for.
func makeDurable(dev Device, seen *Header) error {
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("sync before the change: %w", err)
	}
	now, err := read(dev)
	if err != nil {
		return err
	}
	if !sameCopy(&now.snapshot, &seen.snapshot) || now.copies[0].State != seen.copies[0].State || now.copies[1].State != seen.copies[1].State {
		return fmt.Errorf("the device lost what was written to it earlier: %w", ErrConflict)
	}
	return nil
}

// finish checks the changed document as if it had been read, and gives it the
// next sequence number.
func (d *draft) finish(seq uint64) (*snapshot, error) {
	b := d.now.binary
	if d.binary != nil {
		b = *d.binary
		b.HdrOffset = d.now.binary.HdrOffset
		seq = max(seq, b.SeqID+1)
	}
	b.SeqID = seq
	s, err := checkedSnapshot(b, d.next)
	if err != nil {
		return nil, err
	}
	probe := &Header{snapshot: *s}
	if err := probe.Trusted(); err != nil && !d.unguarded {
		return nil, fmt.Errorf("the change would make a header that is refused: %w", err)
	}
	return s, nil
}

// checkedSnapshot validates a document that is to be written, its size included.
func checkedSnapshot(b binaryHeader, doc *object) (*snapshot, error) {
	text := doc.encode()
	if _, err := encodeCopy(b, text); err != nil {
		return nil, err
	}
	// A token that can be read alone may nest too deep inside the document.
	doc, _, err := parseDocument(text)
	if err != nil {
		return nil, fmt.Errorf("the change would make a header that cannot be read: %w", err)
	}
	m, refusal := validate(b, doc)
	if refusal != nil {
		return nil, fmt.Errorf("the change would make an invalid header: %w", refusal)
	}
	return &snapshot{binary: b, doc: doc, meta: m}, nil
}

func lastKeyGuard(now, next *metadata) error {
	if opensData(now) && !opensData(next) {
		return ErrLastKeyslot
	}
	return nil
}

// opensData reports whether any keyslot gives the key of the data.
func opensData(m *metadata) bool {
	return slices.ContainsFunc(m.keyslots, func(k Keyslot) bool { return k.Type == "luks2" && bindsData(m, k) })
}

// write is steps 0 to 4. The receiver is what is on the disk.
func (h *Header) write(next *snapshot, areas []areaWrite) (*Header, error) {
	if err := makeDurable(h.dev, h); err != nil {
		return nil, err
	}
	if err := h.restoreCopies(); err != nil {
		return nil, err
	}
	if err := writeAreas(h.dev, areas); err != nil {
		return nil, err
	}
	if err := writeCopy(h.dev, next, 0); err != nil {
		return afterFailure(h.dev, ErrUncertain, err)
	}
	if err := writeCopy(h.dev, next, int64(next.binary.HdrSize)); err != nil {
		return afterFailure(h.dev, ErrNotWiped, err)
	}
	return settle(h.dev, next)
}

// afterFailure reports an error with the header that is there now.
func afterFailure(dev Device, state, err error) (*Header, error) {
	now, readErr := read(dev)
	return now, fmt.Errorf("%w: %w", state, errors.Join(err, readErr))
}

// writeFresh writes a header where there was none. The marker at byte 0 is there
// until the primary copy takes its place, last: until then the device counts as
// one whose format was interrupted.
func writeFresh(dev Device, s *snapshot, areas []areaWrite) (*Header, error) {
	reach := 2*int64(s.binary.HdrSize) + s.meta.keyslotsSize
	uuid, _ := cstring(s.binary.UUID[:])
	note := marker.Marker{UUID: uuid, Reach: reach}.Encode()
	if err := writeAt(dev, note, 0); err != nil {
		return nil, err
	}
	if err := dev.Sync(); err != nil {
		return nil, err
	}
	dirty, err := dirtyRanges(dev, []Area{{Offset: marker.Size, Size: reach - marker.Size}})
	if err != nil {
		return nil, err
	}
	if len(dirty) > 0 {
		if err := zero(dev, dirty); err != nil {
			return nil, err
		}
	}
	return writeInPlace(dev, s, areas)
}

// writeInPlace writes areas and copies over whatever is there, the primary copy
// last.
func writeInPlace(dev Device, s *snapshot, areas []areaWrite) (*Header, error) {
	if err := writeAreas(dev, areas); err != nil {
		return nil, err
	}
	for _, offset := range []int64{int64(s.binary.HdrSize), 0} {
		if err := writeCopy(dev, s, offset); err != nil {
			return nil, err
		}
	}
	return settle(dev, s)
}

// settle reads back what was committed and wipes what it does not use.
func settle(dev Device, committed *snapshot) (*Header, error) {
	h, err := readBack(dev, committed)
	if err != nil {
		return afterFailure(dev, ErrUncertain, err)
	}
	if err := h.wipeUnused(); err != nil {
		return h, fmt.Errorf("%w: %w", ErrNotWiped, err)
	}
	return h, nil
}

// readBack reads what was written to both copies.
func readBack(dev Device, written *snapshot) (*Header, error) {
	h, err := read(dev)
	if err != nil {
		return nil, fmt.Errorf("read back the header: %w", err)
	}
	if h.copies[0].State != CopyGood || h.copies[1].State != CopyGood || !bytes.Equal(h.doc.encode(), written.doc.encode()) {
		return nil, fmt.Errorf("read back the header: the device does not hold what was written (%s)", h.why)
	}
	return h, nil
}

// restoreCopies is step 0: it brings both copies to what is in force.
func (h *Header) restoreCopies() error {
	if h.copies[0].State == CopyGood && h.copies[1].State == CopyGood {
		return nil
	}
	for i, offset := range []int64{0, int64(h.binary.HdrSize)} {
		if h.copies[i].State == CopyGood {
			continue
		}
		if err := writeCopy(h.dev, &h.snapshot, offset); err != nil {
			return err
		}
	}
	return nil
}

// writeAreas is step 1. What the device returns afterwards must be what was
// written: only then may a header point at it.
func writeAreas(dev Device, areas []areaWrite) error {
	if len(areas) == 0 {
		return nil
	}
	for _, a := range areas {
		padded := make([]byte, a.size)
		copy(padded, a.data)
		if err := writeAt(dev, padded, a.offset); err != nil {
			return fmt.Errorf("write key material: %w", err)
		}
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("write key material: sync: %w", err)
	}
	for _, a := range areas {
		back := make([]byte, len(a.data))
		if err := readAt(dev, back, a.offset); err != nil {
			return fmt.Errorf("read back key material: %w", err)
		}
		if !bytes.Equal(back, a.data) {
			return fmt.Errorf("read back key material: the device does not hold what was written at byte %d", a.offset)
		}
	}
	return nil
}

// writeCopy writes and syncs one header copy, with a salt of its own.
func writeCopy(dev Device, s *snapshot, offset int64) error {
	b := s.binary
	b.Magic, b.HdrOffset = primaryMagic, uint64(offset)
	if offset != 0 {
		b.Magic = secondaryMagic
	}
	salt := secret.Random(len(b.Salt)) // public; only makes the copies' checksums differ
	copy(b.Salt[:], salt.Bytes())
	salt.Wipe()
	data, err := encodeCopy(b, s.doc.encode())
	if err != nil {
		return err
	}
	if err := writeAt(dev, data, offset); err != nil {
		return fmt.Errorf("write the %s: %w", copyName(b), err)
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("write the %s: sync: %w", copyName(b), err)
	}
	return nil
}

// wipeUnused is step 4. Unused room is all zeros after it, so what is not zero
// at the next change is a leftover.
func (h *Header) wipeUnused() error {
	dirty, err := h.Leftovers()
	if err != nil || len(dirty) == 0 {
		return err
	}
	if err := zero(h.dev, dirty); err != nil {
		return err
	}
	left, err := dirtyRanges(h.dev, dirty)
	if err == nil && len(left) > 0 {
		err = fmt.Errorf("read back zeros: the device does not hold what was written at byte %d", left[0].Offset)
	}
	return err
}

// zero overwrites ranges and syncs.
func zero(dev Device, ranges []Area) error {
	for _, r := range ranges {
		if err := writeAt(dev, make([]byte, r.Size), r.Offset); err != nil {
			return err
		}
	}
	return dev.Sync()
}

func writeAt(dev Device, p []byte, off int64) error {
	n, err := dev.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("%d bytes at byte %d: %w", len(p), off, err)
	}
	return nil
}

// Leftovers returns the parts of the keyslots area that no keyslot uses and that
// are not zero: key material that an interrupted change did not get to wipe, or
// the random filling of a volume that another tool formatted. The next change
// wipes them.
func (h *Header) Leftovers() ([]Area, error) {
	low := 2 * int64(h.binary.HdrSize)
	return dirtyRanges(h.dev, gaps(h.meta.areas(), low, low+h.meta.keyslotsSize))
}

// dirtyRanges returns the parts of the ranges that are not zero, in chunks.
func dirtyRanges(dev Device, ranges []Area) ([]Area, error) {
	const chunk = 64 << 10
	var dirty []Area
	buf := make([]byte, chunk)
	zeros := make([]byte, chunk)
	for _, r := range ranges {
		for at := r.Offset; at < r.end(); at += chunk {
			n := min(chunk, r.end()-at)
			if err := readAt(dev, buf[:n], at); err != nil {
				return nil, err
			}
			if bytes.Equal(buf[:n], zeros[:n]) {
				continue
			}
			if last := len(dirty) - 1; last >= 0 && dirty[last].end() == at && dirty[last].Size < 1<<20 {
				dirty[last].Size += n
			} else {
				dirty = append(dirty, Area{Offset: at, Size: n})
			}
		}
	}
	return dirty, nil
}
