package luks

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// AnySlot asks for the lowest free keyslot.
const AnySlot = -1

// Errors of changes; nothing was written.
var (
	// ErrConflict: another process changed what this change is about, after the
	// header was read. Read again and decide again.
	ErrConflict = errors.New("changed meanwhile by another process")
	// ErrSlotInUse: the keyslot to add is there already.
	ErrSlotInUse = errors.New("the keyslot is in use")
	// ErrSlotsFull: all 32 keyslots are in use.
	ErrSlotsFull = errors.New("all 32 keyslots are in use; remove or replace one")
	// ErrNoSlot: the keyslot to change is not there.
	ErrNoSlot = errors.New("the keyslot is not in use")
	// ErrNoToken: the token to remove is not there.
	ErrNoToken = errors.New("the token does not exist")
	// ErrLastKeyslot: the change would leave no keyslot that opens the data.
	ErrLastKeyslot = errors.New("this would remove the last keyslot, and with it all access to the data; erase does that on purpose")
)

// Change is one edit of a header; see [Header.Commit].
type Change struct {
	apply func(*draft) error
}

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

// AddKeyslot adds a keyslot at a free id, or at any with [AnySlot], and with it
// a token of the same id when token is not nil.
func AddKeyslot(slot int, key *SealedKey, token json.RawMessage) Change {
	return Change{func(d *draft) error {
		id := slot
		if id == AnySlot {
			if id = d.freeSlot(token != nil); id < 0 {
				return ErrSlotsFull
			}
		} else if err := checkID("keyslot", id); err != nil {
			return err
		}
		if _, used := d.child("keyslots").get(strconv.Itoa(id)); used {
			return fmt.Errorf("keyslot %d: %w", id, ErrSlotInUse)
		}
		return d.put(id, key, token)
	}}
}

// ReplaceKeyslot seals the volume key anew in a keyslot that is in use, keeping
// its id, priority and place in the trial order. The token of the same id is
// replaced when token is not nil, in the same commit.
func ReplaceKeyslot(slot int, key *SealedKey, token json.RawMessage) Change {
	return Change{func(d *draft) error {
		if err := d.unchanged("keyslots", slot); err != nil {
			return err
		}
		if _, used := d.child("keyslots").get(strconv.Itoa(slot)); !used {
			return fmt.Errorf("keyslot %d: %w", slot, ErrNoSlot)
		}
		return d.put(slot, key, token)
	}}
}

// ExpectKeyslot changes nothing. It makes the commit fail with [ErrConflict] when
// a keyslot that others are removed in favour of, or the token of its id, is not
// as it was when the slot was seen to open.
func ExpectKeyslot(slot int) Change {
	return Change{func(d *draft) error {
		if err := d.unchanged("keyslots", slot); err != nil {
			return err
		}
		return d.unchanged("tokens", slot)
	}}
}

// RemoveKeyslot removes a keyslot and its mention in tokens. Tokens stay; see
// [RemoveToken].
func RemoveKeyslot(slot int) Change {
	return Change{func(d *draft) error {
		name := strconv.Itoa(slot)
		if _, used := d.child("keyslots").get(name); !used {
			return fmt.Errorf("keyslot %d: %w", slot, ErrNoSlot)
		}
		if err := d.unchanged("keyslots", slot); err != nil {
			return err
		}
		d.child("keyslots").remove(name)
		for _, kind := range []string{"tokens", "digests"} {
			for _, m := range d.child(kind).members {
				dropReference(m.value.(*object), name)
			}
		}
		return nil
	}}
}

// SetToken stores a token, a JSON object with at least a type and a keyslots
// array, at an id, in place of the one there.
func SetToken(id int, token json.RawMessage) Change {
	return Change{func(d *draft) error {
		if err := checkID("token", id); err != nil {
			return err
		}
		if err := d.unchanged("tokens", id); err != nil {
			return err
		}
		return d.putToken(id, token)
	}}
}

// RemoveToken removes a token.
func RemoveToken(id int) Change {
	return Change{func(d *draft) error {
		name := strconv.Itoa(id)
		if _, used := d.child("tokens").get(name); !used {
			return fmt.Errorf("token %d: %w", id, ErrNoToken)
		}
		if err := d.unchanged("tokens", id); err != nil {
			return err
		}
		d.child("tokens").remove(name)
		return nil
	}}
}

// SetPriority sets when a keyslot is tried.
func SetPriority(slot int, p Priority) Change {
	return Change{func(d *draft) error {
		o, ok := d.child("keyslots").child(strconv.Itoa(slot))
		if !ok {
			return fmt.Errorf("keyslot %d: %w", slot, ErrNoSlot)
		}
		if err := d.unchanged("keyslots", slot); err != nil {
			return err
		}
		o.remove("priority")
		if p != PriorityNormal {
			o.set("priority", number(int(p)+1))
		}
		return nil
	}}
}

// SetKeyPriority is [SetPriority] for a key that an earlier change of the same
// commit places.
func SetKeyPriority(key *SealedKey, p Priority) Change {
	return Change{func(d *draft) error { return SetPriority(key.slot, p).apply(d) }}
}

// Flags are the persistent activation flags that cryptsetup knows for LUKS2.
func Flags() []string {
	return []string{
		"allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus", "no-journal",
		"no-read-workqueue", "no-write-workqueue", "high_priority",
	}
}

// SetFlags sets the persistent activation flags; none removes them. Talos
// refuses volumes with segment flags, not with these.
func SetFlags(flags ...string) Change {
	return Change{func(d *draft) error {
		if err := d.unchangedMember("config", "flags"); err != nil {
			return err
		}
		config := d.child("config")
		config.remove("flags")
		list := []any{}
		for _, f := range flags {
			if !slices.Contains(Flags(), f) {
				return fmt.Errorf("flag %q is not one of %s", f, strings.Join(Flags(), ", "))
			}
			list = append(list, f)
		}
		if len(list) > 0 {
			config.set("flags", list)
		}
		return nil
	}}
}

// SetConfig stores a member of our own in the config object, where cryptsetup
// keeps what it does not know; nil removes it.
func SetConfig(name string, value json.RawMessage) Change {
	return Change{func(d *draft) error {
		if slices.Contains([]string{"json_size", "keyslots_size", "flags", "requirements"}, name) {
			return fmt.Errorf("config.%s belongs to the format", name)
		}
		if err := d.unchangedMember("config", name); err != nil {
			return err
		}
		if value == nil {
			d.child("config").remove(name)
			return nil
		}
		o, _, err := parseDocument(value)
		if err != nil {
			return fmt.Errorf("config.%s: %w", name, err)
		}
		d.child("config").set(name, o)
		return nil
	}}
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
		bare := o.clone()
		bare.remove("keyslots")
		bare.remove("segments")
		if string(bare.encode()) == key.volume.digest {
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
	sorted := slices.SortedFunc(slices.Values(areas), func(a, b Area) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	var out []Area
	for _, a := range append(sorted, Area{Offset: high}) {
		if a.Offset > low {
			out = append(out, Area{Offset: low, Size: a.Offset - low})
		}
		low = max(low, a.end())
	}
	return out
}
