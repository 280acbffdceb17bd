package luks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/probe/marker"
	"github.com/cryptctl/cryptctl/secret"
)

func TestFormatDefaults(t *testing.T) {
	d := newDisk(17 << 20)
	h := format(t, d, luks.FormatOptions{}, "word")
	sound(t, d)
	if h.MetadataSize() != luks.DefaultMetadataSize || h.SeqID() != 1 || h.Label() != "" || h.Subsystem() != "" {
		t.Errorf("metadata %d, sequence %d, label %q, subsystem %q", h.MetadataSize(), h.SeqID(), h.Label(), h.Subsystem())
	}
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(h.UUID()) {
		t.Errorf("UUID %q", h.UUID())
	}
	want := []luks.Segment{{Type: "crypt", Offset: 16 << 20, Encryption: "aes-xts-plain64", SectorSize: 4096}}
	if diff := cmp.Diff(want, h.Segments()); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
	if low, size := h.KeyslotsArea(); low != 128<<10 || low+size != 16<<20 {
		t.Errorf("keyslots area %d, %d", low, size)
	}
	if k := h.Keyslots()[0]; k.ID != 0 || k.Priority != luks.PriorityNormal || k.KeySize != luks.DefaultVolumeKeySize {
		t.Errorf("keyslot %+v", k)
	}
	if other := format(t, newDisk(17<<20), luks.FormatOptions{}, "word"); other.UUID() == h.UUID() {
		t.Error("two volumes have one UUID")
	}
}

func TestFormatOptions(t *testing.T) {
	small := luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}
	with := func(change func(o *luks.FormatOptions)) luks.FormatOptions {
		o := small
		change(&o)
		return o
	}
	tests := []struct {
		name    string
		size    int64
		keySize int
		opts    luks.FormatOptions
		want    luks.Segment
		area    int64 // end of the keyslots area
	}{
		{"512-byte sectors for an odd length", deviceSize + 512, 64, small, luks.Segment{Offset: dataOffset, SectorSize: 512}, dataOffset},
		{"sectors of 2048", deviceSize, 64, with(func(o *luks.FormatOptions) { o.SectorSize = 2048 }), luks.Segment{Offset: dataOffset, SectorSize: 2048}, dataOffset},
		{"AES-128", deviceSize, 32, small, luks.Segment{Offset: dataOffset, SectorSize: 4096}, dataOffset},
		{"Adiantum", deviceSize, 32, with(func(o *luks.FormatOptions) { o.Cipher = "xchacha12,aes-adiantum-plain64" }), luks.Segment{Offset: dataOffset, SectorSize: 4096, Encryption: "xchacha12,aes-adiantum-plain64"}, dataOffset},
		{"Adiantum with 20 rounds", deviceSize, 32, with(func(o *luks.FormatOptions) { o.Cipher = "xchacha20,aes-adiantum-plain64" }), luks.Segment{Offset: dataOffset, SectorSize: 4096, Encryption: "xchacha20,aes-adiantum-plain64"}, dataOffset},
		{"one sector of data", dataOffset + 4096, 64, small, luks.Segment{Offset: dataOffset, SectorSize: 4096}, dataOffset},
		{"room for one slot", deviceSize, 64, with(func(o *luks.FormatOptions) { o.DataOffset = 2*metadataSize + areaBytes }), luks.Segment{Offset: 2*metadataSize + areaBytes, SectorSize: 4096}, 2*metadataSize + areaBytes},
		{"keyslots area at its cap", 140 << 20, 64, with(func(o *luks.FormatOptions) { o.DataOffset = 136 << 20 }), luks.Segment{Offset: 136 << 20, SectorSize: 4096}, 2*metadataSize + 128<<20},
		{"detached", dataOffset, 64, luks.FormatOptions{MetadataSize: metadataSize, Detached: true}, luks.Segment{SectorSize: 4096}, dataOffset},
		{"detached, of odd length", dataOffset + 1000, 64, luks.FormatOptions{MetadataSize: metadataSize, Detached: true}, luks.Segment{SectorSize: 4096}, dataOffset},
		{"detached, large", 20 << 20, 64, luks.FormatOptions{Detached: true}, luks.Segment{SectorSize: 4096}, 16 << 20},
		{"detached, odd data", dataOffset, 64, luks.FormatOptions{MetadataSize: metadataSize, Detached: true, DataSize: 1<<20 + 512}, luks.Segment{SectorSize: 512}, dataOffset},
		{"detached, data further on", dataOffset, 64, luks.FormatOptions{MetadataSize: metadataSize, Detached: true, DataOffset: 8 << 20}, luks.Segment{Offset: 8 << 20, SectorSize: 4096}, dataOffset},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, key := newDisk(tt.size), luks.NewVolumeKey(tt.keySize)
			defer key.Wipe()
			if _, err := luks.Format(d, key, tt.opts, luks.AddKeyslot(0, seal(t, key, "word"), nil)); err != nil {
				t.Fatal(err)
			}
			h := sound(t, d)
			want := tt.want
			want.Type = "crypt"
			if want.Encryption == "" {
				want.Encryption = "aes-xts-plain64"
			}
			if diff := cmp.Diff([]luks.Segment{want}, h.Segments()); diff != "" {
				t.Errorf("segments (-want +got):\n%s", diff)
			}
			if low, size := h.KeyslotsArea(); low+size != tt.area {
				t.Errorf("keyslots area ends at %d, want %d", low+size, tt.area)
			}
			if got := unlock(t, h, "word"); !got.Bytes().Equal(key.Bytes()) {
				t.Error("another key")
			}
		})
	}
}

