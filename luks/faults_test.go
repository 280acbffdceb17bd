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

var errBroken = errors.New("broken")

// failAt makes the n-th write or sync fail, and all later ones if that is for
// good. It returns how many there were.
func (d *disk) failAt(n int, forGood bool) *int {
	count := new(int)
	d.before = func(op operation) error {
		if op.kind == "read" {
			return nil
		}
		defer func() { *count++ }()
		if *count == n || forGood && *count > n {
			return errBroken
		}
		return nil
	}
	return count
}

// TestWriteErrors fails each write and sync of each kind of change: the header
// is then the old or the new one, and the error says which.
func TestWriteErrors(t *testing.T) {
	volume := newDisk(2 << 20)
	h := format(t, volume, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 1536 << 10}, "zero", "one")
	key := unlock(t, h, "zero")
	backup := deviceOf(t, h)
	h = commit(t, h, luks.RemoveKeyslot(1))
	commit(t, h, luks.AddKeyslot(5, seal(t, key, "five"), nil))
	sealed := seal(t, key, "new")
	change := func(changes ...luks.Change) func(*disk) (*luks.Header, error) {
		return func(d *disk) (*luks.Header, error) { return mustRead(t, d).Commit(changes...) }
	}
	torn := volume.clone()
	torn.data[atJSON] ^= 1
	for _, tt := range []struct {
		name string
		disk *disk
		run  func(d *disk) (*luks.Header, error)
		want string // what opens afterwards
	}{
		{"add", volume, change(luks.AddKeyslot(9, sealed, nil)), "zero:0 five:5 new:9"},
		{"add over a torn primary", torn, change(luks.AddKeyslot(9, sealed, nil)), "zero:0 five:5 new:9"},
		{"replace", volume, change(luks.ReplaceKeyslot(0, sealed, nil)), "five:5 new:0"},
		{"remove", volume, change(luks.RemoveKeyslot(0)), "five:5"},
		{"set a note", volume, change(luks.SetConfig("note", json.RawMessage("{}"))), "zero:0 five:5"},
		{"restore", volume, func(d *disk) (*luks.Header, error) {
			plan, err := luks.PlanRestore(d, mustRead(t, backup))
			if err != nil {
				t.Fatal(err)
			}
			return plan.Run(false)
		}, "zero:0 one:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := state(t, mustRead(t, tt.disk))
			whole := tt.disk.clone()
			count := whole.failAt(-1, false)
			done, err := tt.run(whole)
			if err != nil || opens(t, done, "zero", "one", "five", "new") != tt.want {
				t.Fatalf("without an error: %v", err)
			}
			after := state(t, done)
			for n := range *count {
				for _, forGood := range []bool{false, true} {
					d := tt.disk.clone()
					d.failAt(n, forGood)
					h, err := tt.run(d)
					d.before = nil
					if !errors.Is(err, errBroken) {
						t.Fatalf("operation %d of %d fails, for good %v: error %v", n, *count, forGood, err)
					}
					now := state(t, mustRead(t, d))
					ok := now == before && h == nil
					switch {
					case errors.Is(err, luks.ErrNotWiped):
						ok = now == after && h != nil && state(t, h) == after
					case errors.Is(err, luks.ErrUncertain):
						ok = (now == before || now == after) && h != nil && state(t, h) == now
					}
					if !ok {
						t.Errorf("operation %d of %d fails, for good %v: old %v, new %v, beside the error %q", n, *count, forGood, now == before, now == after, err)
					}
					// The next change sets right what is left.
					commit(t, mustRead(t, d), luks.SetConfig("after", json.RawMessage("{}")))
					sound(t, d)
				}
			}
		})
	}
}

// state is all that a header says, key material included.
func state(t *testing.T, h *luks.Header) string {
	t.Helper()
	return fmt.Sprint(string(h.JSON()), sums(t, h))
}

