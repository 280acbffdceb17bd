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
		return setPriority(slot, o, p)
	}}
}

func setPriority(slot int, keyslot *object, p Priority) error {
	if p < PriorityIgnore || p > PriorityPrefer {
		return fmt.Errorf("keyslot %d: there is no priority %d", slot, p)
	}
	keyslot.remove("priority")
	if p != PriorityNormal {
		keyslot.set("priority", number(int(p)+1))
	}
	return nil
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