func TestFormatRefused(t *testing.T) {
	base := luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}
	tests := []struct {
		name    string
		size    int64
		keySize int
		change  func(o *luks.FormatOptions)
		text    string
	}{
		{"UUID of no form", deviceSize, 64, func(o *luks.FormatOptions) { o.UUID = "4e9f7a52" }, `UUID "4e9f7a52" is not of the form 8-4-4-4-12`},
		{"UUID with a g", deviceSize, 64, func(o *luks.FormatOptions) { o.UUID = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3g" }, "is not of the form"},
		{"UUID too long", deviceSize, 64, func(o *luks.FormatOptions) { o.UUID = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b0" }, "is not of the form"},
		{"label too long", deviceSize, 64, func(o *luks.FormatOptions) { o.Label = strings.Repeat("l", 48) }, "label and subsystem may have 47 bytes, they have 48 and 0"},
		{"subsystem too long", deviceSize, 64, func(o *luks.FormatOptions) { o.Subsystem = strings.Repeat("s", 50) }, "they have 0 and 50"},
		{"NUL in the label", deviceSize, 64, func(o *luks.FormatOptions) { o.Label = "a\x00b" }, "must not contain a NUL byte"},
		{"NUL in the subsystem", deviceSize, 64, func(o *luks.FormatOptions) { o.Subsystem = "\x00" }, "must not contain a NUL byte"},
		{"null cipher", deviceSize, 64, func(o *luks.FormatOptions) { o.Cipher = "cipher_null-ecb" }, `cipher "cipher_null-ecb" is not one of aes-xts-plain64`},
		{"capi cipher", deviceSize, 64, func(o *luks.FormatOptions) { o.Cipher = "capi:xts(aes)-plain64" }, "is not one of"},
		{"key too short", deviceSize, 16, func(*luks.FormatOptions) {}, "a volume key of 128 bits does not fit aes-xts-plain64"},
		{"key of 0 bits", deviceSize, 0, func(*luks.FormatOptions) {}, "a volume key of 0 bits does not fit"},
		{"key too long for Adiantum", deviceSize, 64, func(o *luks.FormatOptions) { o.Cipher = "xchacha12,aes-adiantum-plain64" }, "a volume key of 512 bits does not fit xchacha12"},
		{"sector size 8192", deviceSize, 64, func(o *luks.FormatOptions) { o.SectorSize = 8192 }, "sector size 8192 is not 512, 1024, 2048 or 4096"},
		{"sector size negative", deviceSize, 64, func(o *luks.FormatOptions) { o.SectorSize = -512 }, "sector size -512"},
		{"metadata size 8 KiB", deviceSize, 64, func(o *luks.FormatOptions) { o.MetadataSize = 8 << 10 }, "metadata size 8192 is not a power of two from 16 KiB to 4 MiB"},
		{"metadata size 8 MiB", 64 << 20, 64, func(o *luks.FormatOptions) { o.MetadataSize, o.DataOffset = 8<<20, 32<<20 }, "metadata size 8388608"},
		{"metadata size 20 KiB", deviceSize, 64, func(o *luks.FormatOptions) { o.MetadataSize = 20 << 10 }, "metadata size 20480"},
		{"metadata size negative", deviceSize, 64, func(o *luks.FormatOptions) { o.MetadataSize = -16384 }, "metadata size -16384"},
		{"data offset odd", deviceSize, 64, func(o *luks.FormatOptions) { o.DataOffset += 512 }, "data offset 1049088 is not a multiple of 4096"},
		{"data offset negative", deviceSize, 64, func(o *luks.FormatOptions) { o.DataOffset = -4096 }, "data offset -4096"},
		{"data offset in the header", deviceSize, 64, func(o *luks.FormatOptions) { o.DataOffset = 2*metadataSize + areaBytes - 4096 }, "leaves no room for the header, which needs 290816 bytes for one keyslot"},
		{"device too small", dataOffset, 64, func(*luks.FormatOptions) {}, "the device of 1048576 bytes is too small: the header takes 1048576, and the data needs at least one sector of 4096"},
		{"device too small for a sector", dataOffset + 2048, 64, func(o *luks.FormatOptions) { o.SectorSize = 4096 }, "too small"},
		{"device of no bytes", 0, 64, func(o *luks.FormatOptions) { o.DataOffset = 0 }, "the device of 0 bytes is too small"},
		{"sector size that does not divide", deviceSize + 512, 64, func(o *luks.FormatOptions) { o.SectorSize = 4096 }, "the data of 66048 bytes is not a multiple of the sector size 4096"},
		{"detached, too small", 2*metadataSize + areaBytes - 1, 64, func(o *luks.FormatOptions) { o.Detached, o.DataOffset = true, 0 }, "the header device of 290815 bytes is too small: 290816 are needed for one keyslot"},
		{"detached, data device too small", dataOffset, 64, func(o *luks.FormatOptions) { o.Detached, o.DataOffset, o.DataSize = true, 2<<20, 1<<20 }, "the data device of 1048576 bytes is too small: the data begins at byte 2097152"},
		{"detached, data that does not divide", dataOffset, 64, func(o *luks.FormatOptions) { o.Detached, o.DataOffset, o.DataSize, o.SectorSize = true, 0, 1000, 512 }, "the data of 1000 bytes is not a multiple"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, opts := newDisk(tt.size).untouchable(t), base
			tt.change(&opts)
			key := luks.NewVolumeKey(tt.keySize)
			defer key.Wipe()
			h, err := luks.Format(d, key, opts)
			if h != nil || err == nil || !strings.HasPrefix(err.Error(), "format: ") || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, %v; want %q", h, err, tt.text)
			}
		})
	}
}

// TestFormatChanges: what goes wrong with keyslots and tokens is found before a
// byte is written.
func TestFormatChanges(t *testing.T) {
	key, other := luks.NewVolumeKey(64), luks.NewVolumeKey(64)
	defer key.Wipe()
	defer other.Wipe()
	sealed, foreign := seal(t, key, "word"), seal(t, other, "word")
	add := luks.AddKeyslot(luks.AnySlot, sealed, nil)
	for name, tt := range map[string]struct {
		changes []luks.Change
		err     error
		text    string
	}{
		"no keyslot":               {nil, nil, "at least one keyslot is needed"},
		"a keyslot removed again":  {[]luks.Change{add, luks.RemoveKeyslot(0)}, nil, "at least one keyslot is needed"},
		"a key of another volume":  {[]luks.Change{luks.AddKeyslot(0, foreign, nil)}, luks.ErrConflict, "keyslot 0: the volume key"},
		"one id twice":             {[]luks.Change{add, luks.AddKeyslot(0, sealed, nil)}, luks.ErrSlotInUse, "keyslot 0"},
		"more areas than there is": {[]luks.Change{add, add, add, add}, nil, "no room in the keyslots area: 258048 bytes needed, 241664 there"},
		"a token of no slot":       {[]luks.Change{add, luks.SetToken(0, json.RawMessage(`{"type":"x","keyslots":["1"]}`))}, luks.BadReference, "invalid header"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDisk(deviceSize).untouchable(t)
			_, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, tt.changes...)
			if err == nil || !strings.HasPrefix(err.Error(), "format: ") || !strings.Contains(err.Error(), tt.text) || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v %q", err, tt.err, tt.text)
			}
		})
	}
}

