package luks_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
)

func TestRepair(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(d *disk)
		done   []string
	}{
		{"torn primary", func(d *disk) { d.data[atJSON] ^= 1 }, []string{"the primary copy, which was bad, was written again from the other"}},
		{"no primary", func(d *disk) { clear(d.data[:metadataSize]) }, []string{"the primary copy, which was absent, was written again from the other"}},
		{"torn secondary", func(d *disk) { d.data[metadataSize+atJSON] ^= 1 }, []string{"the secondary copy, which was bad, was written again from the other"}},
		{"stale secondary", func(d *disk) { setSeq(d, 0, 5, "label") }, []string{"the secondary copy, which was stale, was written again from the other"}},
		{"copies that differ", func(d *disk) { setSeq(d, metadataSize, 1, "x") }, []string{"the secondary copy, which was stale, was written again from the other"}},
		{"leftovers", func(d *disk) { d.data[dataOffset-1] = 1 }, []string{"key material that no keyslot uses was wiped"}},
		{"both", func(d *disk) { d.data[atJSON] ^= 1; d.data[2*metadataSize+2*areaBytes] = 1 }, []string{
			"the primary copy, which was bad, was written again from the other", "key material that no keyslot uses was wiped",
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := newVolume(t)
			tt.damage(d)
			was := mustRead(t, d)
			h, done, err := was.Repair()
			if diff := cmp.Diff(tt.done, done); err != nil || diff != "" {
				t.Errorf("error %v, done (-want +got):\n%s", err, diff)
			}
			now := sound(t, d)
			if got := opens(t, h, "zero", "one"); got != "zero:0 one:1" || h.SeqID() != was.SeqID() || now.Label() != was.Label() {
				t.Errorf("opens %q, sequence %d, label %q", got, h.SeqID(), now.Label())
			}
		})
	}
	t.Run("a header that is refused keeps what it does not name", func(t *testing.T) {
		d, _ := newVolume(t)
		d.edit(t, edits{"config.requirements": `{"mandatory":["of-tomorrow"]}`})
		d.data[atJSON] ^= 1
		d.data[dataOffset-1] = 1
		_, done, err := luks.Repair(d)
		if diff := cmp.Diff([]string{"the primary copy, which was bad, was written again from the other"}, done); err != nil || diff != "" || d.data[dataOffset-1] != 1 {
			t.Errorf("error %v, done (-want +got):\n%s", err, diff)
		}
	})
	t.Run("nothing to do", func(t *testing.T) {
		d, _ := newVolume(t)
		if h, done, err := luks.Repair(d.untouchable(t)); err != nil || len(done) > 0 || h.SeqID() != 1 {
			t.Errorf("done %v, error %v", done, err)
		}
	})
	t.Run("nothing to repair from", func(t *testing.T) {
		if h, done, err := luks.Repair(newDisk(deviceSize).untouchable(t)); h != nil || done != nil || !errors.Is(err, luks.NotLUKS) {
			t.Errorf("done %v, error %v", done, err)
		}
	})
	t.Run("write fails", func(t *testing.T) {
		for n := range 4 {
			d, _ := newVolume(t)
			d.data[atJSON] ^= 1
			d.data[dataOffset-1] = 1
			d.failAt(n, true)
			if h, done, err := luks.Repair(d); h != nil || done != nil || !errors.Is(err, errBroken) {
				t.Errorf("operation %d fails: done %v, error %v", n, done, err)
			}
		}
	})
}

func TestErase(t *testing.T) {
	erased := func(t *testing.T, d *disk) {
		t.Helper()
		h := mustRead(t, d)
		if len(h.Keyslots()) != 0 || len(h.Tokens()) != 0 || len(h.Requirements()) != 0 {
			t.Errorf("left: %s", h.JSON())
		}
		if bytes.ContainsFunc(d.data[2*metadataSize:dataOffset], func(r rune) bool { return r != 0 }) {
			t.Error("the keyslots area is not all zeros")
		}
		for _, c := range h.Copies() {
			if c.State != luks.CopyGood {
				t.Errorf("the %s copy is %s", c.Name, c.State)
			}
		}
	}
	t.Run("a volume", func(t *testing.T) {
		d, h := newVolume(t)
		next, err := h.Erase()
		if err != nil || next.SeqID() != 2 || next.UUID() != h.UUID() {
			t.Fatalf("got %v, %v", next, err)
		}
		erased(t, d)
	})
	t.Run("headers that are not trusted", func(t *testing.T) {
		for _, f := range untrustedFaults() {
			d := f.volume(t)
			if _, err := mustRead(t, d).Erase(); err != nil {
				t.Errorf("%s: %v", f.name, err)
				continue
			}
			erased(t, d)
		}
	})
	t.Run("again, after each write that can fail", func(t *testing.T) {
		for n := range 6 {
			d, h := newVolume(t)
			d.failAt(n, true)
			if _, err := h.Erase(); !errors.Is(err, errBroken) {
				t.Fatalf("operation %d fails: %v", n, err)
			}
			d.before = nil
			if _, err := mustRead(t, d).Erase(); err != nil {
				t.Fatal(err)
			}
			erased(t, d)
		}
	})
}

// TestUntouchedByErase: data and backups are as they were; the backup is the way
// back.
func TestUntouchedByErase(t *testing.T) {
	d, h := newVolume(t)
	copy(d.data[dataOffset:], stream("data", 64<<10))
	var image bytes.Buffer
	if err := h.Backup(&image); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Erase(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.data[dataOffset:], stream("data", 64<<10)) {
		t.Error("the data was touched")
	}
	if n := binary.BigEndian.Uint64(image.Bytes()[atSeqID:]); n != 1 {
		t.Errorf("the backup's sequence number is %d", n)
	}
}
