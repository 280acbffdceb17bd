package luks_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/luks"
)

// TestConflict: two processes read one header, and then both change it.
func TestConflict(t *testing.T) {
	raw := func(s string) json.RawMessage { return json.RawMessage(s) }
	volume := newDisk(2 << 20)
	h := format(t, volume, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 1536 << 10}, "zero", "one")
	h = commit(t, h, luks.SetToken(1, note(`"1"`, "of slot 1")))
	key := unlock(t, h, "zero")
	sealed, other := seal(t, key, "ours"), seal(t, key, "theirs")
	tests := []struct {
		name         string
		theirs, ours luks.Change
		err          error // nil: both are in force
		text         string
	}{
		{"both replace a slot", luks.ReplaceKeyslot(1, other, nil), luks.ReplaceKeyslot(1, sealed, nil), luks.ErrConflict, "keyslot 1: changed meanwhile by another process"},
		{"replaced, then removed", luks.ReplaceKeyslot(1, other, nil), luks.RemoveKeyslot(1), luks.ErrConflict, "keyslot 1: "},
		{"replaced, then another priority", luks.ReplaceKeyslot(1, other, nil), luks.SetPriority(1, luks.PriorityPrefer), luks.ErrConflict, "keyslot 1: "},
		{"both set a priority", luks.SetPriority(1, luks.PriorityIgnore), luks.SetPriority(1, luks.PriorityPrefer), luks.ErrConflict, "keyslot 1: "},
		{"removed, then replaced", luks.RemoveKeyslot(1), luks.ReplaceKeyslot(1, sealed, nil), luks.ErrConflict, "keyslot 1: "},
		{"both remove it", luks.RemoveKeyslot(1), luks.RemoveKeyslot(1), luks.ErrNoSlot, "keyslot 1: "},
		{"both add the same slot", luks.AddKeyslot(2, other, nil), luks.AddKeyslot(2, sealed, nil), luks.ErrSlotInUse, "keyslot 2: "},
		{"expected, but replaced", luks.ReplaceKeyslot(1, other, nil), luks.ExpectKeyslot(1), luks.ErrConflict, "keyslot 1: "},
		{"both set a token", luks.SetToken(1, note(`"1"`, "theirs")), luks.SetToken(1, note(`"1"`, "ours")), luks.ErrConflict, "token 1: "},
		{"token changed, slot replaced with a token", luks.SetToken(1, note(`"1"`, "theirs")), luks.ReplaceKeyslot(1, sealed, note(`"1"`, "ours")), luks.ErrConflict, "token 1: "},
		{"token made, slot added with a token", luks.SetToken(2, note(`"1"`, "theirs")), luks.AddKeyslot(2, sealed, note(`"2"`, "ours")), luks.ErrConflict, "token 2: "},
		{"token changed, then removed", luks.SetToken(1, note(`"1"`, "theirs")), luks.RemoveToken(1), luks.ErrConflict, "token 1: "},
		{"both remove the token", luks.RemoveToken(1), luks.RemoveToken(1), luks.ErrNoToken, "token 1: "},
		{"both set flags", luks.SetFlags("allow-discards"), luks.SetFlags("no-journal"), luks.ErrConflict, "config flags: "},
		{"both set a note", luks.SetConfig("note", raw(`{"n":1}`)), luks.SetConfig("note", raw(`{"n":2}`)), luks.ErrConflict, "config note: "},

		{"both add any slot", luks.AddKeyslot(luks.AnySlot, other, nil), luks.AddKeyslot(luks.AnySlot, sealed, nil), nil, ""},
		{"one slot each", luks.SetPriority(1, luks.PriorityIgnore), luks.SetPriority(0, luks.PriorityPrefer), nil, ""},
		{"a slot and its token", luks.SetPriority(1, luks.PriorityPrefer), luks.SetToken(1, note(`"1"`, "ours")), nil, ""},
		{"flags and a note", luks.SetFlags("allow-discards"), luks.SetConfig("note", raw(`{}`)), nil, ""},
		{"one note each", luks.SetConfig("a", raw(`{}`)), luks.SetConfig("b", raw(`{}`)), nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := volume.clone()
			first, second := mustRead(t, d), mustRead(t, d)
			theirs := commit(t, first, tt.theirs)
			h, err := second.Commit(tt.ours)
			if tt.err == nil {
				if err != nil || h.SeqID() != theirs.SeqID()+1 {
					t.Errorf("got %v", err)
				}
				sound(t, d)
				return
			}
			if h != nil || !errors.Is(err, tt.err) || !strings.HasPrefix(err.Error(), tt.text) {
				t.Errorf("got %v, want %v %q", err, tt.err, tt.text)
			}
			if now := sound(t, d); string(now.JSON()) != string(theirs.JSON()) {
				t.Error("what the others did is gone")
			}
		})
	}
}