// TestFormatOnlyEmpty: whoever wants an empty device is asked again under the
// lock, and a volume is never nothing.
func TestFormatOnlyEmpty(t *testing.T) {
	key := luks.NewVolumeKey(64)
	defer key.Wipe()
	sealed, blank := seal(t, key, "word"), newDisk(deviceSize)
	notEmpty := errors.New("a file system")
	run := func(d *disk, empty func(luks.Device) error) error {
		locked := false
		d.locks = func(exclusive bool) (func(), error) {
			locked = exclusive
			return func() { locked = false }, nil
		}
		_, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset, Empty: func(dev luks.Device) error {
			if !locked || dev != luks.Device(d) {
				t.Error("asked without the lock, or about another device")
			}
			return empty(dev)
		}}, luks.AddKeyslot(0, sealed, nil))
		return err
	}
	yes := func(luks.Device) error { return nil }
	if err := run(blank.untouchable(t), func(luks.Device) error { return notEmpty }); !errors.Is(err, notEmpty) {
		t.Errorf("a device that is not empty: %v", err)
	}
	d := goldenDisk(t)
	clear(d.data[:metadataSize]) // the secondary is there
	if err := run(d.untouchable(t), yes); !errors.Is(err, luks.ErrNotEmpty) || !strings.Contains(err.Error(), "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b") {
		t.Errorf("a device with a volume: %v", err)
	}
	if err := run(blank, yes); err != nil || opens(t, sound(t, blank), "word") != "word:0" {
		t.Errorf("an empty device: %v", err)
	}
}

