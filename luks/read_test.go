package luks_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
)

// setSeq gives the copy at off another sequence number and label.
func setSeq(d *disk, off int64, seq uint64, label string) {
	d.patch(off, func(p []byte) {
		binary.BigEndian.PutUint64(p[atSeqID:], seq)
		clear(p[atLabel : atLabel+48])
		copy(p[atLabel:], label)
	})
}

func TestCopies(t *testing.T) {
	const good, stale, bad, absent = luks.CopyGood, luks.CopyStale, luks.CopyBad, luks.CopyAbsent
	tests := []struct {
		name    string
		damage  func(d *disk)
		states  [2]luks.CopyState
		label   string
		why     string
		refusal luks.Code // of the copy that does not count
	}{
		{"both good", func(*disk) {}, [2]luks.CopyState{good, good}, "label", "both copies have the same sequence number", ""},
		{"primary torn", func(d *disk) { d.data[atJSON+700] ^= 1 }, [2]luks.CopyState{bad, good}, "label", "the primary copy is bad", luks.BadChecksum},
		{"primary's salt changed", func(d *disk) { d.data[110] ^= 1 }, [2]luks.CopyState{bad, good}, "label", "the primary copy is bad", luks.BadChecksum},
		{"last byte of the primary changed", func(d *disk) { d.data[metadataSize-1] = 1 }, [2]luks.CopyState{bad, good}, "label", "the primary copy is bad", luks.BadChecksum},
		{"primary zeroed", func(d *disk) { clear(d.data[:metadataSize]) }, [2]luks.CopyState{absent, good}, "label", "the primary copy is absent", luks.BadMagic},
		{"primary's magic gone", func(d *disk) { d.data[0] = 0 }, [2]luks.CopyState{absent, good}, "label", "the primary copy is absent", luks.BadMagic},
		{"primary has the secondary's magic", func(d *disk) { copy(d.data, "SKUL") }, [2]luks.CopyState{absent, good}, "label", "the primary copy is absent", luks.BadMagic},
		{"primary of another version", func(d *disk) { d.patch(0, func(p []byte) { p[atVersion+1] = 3 }) }, [2]luks.CopyState{bad, good}, "label", "the primary copy is bad", luks.BadVersion},
		{"primary's document invalid", func(d *disk) { d.patch(0, func(p []byte) { p[atJSON] = '[' }) }, [2]luks.CopyState{bad, good}, "label", "the primary copy is bad", luks.BadJSON},
		{"primary older", func(d *disk) { setSeq(d, metadataSize, 9, "new") }, [2]luks.CopyState{stale, good}, "new", "the secondary copy is newer", ""},
		{"secondary torn", func(d *disk) { d.data[metadataSize+atJSON+700] ^= 1 }, [2]luks.CopyState{good, bad}, "label", "the secondary copy is bad", luks.BadChecksum},
		{"secondary zeroed", func(d *disk) { clear(d.data[metadataSize : 2*metadataSize]) }, [2]luks.CopyState{good, absent}, "label", "the secondary copy is absent", luks.BadMagic},
		{"secondary of another size", func(d *disk) {
			d.patch(metadataSize, func(p []byte) { binary.BigEndian.PutUint64(p[atHdrSize:], 2*metadataSize) })
		}, [2]luks.CopyState{good, bad}, "label", "the secondary copy is bad", luks.BadHdrSize},
		{"secondary of another offset", func(d *disk) {
			d.patch(metadataSize, func(p []byte) { binary.BigEndian.PutUint64(p[atHdrOffset:], 0) })
		}, [2]luks.CopyState{good, bad}, "label", "the secondary copy is bad", luks.BadHdrOffset},
		{"secondary older", func(d *disk) { setSeq(d, 0, 9, "new") }, [2]luks.CopyState{good, stale}, "new", "the primary copy is newer", ""},
		{"equal numbers, other labels", func(d *disk) { setSeq(d, metadataSize, 1, "other") }, [2]luks.CopyState{good, stale}, "label", "both copies have the same sequence number but differ, so the primary counts", ""},
		{"equal numbers, other documents", func(d *disk) {
			c := d.clone()
			c.setText(strings.Replace(d.text(0), "of slot 1", "of slot I", 1))
			copy(d.data[metadataSize:2*metadataSize], c.data[metadataSize:])
		}, [2]luks.CopyState{good, stale}, "label", "both copies have the same sequence number but differ, so the primary counts", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, _ := newVolume(t)
			tt.damage(d)
			h := mustRead(t, d.untouchable(t))
			copies := h.Copies()
			if got := [2]luks.CopyState{copies[0].State, copies[1].State}; got != tt.states {
				t.Errorf("copies are %v, want %v", got, tt.states)
			}
			if h.Why() != tt.why {
				t.Errorf("Why gives %q, want %q", h.Why(), tt.why)
			}
			if h.Label() != tt.label {
				t.Errorf("label %q, want %q", h.Label(), tt.label)
			}
			if got := opens(t, h, "zero", "one"); got != "zero:0 one:1" {
				t.Errorf("opens %s", got)
			}
			for _, c := range copies {
				if found := c.Err != nil; found != (c.State == bad || c.State == absent) || found && !errors.Is(c.Err, tt.refusal) {
					t.Errorf("the %s copy is %s, its refusal %v, want %q", c.Name, c.State, c.Err, tt.refusal)
				}
			}
		})
	}
}