// TestLyingDevice: a device that returns other bytes than were written must not
// get a header that points at them.
func TestLyingDevice(t *testing.T) {
	volume, h := newVolume(t)
	key := unlock(t, h, "zero")
	sealed := seal(t, key, "new")
	flip := func(p []byte) []byte { p = bytes.Clone(p); p[len(p)/2] ^= 1; return p }
	drop := func([]byte) []byte { return nil }
	half := func(p []byte) []byte { return p[:len(p)/2] }
	isArea := func(off int64) bool { return off >= 2*metadataSize }
	for _, tt := range []struct {
		name  string
		store func(p []byte) []byte
		when  func(off int64) bool
		text  string
		old   bool // the old header is surely there
	}{
		{"flips a bit of an area", flip, isArea, "read back key material: the device does not hold what was written at byte 548864", true},
		{"drops an area", func(p []byte) []byte { return make([]byte, len(p)) }, isArea, "the device does not hold what was written", true},
		{"writes half an area", half, isArea, "write key material: 258048 bytes at byte 548864: short write", true},
		{"writes nothing of an area", drop, isArea, "short write", true},
		{"flips a bit of the primary", flip, func(off int64) bool { return off == 0 }, "the change may be in force or not: read back the header: the device does not hold what was written (the primary copy is bad)", false},
		{"flips a bit of the secondary", flip, func(off int64) bool { return off == metadataSize }, "the change may be in force or not: read back the header: the device does not hold what was written (the secondary copy is bad)", false},
		{"writes half the primary", half, func(off int64) bool { return off == 0 }, "write the primary header: 16384 bytes at byte 0: short write", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := volume.clone()
			d.store = func(p []byte, off int64) []byte {
				if tt.when(off) {
					return tt.store(p)
				}
				return p
			}
			next, err := mustRead(t, d).Commit(luks.AddKeyslot(2, sealed, nil))
			if err == nil || !strings.Contains(err.Error(), tt.text) || (next == nil) != tt.old {
				t.Errorf("got %v, want %q", err, tt.text)
			}
			if tt.old && !bytes.Equal(d.data[:2*metadataSize+2*areaBytes], volume.data[:2*metadataSize+2*areaBytes]) {
				t.Error("the header was switched")
			}
			d.store = nil
			if got := opens(t, mustRead(t, d), "zero", "one"); got != "zero:0 one:1" {
				t.Errorf("opens %q", got)
			}
		})
	}
}

// TestForgetfulDevice: what an earlier writer left unsynced may be gone after the
// first sync; the change was made for another header then.
func TestForgetfulDevice(t *testing.T) {
	d, h := newVolume(t)
	durable := bytes.Clone(d.data)
	h = commit(t, h, luks.SetConfig("note", json.RawMessage("{}")))
	d.before = func(op operation) error {
		switch op.kind {
		case "sync":
			copy(d.data, durable)
		case "write":
			t.Errorf("write at byte %d", op.offset)
		}
		return nil
	}
	if next, err := h.Commit(luks.SetPriority(0, luks.PriorityPrefer)); next != nil || !errors.Is(err, luks.ErrConflict) {
		t.Errorf("got %v", err)
	}
}

// TestWipeThatLies: what was to be wiped and is still there is said.
func TestWipeThatLies(t *testing.T) {
	d, h := newVolume(t)
	k, _ := h.Keyslot(1)
	d.store = func(p []byte, off int64) []byte {
		if off >= k.Area.Offset {
			return d.data[off : off+int64(len(p))]
		}
		return p
	}
	next, err := h.Commit(luks.RemoveKeyslot(1))
	if next == nil || !errors.Is(err, luks.ErrNotWiped) || !strings.Contains(err.Error(), "read back zeros: the device does not hold what was written at byte 290816") {
		t.Fatalf("got %v", err)
	}
	if got := opens(t, next, "zero", "one"); got != "zero:0" {
		t.Errorf("opens %q", got)
	}
	d.store = nil
	commit(t, next, luks.SetPriority(0, luks.PriorityPrefer))
	sound(t, d)
}

// TestWriteOrder watches the order that a power cut depends on. A copy that is
// damaged comes first: while the other one is written, it alone counts.
func TestWriteOrder(t *testing.T) {
	volume, h := newVolume(t)
	key := unlock(t, h, "zero")
	sealed := seal(t, key, "new")
	commit(t, h, luks.RemoveKeyslot(1))
	// The first sync is of what an earlier writer may have left unsynced.
	const change = "new area, sync, primary, sync, secondary, sync, old area, sync"
	for _, tt := range []struct {
		name   string
		damage func(d *disk)
		want   string
	}{
		{"both copies good", func(*disk) {}, "sync, " + change},
		{"torn primary", func(d *disk) { d.data[atJSON] ^= 1 }, "sync, primary, sync, " + change},
		{"torn secondary", func(d *disk) { d.data[metadataSize+atJSON] ^= 1 }, "sync, secondary, sync, " + change},
		{"stale secondary", func(d *disk) { setSeq(d, 0, 9, "label") }, "sync, secondary, sync, " + change},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := volume.clone()
			tt.damage(d)
			var ops []string
			d.before = func(op operation) error {
				switch {
				case op.kind == "sync":
					ops = append(ops, "sync")
				case op.kind == "write" && op.offset == 0:
					ops = append(ops, "primary")
				case op.kind == "write" && op.offset == metadataSize:
					ops = append(ops, "secondary")
				case op.kind == "write" && op.offset < 2*metadataSize+areaBytes:
					ops = append(ops, "old area")
				case op.kind == "write":
					ops = append(ops, "new area")
				}
				return nil
			}
			commit(t, mustRead(t, d), luks.ReplaceKeyslot(0, sealed, nil))
			if got := strings.Join(ops, ", "); got != tt.want {
				t.Errorf("wrote %s, want %s", got, tt.want)
			}
		})
	}
}