// TestFormatOverData: what was in the header's place is gone, what lies in the
// data is not touched.
func TestFormatOverData(t *testing.T) {
	d := newDisk(deviceSize)
	for i := range d.data {
		d.data[i] = byte(i*7 + i>>8)
	}
	was := bytes.Clone(d.data)
	format(t, d, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, "word")
	sound(t, d)
	if !bytes.Equal(d.data[dataOffset:], was[dataOffset:]) {
		t.Error("the data was touched")
	}
}

// TestFormatInterrupted fails each write and sync of a format once: until the
// header counts, the marker says that a format was interrupted.
func TestFormatInterrupted(t *testing.T) {
	key := luks.NewVolumeKey(64)
	defer key.Wipe()
	sealed := seal(t, key, "word")
	run := func(d *disk) (*luks.Header, error) {
		return luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(0, sealed, nil))
	}
	total := 0
	d := newDisk(deviceSize)
	d.data[dataOffset-1] = 1 // something to wipe
	clean := d.clone()
	d.before = func(op operation) error {
		if op.kind != "read" {
			total++
		}
		return nil
	}
	if _, err := run(d); err != nil {
		t.Fatal(err)
	}
	if total < 9 {
		t.Fatalf("only %d operations", total)
	}
	broken := errors.New("broken")
	for fail := range total {
		d, n := clean.clone(), -1
		d.before = func(op operation) error {
			if op.kind != "read" {
				if n++; n >= fail {
					return broken
				}
			}
			return nil
		}
		_, err := run(d)
		if !errors.Is(err, broken) {
			t.Errorf("operation %d of %d fails: got %v", fail, total, err)
		}
		d.before = nil
		h, readErr := luks.Read(d)
		m, marked := marker.Decode(d.data)
		switch {
		case marked && m.Reach == dataOffset:
		case fail == 0 && errors.Is(readErr, luks.NotLUKS):
		case readErr == nil && opens(t, h, "word") == "word:0":
		default:
			t.Errorf("operation %d of %d fails: neither a marker nor a volume: %v", fail, total, readErr)
		}
		if _, err := run(d); err != nil || opens(t, sound(t, d), "word") != "word:0" {
			t.Errorf("operation %d of %d fails: formatting again: %v", fail, total, err)
		}
	}
}

