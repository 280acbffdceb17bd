package meta

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// This file is the only one that writes to a device. What keeps META readable at
// every instant is that one copy is written at a time, and synced, while the
// other one holds what is in force:
//
//	lock exclusively, read META again, compare
//	0  copy 2 <- itself     sync; it must be on the disk, and what was read came from a cache
//	1  copy 1 <- new        sync
//	2  copy 2 <- new        sync
//	read back
//
// When copy 2 is damaged, or differs from copy 1, then copy 1 is the only one that
// holds what is in force, and the two change places. When META is empty, step 0
// falls away and the first copy is written without its first sector, synced, and
// gets that sector in a write of its own: a cut before leaves nothing that looks
// damaged.
//
// A deletion of a value from the legacy vector is made one step with the rest:
//
//	a  values that only the legacy vector has, and that are to go, join the
//	   copies (0 to 2 as above)                         nothing changes for who reads
//	b  legacy sectors <- without them     sync          nothing changes either
//	c  0 to 2 with the new values
//
// Where nothing else changes, b alone does it: its two sectors are each written
// whole or not at all, and the first that is good counts. Where nothing is deleted
// from it, b writes a legacy vector again as it is, for the reason of step 0.

// ErrConflict is returned by Commit when another process changed META since it
// was read. Read it again and make the changes anew.
var ErrConflict = errors.New("META was changed by another process since it was read")

// ErrFull is wrapped when values do not fit.
var ErrFull = errors.New("META is full")

// Set gives a tag a value, in memory until Commit. It fails with [ErrFull] when
// the values would not fit.
func (m *Meta) Set(tag Tag, value []byte) error {
	if tag == 0 {
		return errors.New("tag 0 ends the values of META and cannot have one")
	}
	next := m.talos.over(nil)
	next[tag] = bytes.Clone(value)
	if err := next.fit(); err != nil {
		return fmt.Errorf("set %s to %d bytes: %w", tag, len(value), err)
	}
	m.talos = next
	return nil
}

// Delete takes a tag's value away, in memory until Commit, from the copies and
// from the legacy vector: there an older value would come to light.
func (m *Meta) Delete(tag Tag) {
	delete(m.talos, tag)
	delete(m.legacy, tag)
}

func (v values) fit() error {
	if n := v.size(); n > Capacity {
		return fmt.Errorf("%w: the values take %d bytes, 8 for each included, and there is room for %d; delete some", ErrFull, n, Capacity)
	}
	return nil
}

// Commit writes what Set and Delete changed, as one step, and mends a damaged
// copy on the way. It writes nothing when nothing changed. After an error other
// than [ErrConflict] either the old or the new values are in force, and Commit
// may be called again.
func (m *Meta) Commit() error {
	release, err := lock(m.dev, true)
	if err != nil {
		return err
	}
	defer release()
	im, err := load(m.dev)
	if err != nil {
		return err
	}
	if err := im.usable(); err != nil {
		return err
	}
	now := im.talos().over(im.legacy.values)
	if !now.equal(m.read) && !slices.ContainsFunc(m.tried, now.equal) {
		return ErrConflict
	}
	want := m.talos.over(m.legacy)
	if err := m.write(im, len(m.tried) > 0); err != nil {
		m.tried = append(m.tried, want)
		return err
	}
	m.read, m.tried = want, nil
	return nil
}

// write makes META on the disk what it is in memory. The image is what is on the
// disk; again says that a write before this one failed.
func (m *Meta) write(im *image, again bool) error {
	var drop []Tag
	for _, tag := range slices.Sorted(maps.Keys(im.legacy.values)) {
		if _, keep := m.legacy[tag]; !keep {
			drop = append(drop, tag)
		}
	}
	changed := again || !m.talos.equal(im.talos())
	if !changed && len(drop) == 0 {
		return nil
	}
	if changed && len(drop) > 0 {
		if err := im.hold(m.dev, drop); err != nil {
			return err
		}
	}
	if im.legacy.inUse != nil {
		if err := writeAt(m.dev, im.legacy.without(drop), legacyAt); err != nil {
			return err
		}
	}
	if changed {
		if err := im.writeCopies(m.dev, m.talos); err != nil {
			return err
		}
	}
	return m.readBack(changed)
}

// hold is step a.
func (im *image) hold(dev Device, drop []Tag) error {
	going := values{}
	for _, tag := range drop {
		going[tag] = im.legacy.values[tag]
	}
	held := im.talos().over(going)
	if err := held.fit(); err != nil {
		return fmt.Errorf("delete values of the legacy vector, which pass through the copies: %w", err)
	}
	if held.equal(im.talos()) {
		return nil
	}
	return im.writeCopies(dev, held)
}

// writeCopies is steps 0 to 2. Afterwards the image has what was written.
func (im *image) writeCopies(dev Device, v values) error {
	first, second := 0, 1
	if im.good(0) && (!im.good(1) || im.differ()) {
		first, second = 1, 0
	}
	if im.good(second) {
		if err := im.writeCopy(dev, second, im.copies[second]); err != nil {
			return err
		}
	}
	p := v.encode()
	for _, i := range []int{first, second} {
		if err := im.writeCopy(dev, i, p); err != nil {
			return err
		}
		im.copies[i], im.values[i], im.flaws[i] = p, v, ""
	}
	im.inForce = 0
	return nil
}

func (im *image) writeCopy(dev Device, i int, p []byte) error {
	at := int64(i) * copySize
	if im.empty() {
		if err := writeAt(dev, p[firstSector:], at+firstSector); err != nil {
			return err
		}
		p = p[:firstSector]
	}
	return writeAt(dev, p, at)
}

// readBack checks that the device holds what was written.
func (m *Meta) readBack(copies bool) error {
	im, err := load(m.dev)
	if err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	whole := !copies || im.good(0) && im.good(1) && !im.differ()
	if !whole || !im.talos().equal(m.talos) || !im.legacy.values.equal(m.legacy) {
		return errors.New("read back: the device does not hold what was written to META")
	}
	m.damage = im.damage()
	return nil
}

// RepairOptions are how far Repair may go.
type RepairOptions struct {
	// Reset makes META empty when neither copy can be used. What a
	// [*DamageError] salvages is lost with it.
	Reset bool
}

// Repair mends a copy that is damaged, or differs, from the one that counts and
// says what it did. It never touches the legacy vector. When neither copy can be
// used it returns the [*DamageError] and writes nothing, unless it may reset
// META.
func Repair(dev Device, opts RepairOptions) (done []string, err error) {
	release, err := lock(dev, true)
	if err != nil {
		return nil, err
	}
	defer release()
	im, err := load(dev)
	if err != nil {
		return nil, err
	}
	err = im.usable()
	switch {
	case err != nil && !opts.Reset:
		return nil, err
	case err != nil:
		if err := im.writeCopies(dev, values{}); err != nil {
			return nil, err
		}
		return []string{"made META empty, since neither copy could be used"}, nil
	case im.inForce == none && isZero(im.copies[0]):
		return nil, nil
	case im.inForce == none:
		if err := writeAt(dev, make([]byte, copySize), 0); err != nil {
			return nil, err
		}
		return []string{"wiped " + copyNames[0] + ": a first write of it was cut off"}, nil
	}
	from, to := im.inForce, 1-im.inForce
	if bytes.Equal(im.copies[from], im.copies[to]) {
		return nil, nil
	}
	for _, i := range []int{from, to} { // from first, for the reason of step 0
		if err := im.writeCopy(dev, i, im.copies[from]); err != nil {
			return nil, err
		}
	}
	return []string{"wrote " + copyNames[to] + " again from " + copyNames[from]}, nil
}