// TestCopiesReport: what a tool shows of the two copies.
func TestCopiesReport(t *testing.T) {
	d, h := newVolume(t)
	want := [2]luks.Copy{
		{Name: "primary", Offset: 0, State: luks.CopyGood, SeqID: 1, UUID: "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"},
		{Name: "secondary", Offset: metadataSize, State: luks.CopyGood, SeqID: 1, UUID: "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"},
	}
	if diff := cmp.Diff(want, h.Copies()); diff != "" {
		t.Errorf("copies (-want +got):\n%s", diff)
	}
	d.data[0] = 0
	want[0] = luks.Copy{Name: "primary", State: luks.CopyAbsent, Err: &luks.Refusal{
		Level: luks.Invalid, Code: luks.BadMagic, Where: "primary header", Reason: "no LUKS2 magic at byte 0", Slot: -1,
	}}
	if diff := cmp.Diff(want, mustRead(t, d).Copies()); diff != "" {
		t.Errorf("copies without a primary (-want +got):\n%s", diff)
	}
}

// TestEverySize finds the secondary of a header whose primary is gone at each of
// the nine places.
func TestEverySize(t *testing.T) {
	for size := int64(16 << 10); size <= 4<<20; size *= 2 {
		t.Run(fmt.Sprint(size>>10, " KiB"), func(t *testing.T) {
			d := newDisk(2*size + 2<<20)
			h := format(t, d, luks.FormatOptions{MetadataSize: size, DataOffset: 2*size + 1<<20}, "word")
			if h.MetadataSize() != size {
				t.Errorf("metadata size %d", h.MetadataSize())
			}
			if off, n := h.KeyslotsArea(); off != 2*size || n != 1<<20 {
				t.Errorf("keyslots area %d, %d", off, n)
			}
			if used, total := h.JSONRoom(); used != len(h.JSON()) || total != int(size)-4096-1 {
				t.Errorf("JSON room %d of %d", used, total)
			}
			clear(d.data[:4096])
			h = mustRead(t, d.untouchable(t))
			if c := h.Copies()[1]; c.Offset != size || c.State != luks.CopyGood {
				t.Errorf("the secondary is %s at %d", c.State, c.Offset)
			}
			if got := opens(t, h, "word"); got != "word:0" {
				t.Errorf("opens %q", got)
			}
		})
	}
}

// TestNoHeader lists what Read refuses without a header to show for it; the
// codes of damaged headers are in refusal_test.go.
func TestNoHeader(t *testing.T) {
	volume, _ := newVolume(t)
	stale := volume.clone()
	copy(stale.data, "LUKS\xBA\xBE\x00\x01")
	tests := []struct {
		name string
		disk *disk
		code luks.Code
		text string
	}{
		{"zeros", newDisk(deviceSize), luks.NotLUKS, "device: no LUKS header (not-luks)"},
		{"no bytes at all", newDisk(0), luks.NotLUKS, "device: no LUKS header (not-luks)"},
		{"one byte", newDisk(1), luks.NotLUKS, "device: no LUKS header (not-luks)"},
		{"a byte less than a header", &disk{data: volume.data[:metadataSize-1]}, luks.NotLUKS, "device: no LUKS header (not-luks)"},
		{"the primary alone", &disk{data: volume.data[:metadataSize]}, luks.DeviceTooSmall, "the header needs 1048576 bytes and the device ends at byte 16384: it was truncated"},
		{"truncated in the keyslots area", &disk{data: volume.data[:dataOffset-1]}, luks.DeviceTooSmall, "ends at byte 1048575: it was truncated"},
		{"truncated, primary torn", &disk{data: append([]byte("x"), volume.data[1:dataOffset-1]...)}, luks.DeviceTooSmall, "it was truncated"},
		{"LUKS1", &disk{data: append([]byte("LUKS\xBA\xBE\x00\x01"), make([]byte, 1<<20)...)}, luks.LUKS1, "cryptsetup convert --type luks2"},
		{"LUKS1 with a secondary left behind", stale, luks.LUKS1, "this is a LUKS1 volume"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, err := luks.Read(tt.disk.untouchable(t))
			if h != nil || !errors.Is(err, tt.code) {
				t.Fatalf("got %v, %v; want %s", h, err, tt.code)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %q, want it to say %q", err, tt.text)
			}
		})
	}
}

