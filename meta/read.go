package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// DamageError says that META holds something and neither copy can be read. It
// shows no values.
type DamageError struct {
	Copies [2]DamagedCopy
}

// DamagedCopy is one copy that cannot be used.
type DamagedCopy struct {
	Name string // "copy 1 (at byte 0)"
	Flaw string // what is wrong with it
	// Salvage is what still looks like records. Nothing vouches for them: they
	// are for people to look at.
	Salvage []Record
}

func (e *DamageError) Error() string {
	var parts []string
	for _, c := range e.Copies {
		parts = append(parts, c.Name+": "+c.Flaw)
	}
	return "both copies of META are damaged, so its values are lost (" + strings.Join(parts, "; ") +
		"); look at what can be salvaged, then repair META with a reset, which makes it empty"
}

// image is all of META that has a meaning, read once.
type image struct {
	copies  [2][]byte
	values  [2]values // nil of a copy that is not good
	flaws   [2]string
	inForce int // index of the copy that counts, or none
	legacy  legacy
}

// none stands for an index when META is empty.
const none = -1

// load reads META. What is damaged is said by usable.
func load(dev Device) (*image, error) {
	if n := dev.Size(); n != Size {
		return nil, fmt.Errorf("this is not META: it has %d bytes, META has exactly %d", n, Size)
	}
	raw := make([]byte, 2*copySize)
	if err := readAt(dev, raw, 0); err != nil {
		return nil, err
	}
	tail := make([]byte, 2*legacySize)
	if err := readAt(dev, tail, legacyAt); err != nil {
		return nil, err
	}
	im := &image{copies: [2][]byte{raw[:copySize:copySize], raw[copySize:]}, inForce: none, legacy: readLegacy(tail)}
	for i, p := range im.copies {
		im.values[i], im.flaws[i] = decode(p)
		if im.good(i) && im.inForce == none {
			im.inForce = i
		}
	}
	return im, nil
}

func (im *image) good(i int) bool { return im.values[i] != nil }

// differ reports two good copies of which one is older, as a power cut between
// their writes leaves them.
func (im *image) differ() bool {
	return im.good(0) && im.good(1) && !bytes.Equal(im.copies[0], im.copies[1])
}

// empty reports a META that was never written. The very first commit writes
// copy 1 without its first sector, syncs and only then writes that: what a power
// cut leaves of it is no damage.
func (im *image) empty() bool {
	return isZero(im.copies[0][:firstSector]) && isZero(im.copies[1])
}

// firstSector is what a disk writes whole or not at all, in bytes.
const firstSector = 512

// usable returns a [*DamageError] when META holds something that is not read.
func (im *image) usable() error {
	if im.inForce != none || im.empty() {
		return nil
	}
	e := &DamageError{}
	for i, p := range im.copies {
		e.Copies[i] = DamagedCopy{Name: copyNames[i], Flaw: im.flaws[i]}
		if binary.BigEndian.Uint32(p) == magic1 {
			e.Copies[i].Salvage, _ = scan(p)
		}
	}
	return e
}

// talos returns the values of the copy in force.
func (im *image) talos() values {
	if im.inForce == none {
		return values{}
	}
	return im.values[im.inForce]
}

// damage lists what is wrong with a usable META.
func (im *image) damage() (out []string) {
	switch {
	case im.inForce == none && !isZero(im.copies[0]):
		out = append(out, copyNames[0]+" holds the beginning of a first write that was cut off")
	case im.inForce == none:
	case im.differ():
		out = append(out, copyNames[1]+" is good and differs from copy 1, which counts")
	default:
		for i := range im.copies {
			if !im.good(i) {
				out = append(out, copyNames[i]+" is not used: "+im.flaws[i])
			}
		}
	}
	return append(out, im.legacy.flaws...)
}

// Meta is the content of META. It is not safe for use by several goroutines.
type Meta struct {
	dev    Device
	read   values   // all values when they were read or committed last
	tried  []values // all values that a failed commit may have left
	talos  values   // what Commit makes of the copies
	legacy values   // what Commit leaves in the legacy vector
	damage []string
}

// Read reads META. It never writes. A partition of zeros is empty; when neither
// copy can be used the error is a [*DamageError].
func Read(dev Device) (*Meta, error) {
	release, err := lock(dev, false)
	if err != nil {
		return nil, err
	}
	defer release()
	im, err := load(dev)
	if err != nil {
		return nil, err
	}
	if err := im.usable(); err != nil {
		return nil, err
	}
	return &Meta{
		dev:    dev,
		read:   im.talos().over(im.legacy.values),
		talos:  maps.Clone(im.talos()),
		legacy: maps.Clone(im.legacy.values),
		damage: im.damage(),
	}, nil
}

// Get returns a copy of the value of a tag.
func (m *Meta) Get(tag Tag) (value []byte, ok bool) {
	value, ok = m.talos[tag]
	if !ok {
		value, ok = m.legacy[tag]
	}
	return bytes.Clone(value), ok
}

// Tags returns the tags that have a value, ascending.
func (m *Meta) Tags() []Tag {
	return slices.Sorted(maps.Keys(m.talos.over(m.legacy)))
}

// Room returns how much of [Capacity] the values take, in bytes. Those of the
// legacy vector take none.
func (m *Meta) Room() (used, total int) { return m.talos.size(), Capacity }

// Damage says in sentences what was found damaged while the values are all
// there, one for each place. [Repair] mends the copies.
func (m *Meta) Damage() []string { return slices.Clone(m.damage) }