func TestVolumeKeyFrom(t *testing.T) {
	raw := secret.Copy(stream("volume key", 64))
	key, d := luks.VolumeKeyFrom(raw), newDisk(deviceSize)
	if _, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(0, seal(t, key, "word"), nil)); err != nil {
		t.Fatal(err)
	}
	if got := unlock(t, sound(t, d), "word"); !bytes.Equal(got.Bytes().Bytes(), stream("volume key", 64)) || key.Slot() != -1 {
		t.Error("another key")
	}
	key.Wipe()
	if raw.Len() != 0 {
		t.Error("the key that was taken over is not wiped")
	}
	var none *luks.VolumeKey
	none.Wipe() // a nil key is no key
}

func TestSealRefused(t *testing.T) {
	key := luks.NewVolumeKey(64)
	defer key.Wipe()
	for name, tt := range map[string]struct {
		word string
		cost kdf.Cost
		err  error
		text string
	}{
		"empty passphrase": {"", cheap, nil, "an empty passphrase protects nothing"},
		"unknown kind":     {"word", kdf.Cost{Kind: "scrypt"}, kdf.ErrUnsupported, `key derivation "scrypt"`},
		"no kind":          {"word", kdf.Cost{}, kdf.ErrUnsupported, "seal the volume key"},
		"too costly":       {"word", kdf.Cost{Kind: kdf.Argon2id, Time: 4, MemoryKiB: 8 << 20, CPUs: 1}, kdf.ErrTooCostly, "8192 MiB"},
		"no lanes":         {"word", kdf.Cost{Kind: kdf.Argon2id, Time: 4, MemoryKiB: 64}, nil, "0 lanes"},
	} {
		sealed, err := key.Seal(t.Context(), phrase(tt.word), tt.cost)
		if sealed != nil || err == nil || !strings.Contains(err.Error(), tt.text) || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, %v", name, sealed, err)
		}
	}
	if s := seal(t, key, "word"); s.Slot() != luks.AnySlot {
		t.Errorf("slot %d before it was committed", s.Slot())
	}
}

// TestNothingSecretIsPrinted: keys end in reports and logs by accident.
func TestNothingSecretIsPrinted(t *testing.T) {
	key := luks.VolumeKeyFrom(secret.Copy([]byte(strings.Repeat("SECRETKEY", 8)[:64])))
	defer key.Wipe()
	for _, text := range []string{fmt.Sprint(key), fmt.Sprintf("%+v", key), fmt.Sprintf("%+v", seal(t, key, "word"))} {
		if strings.Contains(text, "SECRET") || strings.Contains(text, fmt.Sprintf("%x", "SECRET")) || strings.Contains(text, "83 69 67 82") {
			t.Errorf("printed as %s", text)
		}
	}
}