// TestExactFit: a device that ends with the keyslots area holds a header.
func TestExactFit(t *testing.T) {
	d, _ := newVolume(t)
	if _, err := luks.Read(&disk{data: d.data[:dataOffset]}); err != nil {
		t.Error(err)
	}
}

// TestReadingWritesNothing runs everything that looks, on a device that fails
// the test when it is written, with both copies good and with damaged ones.
func TestReadingWritesNothing(t *testing.T) {
	for name, damage := range map[string]func(d *disk){
		"good":      func(*disk) {},
		"torn":      func(d *disk) { d.data[atJSON] ^= 1 },
		"stale":     func(d *disk) { setSeq(d, 0, 5, "label") },
		"leftovers": func(d *disk) { d.data[dataOffset-1] = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			d, _ := newVolume(t)
			damage(d)
			d = d.untouchable(t)
			h := mustRead(t, d)
			key := unlock(t, h, "one")
			seal(t, key, "new")
			if _, err := h.WithKey(key.Bytes()); err != nil {
				t.Error(err)
			}
			if _, err := h.KeyslotSum(1); err != nil {
				t.Error(err)
			}
			if _, err := h.Leftovers(); err != nil {
				t.Error(err)
			}
			if err := h.Backup(&strings.Builder{}); err != nil {
				t.Error(err)
			}
			if _, err := luks.PlanRestore(d, h); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestReadError: a device that cannot be read is no device without a header.
func TestReadError(t *testing.T) {
	broken := errors.New("medium error")
	for _, at := range []int64{0, metadataSize} {
		d, _ := newVolume(t)
		d.before = func(op operation) error {
			if op.offset == at {
				return broken
			}
			return nil
		}
		_, err := luks.Read(d)
		if !errors.Is(err, broken) || errors.Is(err, luks.NotLUKS) {
			t.Errorf("read fails at %d: got %v", at, err)
		}
		if want := fmt.Sprintf("at byte %d", at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

func TestHeaderView(t *testing.T) {
	_, h := newVolume(t)
	if h.UUID() != "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b" || h.Subsystem() != "subsystem" || h.SeqID() != 1 {
		t.Errorf("got %q, %q, %d", h.UUID(), h.Subsystem(), h.SeqID())
	}
	k, ok := h.Keyslot(1)
	if !ok {
		t.Fatal("no keyslot 1")
	}
	want := luks.Area{Type: "raw", Offset: 2*metadataSize + areaBytes, Size: areaBytes, Encryption: "aes-xts-plain64", KeySize: 64}
	if diff := cmp.Diff(want, k.Area); diff != "" {
		t.Errorf("area of slot 1 (-want +got):\n%s", diff)
	}
	if k.Type != "luks2" || k.KeySize != 64 || k.AF != (luks.AF{Type: "luks1", Hash: "sha256"}) || k.KDF.Cost != cheap || len(k.KDF.Salt) != 32 {
		t.Errorf("keyslot 1 is %+v", k)
	}
	if _, ok := h.Keyslot(2); ok {
		t.Error("keyslot 2 is there")
	}
	token, ok := h.Token(1)
	if !ok || token.Type != "test" || string(token.JSON) != `{"type":"test","keyslots":["1"],"note":"of slot 1"}` {
		t.Errorf("token 1 is %s", token.JSON)
	}
	if _, ok := h.Token(0); ok || len(h.Tokens()) != 1 {
		t.Error("token 0 is there")
	}
	d := h.Digests()
	if len(d) != 1 || d[0].Hash != "sha256" || len(d[0].Digest) != 32 || d[0].Iterations != 1000 {
		t.Errorf("digests %+v", d)
	}
	segment := []luks.Segment{{Type: "crypt", Offset: dataOffset, Encryption: "aes-xts-plain64", SectorSize: 4096}}
	if diff := cmp.Diff(segment, h.Segments()); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
	if len(h.Flags()) != 0 || len(h.Requirements()) != 0 {
		t.Errorf("flags %v, requirements %v", h.Flags(), h.Requirements())
	}
}
