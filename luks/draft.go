package luks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// draft is a header while it is being changed.
type draft struct {
	base   *snapshot // what the caller saw
	now    *snapshot // what is on the disk
	next   *object   // what will be
	writes []areaWrite
	binary *binaryHeader // of a restored header; nil keeps the one on the disk

	// unguarded says that keyslots may go: an erase or a restore.
	unguarded bool
}

type areaWrite struct {
	offset int64
	data   []byte
	size   int64 // of the area; the rest after data becomes zeros
}

func (d *draft) child(name string) *object {
	c, ok := d.next.child(name)
	if !ok {
		panic("luks: a checked header without " + name)
	}
	return c
}

// unchanged fails with ErrConflict when a keyslot or token differs from what the
// caller saw.
func (d *draft) unchanged(kind string, id int) error {
	return d.unchangedMember(kind, strconv.Itoa(id))
}

func (d *draft) unchangedMember(kind, name string) error {
	was, _ := d.base.doc.child(kind)
	is, _ := d.now.doc.child(kind)
	a, hadIt := was.get(name)
	b, hasIt := is.get(name)
	if hadIt != hasIt || !slices.Equal(appendValue(nil, a), appendValue(nil, b)) {
		return fmt.Errorf("%s %s: %w", strings.TrimSuffix(kind, "s"), name, ErrConflict)
	}
	return nil
}

func checkID(kind string, id int) error {
	if id < 0 || id >= MaxSlots {
		return fmt.Errorf("%s %d: ids run from 0 to %d", kind, id, MaxSlots-1)
	}
	return nil
}

// freeSlot returns the lowest free id, of one that no token has when the slot
// comes with a token: other tools' tokens have ids of their own.
func (d *draft) freeSlot(withToken bool) int {
	for id := range MaxSlots {
		_, used := d.child("keyslots").get(strconv.Itoa(id))
		_, named := d.child("tokens").get(strconv.Itoa(id))
		if !used && !(withToken && named) {
			return id
		}
	}
	return -1
}

// put places a sealed key in a free area and points the slot at it.
func (d *draft) put(id int, key *SealedKey, token json.RawMessage) error {
	digest, ok := d.digestOf(key)
	if !ok {
		return fmt.Errorf("keyslot %d: the volume key: %w", id, ErrConflict)
	}
	offset, err := d.allocate(areaSize(key.volume.key.Len()))
	if err != nil {
		return err
	}
	name, slots := strconv.Itoa(id), d.child("keyslots")
	o := key.object(offset)
	if err := setPriority(id, o, key.Priority); err != nil {
		return err
	}
	if old, ok := slots.child(name); ok {
		if p, ok := old.get("priority"); ok {
			o.set("priority", p)
		}
	}
	slots.set(name, o)
	for _, m := range d.child("digests").members {
		dropReference(m.value.(*object), name)
	}
	list, _ := digest.get("keyslots")
	digest.set("keyslots", append(slices.Clone(list.([]any)), name))
	d.writes = append(d.writes, areaWrite{offset, key.area, areaSize(key.volume.key.Len())})
	key.slot = id
	if token == nil {
		return nil
	}
	if err := d.unchanged("tokens", id); err != nil {
		return err
	}
	return d.putToken(id, token)
}

// digestOf returns the digest that confirms the key's volume.
func (d *draft) digestOf(key *SealedKey) (*object, bool) {
	for _, m := range d.child("digests").members {
		o := m.value.(*object)
		if bareDigest(o) == key.volume.digest {
			return o, true
		}
	}
	return nil, false
}

// CheckToken says why a token cannot be stored at an id, or nil. That the
// keyslots it names exist is checked with the whole header.
func CheckToken(id int, token json.RawMessage) error {
	_, err := parseToken(id, token)
	return err
}

func (d *draft) putToken(id int, token json.RawMessage) error {
	o, err := parseToken(id, token)
	if err != nil {
		return err
	}
	d.child("tokens").set(strconv.Itoa(id), o)
	return nil
}

// parseToken checks what the format asks of a token.
func parseToken(id int, token json.RawMessage) (*object, error) {
	o, duplicates, err := parseDocument(token)
	if err == nil { // inside of the document it nests deeper
		_, _, err = parseDocument(newObject("tokens", newObject(strconv.Itoa(id), o)).encode())
	}
	if err != nil {
		return nil, fmt.Errorf("token %d: %w", id, err)
	}
	kind, _ := o.get("type")
	list, _ := o.get("keyslots")
	name, isText := kind.(string)
	_, isList := list.([]any)
	switch {
	case len(duplicates) > 0:
		return nil, fmt.Errorf("token %d: member %s occurs twice", id, duplicates[0])
	case !isText || name == "" || !isList:
		return nil, fmt.Errorf("token %d: needs a type, which is a text, and keyslots, which is an array", id)
	case name == "luks2-keyring" && len(o.members) != 3:
		return nil, fmt.Errorf("token %d: luks2-keyring has type, keyslots and key_description only", id)
	case strings.HasPrefix(name, "luks2-") && name != "luks2-keyring":
		return nil, fmt.Errorf("token %d: types that begin with luks2- are reserved", id)
	}
	return o, nil
}

// dropReference removes a keyslot's id from an object's keyslots array.
func dropReference(o *object, id string) {
	v, _ := o.get("keyslots")
	list, _ := v.([]any)
	o.set("keyslots", slices.DeleteFunc(slices.Clone(list), func(e any) bool { return e == any(id) }))
}

// allocate finds the first gap for an area. What the header on the disk still
// points at is not free: until the commit it must go on working.
func (d *draft) allocate(size int64) (int64, error) {
	low := 2 * int64(d.now.binary.HdrSize)
	taken := slices.Clone(d.now.meta.areas())
	for _, w := range d.writes {
		taken = append(taken, Area{Offset: w.offset, Size: w.size})
	}
	var largest int64
	for _, gap := range gaps(taken, low, low+d.now.meta.keyslotsSize) {
		start := (gap.Offset + alignment - 1) / alignment * alignment
		if room := gap.end() - start; room >= size {
			return start, nil
		} else if room > largest {
			largest = room
		}
	}
	return 0, &RoomError{What: KeyslotsArea, Need: size, Have: largest}
}

// gaps returns what of [low, high) no area covers.
func gaps(areas []Area, low, high int64) []Area {
	sorted := slices.SortedFunc(slices.Values(areas), byOffset)
	var out []Area
	for _, a := range append(sorted, Area{Offset: high}) {
		if a.Offset > low {
			out = append(out, Area{Offset: low, Size: a.Offset - low})
		}
		low = max(low, a.end())
	}
	return out
}