// TestAnotherVolume: a volume that was formatted meanwhile is not the one that
// was looked at, be it with the same UUID.
func TestAnotherVolume(t *testing.T) {
	for name, uuid := range map[string]string{"same UUID": "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b", "other UUID": ""} {
		d, h := newVolume(t)
		format(t, d, luks.FormatOptions{UUID: uuid, MetadataSize: metadataSize, DataOffset: dataOffset}, "new", "newer")
		_, commitErr := h.Commit(luks.RemoveKeyslot(0))
		_, eraseErr := h.Erase()
		for what, err := range map[string]error{"commit": commitErr, "erase": eraseErr, "backup": h.Backup(nil)} {
			if !errors.Is(err, luks.ErrConflict) || !strings.Contains(err.Error(), "the volume itself: ") {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
		if got := opens(t, sound(t, d), "new", "newer"); got != "new:0 newer:1" {
			t.Errorf("%s: opens %q", name, got)
		}
	}
}

// TestConcurrentAdds: of eight processes that add a key at once, cryptsetup lets
// one succeed.
func TestConcurrentAdds(t *testing.T) {
	d := newDisk(4 << 20)
	format(t, d, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 3 << 20}, "zero")
	path := d.file(t)
	key := unlock(t, mustRead(t, d), "zero")
	var all sync.WaitGroup
	want := []string{"zero:0"}
	slots := make([]int, 8)
	for i := range slots {
		sealed := seal(t, key, fmt.Sprint("word", i))
		all.Go(func() {
			f, err := luks.OpenFile(path, luks.ReadWrite)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			h, err := luks.Read(f)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := h.Commit(luks.AddKeyslot(luks.AnySlot, sealed, nil)); err != nil {
				t.Error(err)
			}
			slots[i] = sealed.Slot()
		})
	}
	all.Wait()
	f := openFile(t, path, luks.ReadOnly)
	h := sound(t, f)
	words := []string{"zero"}
	for i, slot := range slots {
		words = append(words, fmt.Sprint("word", i))
		want = append(want, fmt.Sprintf("word%d:%d", i, slot))
	}
	if got := opens(t, h, words...); got != strings.Join(want, " ") || h.SeqID() != 9 {
		t.Errorf("sequence %d, opens %q, want %q", h.SeqID(), got, want)
	}
}

// TestLockHeld: who writes waits for who reads or writes, and a header read
// before is read again afterwards.
func TestLockHeld(t *testing.T) {
	d, _ := newVolume(t)
	path := d.file(t)
	for name, exclusive := range map[string]bool{"reader": false, "writer": true} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := openFile(t, path, luks.ReadWrite), openFile(t, path, luks.ReadWrite)
			h := mustRead(t, ours)
			release, err := theirs.Lock(exclusive)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error)
			go func() {
				_, err := h.Commit(luks.SetConfig("by-"+name, json.RawMessage(`{}`)))
				done <- err
			}()
			select {
			case err := <-done:
				t.Fatalf("the lock was not waited for: %v", err)
			case <-time.After(100 * time.Millisecond):
			}
			release()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	// Two readers do not wait for each other.
	a, b := openFile(t, path, luks.ReadOnly), openFile(t, path, luks.ReadOnly)
	release, err := a.Lock(false)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	mustRead(t, b)
}

// TestLockFails: without the lock nothing is read or written.
func TestLockFails(t *testing.T) {
	d, h := newVolume(t)
	plan, err := luks.PlanRestore(d, h)
	if err != nil {
		t.Fatal(err)
	}
	key := unlock(t, h, "zero")
	d.locks = func(bool) (func(), error) { return nil, luks.ErrLocked }
	d.before = func(op operation) error {
		t.Errorf("%s at %d without a lock", op.kind, op.offset)
		return nil
	}
	_, readErr := luks.Read(d)
	_, unlockErr := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{})
	_, commitErr := h.Commit(luks.RemoveKeyslot(0))
	_, eraseErr := h.Erase()
	_, _, repairErr := luks.Repair(d)
	_, formatErr := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(0, seal(t, key, "x"), nil))
	_, restoreErr := plan.Run(true)
	for name, err := range map[string]error{
		"read": readErr, "unlock": unlockErr, "commit": commitErr, "erase": eraseErr, "repair": repairErr, "format": formatErr,
		"restore": restoreErr, "backup": h.Backup(nil),
	} {
		if !errors.Is(err, luks.ErrLocked) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
