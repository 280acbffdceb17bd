package luks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

// bigToken is a token of n bytes.
func bigToken(slot, n int) json.RawMessage {
	head, tail := fmt.Sprintf(`{"type":"big","keyslots":["%d"],"blob":"`, slot), `"}`
	return json.RawMessage(head + strings.Repeat("x", n-len(head)-len(tail)) + tail)
}

// fullHouse makes a volume that uses all 32 keyslots, with a token of 800 bytes
// each.
func fullHouse(t *testing.T, d *disk, key *luks.VolumeKey, dataOffset int64) *luks.Header {
	t.Helper()
	sealed := seal(t, key, "old")
	var changes []luks.Change
	for i := range luks.MaxSlots {
		changes = append(changes, luks.AddKeyslot(luks.AnySlot, sealed, bigToken(i, 800)))
	}
	h, err := luks.Format(d, key, luks.FormatOptions{DataOffset: dataOffset}, changes...)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range h.Keyslots() {
		if token, ok := h.Token(i); k.ID != i || !ok || len(token.JSON) != 800 {
			t.Errorf("keyslot %d is number %d, its token has %d bytes", k.ID, i, len(token.JSON))
		}
	}
	return h
}

// TestFullHouse replaces all keyslots of a volume of the default layout at once:
// 32 new areas beside the 32 old ones.
func TestFullHouse(t *testing.T) {
	d, key := newDisk(17<<20), luks.NewVolumeKey(64)
	defer key.Wipe()
	h := fullHouse(t, d, key, luks.DefaultDataOffset)
	renewed := seal(t, key, "new")
	for _, change := range []luks.Change{luks.AddKeyslot(luks.AnySlot, renewed, nil), luks.AddKeyslot(luks.AnySlot, renewed, bigToken(0, 800))} {
		if _, err := h.Commit(change); !errors.Is(err, luks.ErrSlotsFull) {
			t.Errorf("the 33rd: %v", err)
		}
	}
	var changes []luks.Change
	for i := range luks.MaxSlots {
		changes = append(changes, luks.ReplaceKeyslot(i, renewed, bigToken(i, 801)))
	}
	commit(t, h, changes...)
	h = sound(t, d)
	for _, i := range []int{0, 13, 31} {
		unlock(t, h, "new", i)
	}
}

// TestFullHouseOneByOne replaces each of 32 keyslots while all are in use, where
// there is room for one more.
func TestFullHouseOneByOne(t *testing.T) {
	d, key := newDisk(5<<20), luks.NewVolumeKey(32)
	defer key.Wipe()
	h := fullHouse(t, d, key, 128<<10+33*131072)
	renewed := seal(t, key, "new")
	for i := range luks.MaxSlots {
		h = commit(t, h, luks.ReplaceKeyslot(i, renewed, bigToken(i, 801)))
	}
	h = sound(t, d)
	if h.SeqID() != 1+luks.MaxSlots || len(h.Keyslots()) != luks.MaxSlots {
		t.Errorf("sequence %d, %d keyslots", h.SeqID(), len(h.Keyslots()))
	}
	for i := range luks.MaxSlots {
		unlock(t, h, "new", i)
		if token, _ := h.Token(i); len(token.JSON) != 801 {
			t.Errorf("token %d has %d bytes", i, len(token.JSON))
		}
	}
}

// untouched runs a change that must fail for want of room, and compares the
// device byte for byte.
func untouched(t *testing.T, d *disk, what string, changes ...luks.Change) {
	t.Helper()
	was := bytes.Clone(d.data)
	h := mustRead(t, d)
	next, err := h.Commit(changes...)
	var room *luks.RoomError
	if next != nil || !errors.As(err, &room) {
		t.Fatalf("got %v, want a RoomError", err)
	}
	if room.What != what || room.Need <= room.Have || !strings.Contains(err.Error(), "no room in the "+what) || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("got %v", err)
	}
	if !bytes.Equal(d.data, was) {
		t.Error("the device was written")
	}
}

func TestJSONAreaFull(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	used, total := h.JSONRoom()
	// The last byte of the area is the NUL; the id, its quotes, colon and comma
	// take five more.
	fits := total - used - len(`,"2":`)
	h = commit(t, h, luks.SetToken(2, bigToken(0, fits)))
	if used, total := h.JSONRoom(); used != total {
		t.Fatalf("%d of %d bytes used", used, total)
	}
	sound(t, d)
	untouched(t, d, luks.JSONArea, luks.SetToken(2, bigToken(0, fits+1)))
	untouched(t, d, luks.JSONArea, luks.AddKeyslot(2, seal(t, key, "new"), nil))
	untouched(t, d, luks.JSONArea, luks.SetPriority(0, luks.PriorityPrefer))
	untouched(t, d, luks.JSONArea, luks.SetConfig("x", json.RawMessage(`{}`)))
	// What makes room goes.
	commit(t, mustRead(t, d), luks.RemoveToken(2), luks.AddKeyslot(2, seal(t, key, "new"), nil))
	if got := opens(t, sound(t, d), "zero", "one", "new"); got != "zero:0 one:1 new:2" {
		t.Errorf("opens %q", got)
	}
}

func TestKeyslotsAreaFull(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	sealed := seal(t, key, "new")
	commit(t, h, luks.AddKeyslot(5, sealed, nil))
	untouched(t, d, luks.KeyslotsArea, luks.AddKeyslot(6, sealed, nil))
	untouched(t, d, luks.KeyslotsArea, luks.ReplaceKeyslot(5, sealed, nil))
	// The area of a slot that goes is free only afterwards: until the commit the
	// old header must go on working.
	untouched(t, d, luks.KeyslotsArea, luks.RemoveKeyslot(0), luks.AddKeyslot(0, sealed, nil))
	h = commit(t, mustRead(t, d), luks.RemoveKeyslot(0))
	commit(t, h, luks.AddKeyslot(0, sealed, nil))
	if got := opens(t, sound(t, d), "zero", "one", "new"); got != "one:1 new:5" {
		t.Errorf("opens %q", got)
	}
}

// TestGaps: areas of other tools lie anywhere; ours go into the first gap that
// holds them, on a multiple of 4096.
func TestGaps(t *testing.T) {
	d := newDisk(3 << 20)
	format(t, d, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 2 << 20}, "zero", "one")
	slot := func(offset, size string) string {
		return `{"type":"other","key_size":1,"area":{"type":"raw","offset":"` + offset + `","size":"` + size + `"}}`
	}
	// | 0 | 1 | gap of 8192 | 9 | 1 byte of 10 | gap, from the next 4096 on |
	d.edit(t, edits{"keyslots.9": slot("557056", "4096"), "keyslots.10": slot("561152", "1")})
	h := mustRead(t, d)
	commit(t, h, luks.AddKeyslot(2, seal(t, unlock(t, h, "zero"), "new"), nil))
	h = mustRead(t, d)
	if k, _ := h.Keyslot(2); k.Area.Offset != 565248 || k.Area.Size != areaBytes {
		t.Errorf("the new area is %+v", k.Area)
	}
	if got := opens(t, h, "zero", "one", "new"); got != "zero:0 one:1 new:2" {
		t.Errorf("opens %q", got)
	}
}
