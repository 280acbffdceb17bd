package meta_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/meta"
)

// found is an image and what Read makes of it.
type found struct {
	name   string
	image  []byte
	want   content
	damage []string // a part of each sentence of Damage
	refuse string   // parts of the DamageError, with | between them
}

// garbage is no META, and the same in every run.
func garbage(n int) []byte {
	p := make([]byte, n)
	x := uint32(1)
	for i := range p {
		x = x*1664525 + 1013904223
		p[i] = byte(x >> 24)
	}
	return p
}

// raw is a framed copy with these bytes where the records begin.
func raw(records ...uint32) []byte {
	p := make([]byte, 4, copyLength)
	for _, r := range records {
		p = binary.BigEndian.AppendUint32(p, r)
	}
	return frame(p[:copyLength])
}

// atEnd is a framed copy whose one large record leaves n bytes, which are tail.
func atEnd(n int, tail string) []byte {
	p := copyOf(entry{1, strings.Repeat("x", recordsEnd-4-8-n)})
	copy(p[recordsEnd-n:recordsEnd], tail)
	return frame(p)
}

// torn is a copy whose first n sectors are those of another one.
func torn(of, by []byte, n int) []byte {
	return append(bytes.Clone(by[:n*512]), of[n*512:]...)
}

func founds() []found {
	a, b := copyOf(entry{6, "old"}, entry{9, "null"}), copyOf(entry{6, "new"})
	old, fresh := content{6: "old", 9: "null"}, content{6: "new"}
	legacy := legacyOf(entry{6, "legacy"}, entry{7, ""}, entry{2, "two"})
	both := func(p []byte) []byte { return imageOf(p, p, nil) }
	large := content{1: strings.Repeat("x", recordsEnd-4-8)}
	leaving := func(n int) content { return content{1: strings.Repeat("x", recordsEnd-4-8-n)} }
	patched := func(p []byte, at int, s string) []byte {
		p = bytes.Clone(p)
		copy(p[at:], s)
		return p
	}
	wrongSum := patched(legacy, 4, "\x00")
	nearlyFull := legacyOf(entry{6, strings.Repeat("x", 255)}, entry{7, strings.Repeat("y", 239)})
	full := legacyOf(entry{6, strings.Repeat("x", 255)}, entry{7, strings.Repeat("y", 241)})

	return []found{
		{name: "zeros", image: imageOf(nil, nil, nil), want: content{}},
		{name: "no records", image: twice(), want: content{}},
		{name: "two records", image: both(a), want: old},
		{name: "an empty value", image: twice(entry{15, ""}), want: content{15: ""}},
		{name: "all tags", image: twice(entry{255, "last"}, entry{1, "first"}), want: content{1: "first", 255: "last"}},
		{name: "bytes after the end of the records", image: both(raw(6, 1, 0x78000000, 0, 0xffff0000)), want: content{6: "x"}},
		{name: "a value that fills it", image: both(atEnd(0, "")), want: large},
		{name: "7 bytes left, which are no record", image: both(atEnd(7, "\x00\x00\x00\x02\x00\x00\x00")), want: leaving(7)},
		{name: "8 bytes left, an empty record", image: both(atEnd(8, "\x00\x00\x00\x02\x00\x00\x00\x00")), want: content{1: leaving(8)[1], 2: ""}},

		{name: "copy 1 broken", image: imageOf(broken(b), a, nil), want: old, damage: []string{"copy 1 (at byte 0) is not used: its checksum is wrong"}},
		{name: "copy 2 broken", image: imageOf(a, broken(b), nil), want: old, damage: []string{"copy 2 (at byte 262144) is not used: its checksum is wrong"}},
		{name: "copy 1 zeros", image: imageOf(nil, a, nil), want: old, damage: []string{"copy 1 (at byte 0) is not used: it is all zeros"}},
		{name: "copy 2 zeros", image: imageOf(a, nil, nil), want: old, damage: []string{"copy 2 (at byte 262144) is not used: it is all zeros"}},
		{name: "copy 1 newer", image: imageOf(b, a, nil), want: fresh, damage: []string{"copy 2 (at byte 262144) is good and differs"}},
		{name: "copy 1 torn", image: imageOf(torn(a, b, 1), a, nil), want: old, damage: []string{"copy 1"}},
		{name: "copy 2 torn", image: imageOf(b, torn(a, b, 511), nil), want: fresh, damage: []string{"copy 2"}},
		{name: "copy 1 lacks its first magic", image: imageOf(patched(a, 0, "\x00"), a, nil), want: old, damage: []string{"does not begin with its magic"}},
		{name: "copy 1 lacks its last magic", image: imageOf(patched(a, copyLength-1, "\x00"), a, nil), want: old, damage: []string{"does not end with its magic"}},
		{name: "a first write that was cut off", image: imageOf(torn(a, make([]byte, 512), 1), nil, nil), want: content{}, damage: []string{"the beginning of a first write"}},

		{name: "both broken", image: both(broken(a)), refuse: "both copies|copy 1 (at byte 0): its checksum is wrong|copy 2 (at byte 262144): its checksum is wrong"},
		{name: "both torn", image: imageOf(torn(a, b, 1), torn(b, a, 1), nil), refuse: "copy 1 (at byte 0): its checksum is wrong|copy 2 (at byte 262144): its checksum is wrong"},
		{name: "garbage", image: garbage(meta.Size), refuse: "does not begin|copy 2 (at byte 262144): it does not begin"},
		{name: "ones", image: bytes.Repeat([]byte{0xff}, meta.Size), refuse: "does not begin"},
		{name: "copy 1 broken, copy 2 zeros", image: imageOf(broken(a), nil, nil), refuse: "checksum is wrong|all zeros"},
		{name: "copy 1 zeros, copy 2 broken", image: imageOf(nil, broken(a), nil), refuse: "all zeros|checksum is wrong"},
		{name: "both without their first sector", image: both(torn(a, make([]byte, 512), 1)), refuse: "does not begin"},
		{name: "copy 1 zeros, copy 2 without its first sector", image: imageOf(nil, torn(a, make([]byte, 512), 1), nil), refuse: "all zeros|does not begin"},
		{name: "both broken, with legacy values", image: imageOf(broken(a), broken(a), legacy), refuse: "both copies"},
		{name: "copies swapped with the legacy place", image: append(make([]byte, meta.Size-copyLength), a...), want: content{}, damage: []string{"second legacy sector"}},

		{name: "a size of 2^32-1", image: both(raw(6, 0xffffffff)), refuse: "the record at its byte 4 claims 4294967295 bytes and there are 262096"},
		{name: "a size of 2^32-4, which wraps with its header", image: both(raw(6, 0xfffffffc)), refuse: "claims 4294967292"},
		{name: "a size of 2^32-8", image: both(raw(6, 0xfffffff8)), refuse: "claims 4294967288"},
		{name: "a size of 2^31", image: both(raw(6, 0x80000000)), refuse: "claims 2147483648"},
		{name: "one byte too large", image: both(raw(6, 262097)), refuse: "claims 262097 bytes and there are 262096"},
		{name: "as large as can be", image: both(raw(6, 262096)), want: content{6: strings.Repeat("\x00", 262096)}},
		{name: "8 bytes left, a record of 1", image: both(atEnd(8, "\x00\x00\x00\x02\x00\x00\x00\x01")), refuse: "claims 1 bytes and there are 0"},
		{name: "a tag wider than a byte", image: twice(entry{9, "null"}, entry{0x10a, "x"}), refuse: "the tag 0x10a is wider than a byte"},
		{name: "a tag of 2^32-1", image: twice(entry{0xffffffff, "x"}), refuse: "the tag 0xffffffff is wider"},
		{name: "a tag twice", image: twice(entry{9, "null"}, entry{9, "{}"}), refuse: "the tag StateEncryptionConfig is there twice"},
		{name: "a wide tag in copy 1 only", image: imageOf(copyOf(entry{0x106, "x"}), a, nil), want: old, damage: []string{"the tag 0x106 is wider"}},

		{name: "legacy only", image: imageOf(nil, nil, legacy), want: content{6: "legacy", 7: "", 2: "two"}},
		{name: "legacy hidden in part", image: imageOf(b, b, legacy), want: content{6: "new", 7: "", 2: "two"}},
		{name: "legacy full", image: imageOf(nil, nil, full), want: content{6: strings.Repeat("x", 255), 7: strings.Repeat("y", 241)}},
		{name: "legacy without records", image: imageOf(nil, nil, legacyOf()), want: content{}},
		{name: "legacy with a tag twice", image: imageOf(nil, nil, legacyOf(entry{6, "a"}, entry{6, "b"})), want: content{6: "a"}},
		{name: "legacy, first sector damaged", image: imageOf(a, a, append(wrongSum, legacy...)), want: content{6: "old", 9: "null", 7: "", 2: "two"}, damage: []string{"the first legacy sector (at byte 1047552) is not used: its checksum is wrong"}},
		{name: "legacy, second sector damaged", image: imageOf(a, a, append(bytes.Clone(legacy), wrongSum...)), want: content{6: "old", 9: "null", 7: "", 2: "two"}, damage: []string{"the second legacy sector (at byte 1048064)"}},
		{name: "legacy, first sector zeros", image: imageOf(nil, nil, append(make([]byte, 512), legacy...)), want: content{6: "legacy", 7: "", 2: "two"}},
		{name: "legacy garbage", image: imageOf(a, a, garbage(1024)), want: old, damage: []string{"first legacy", "second legacy"}},
		{name: "legacy lacks its last magic", image: imageOf(a, a, patched(legacy, 511, "\x00")), want: old, damage: []string{"magic", "magic"}},
		{name: "legacy record beyond its end", image: imageOf(a, a, frameLegacy(append(make([]byte, 8, 512), bytes.Repeat([]byte{6, 255}, 252)...)[:512])), want: old, damage: []string{"goes beyond its end", "goes beyond its end"}},
		{name: "legacy record where Talos looks for none", image: imageOf(nil, nil, frameLegacy(patched(nearlyFull, 506, "\x08"))), want: content{6: strings.Repeat("x", 255), 7: strings.Repeat("y", 239)}},
	}
}

// TestRead: what is read, what is said of damage and what is refused; nothing is
// written and little memory is taken.
func TestRead(t *testing.T) {
	for _, test := range founds() {
		t.Run(test.name, func(t *testing.T) {
			d := lukstest.DiskOf(test.image)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			m, err := meta.Read(d)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("allocated %d bytes", n)
			}
			if len(d.Ops()) > 0 {
				t.Errorf("wrote %v", d.Ops())
			}
			if test.refuse != "" {
				refused(t, err, test.refuse)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, contentOf(t, m)); d != "" {
				t.Errorf("values (-want +got):\n%s", d)
			}
			said(t, m.Damage(), test.damage)
		})
	}
}

func refused(t *testing.T, err error, parts string) {
	t.Helper()
	var damage *meta.DamageError
	if !errors.As(err, &damage) {
		t.Fatalf("error %v, want a DamageError", err)
	}
	for part := range strings.SplitSeq(parts, "|") {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error lacks %q: %v", part, err)
		}
	}
}

func said(t *testing.T, got, parts []string) {
	t.Helper()
	if len(got) != len(parts) {
		t.Errorf("damage %q, want %q", got, parts)
		return
	}
	for i := range got {
		if !strings.Contains(got[i], parts[i]) {
			t.Errorf("damage %q lacks %q", got[i], parts[i])
		}
	}
}

// TestSalvage: what still looks like records can be shown, and the error itself
// shows no values.
func TestSalvage(t *testing.T) {
	a := copyOf(entry{9, "a passphrase"}, entry{0x10a, "wide"})
	cut := broken(raw(6, 1, 0x78000000|7>>8, 7<<24|0x00ffffff, 0xff000000))
	_, err := meta.Read(lukstest.DiskOf(imageOf(broken(a), cut, nil)))
	var damage *meta.DamageError
	if !errors.As(err, &damage) {
		t.Fatal(err)
	}
	want := []meta.Record{{Tag: 9, Value: []byte("a passphrase")}, {Tag: 0x10a, Value: []byte("wide")}}
	if d := cmp.Diff(want, damage.Copies[0].Salvage); d != "" {
		t.Errorf("salvage of copy 1 (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]meta.Record{{Tag: 6, Value: []byte("x")}}, damage.Copies[1].Salvage); d != "" {
		t.Errorf("salvage of copy 2 (-want +got):\n%s", d)
	}
	if strings.Contains(err.Error(), "passphrase") {
		t.Errorf("the error shows a value: %v", err)
	}
	_, err = meta.Read(lukstest.DiskOf(garbage(meta.Size)))
	if errors.As(err, &damage); len(damage.Copies[0].Salvage)+len(damage.Copies[1].Salvage) > 0 {
		t.Error("garbage was taken for records")
	}
}

// TestNotMeta: only a device of 1 MiB is META.
func TestNotMeta(t *testing.T) {
	for _, size := range []int64{0, 1, meta.Size - 512, meta.Size + 512, 2 * meta.Size} {
		for name, f := range map[string]func(meta.Device) error{
			"read":   func(d meta.Device) error { _, err := meta.Read(d); return err },
			"repair": func(d meta.Device) error { _, err := meta.Repair(d, meta.RepairOptions{Reset: true}); return err },
		} {
			d := lukstest.NewDisk(size)
			if err := f(d); err == nil || !strings.Contains(err.Error(), "exactly 1048576") || len(d.Ops()) > 0 {
				t.Errorf("%s of %d bytes: %v, wrote %v", name, size, err, d.Ops())
			}
		}
	}
}

// short is a device that ends before it should, or fails.
type short struct {
	*lukstest.Disk
	end int64
	err error
}

func (s short) ReadAt(p []byte, off int64) (int, error) {
	if n := max(0, s.end-off); n < int64(len(p)) {
		s.Disk.ReadAt(p[:n], off)
		return int(n), s.err
	}
	return s.Disk.ReadAt(p, off)
}

func TestReadErrors(t *testing.T) {
	own := errors.New("own")
	for _, end := range []int64{0, 1000, copyLength, 2 * copyLength, meta.Size - 1} {
		for _, fault := range []struct{ give, want error }{{own, own}, {io.EOF, io.ErrUnexpectedEOF}, {nil, io.ErrUnexpectedEOF}} {
			_, err := meta.Read(short{lukstest.DiskOf(twice(entry{6, "x"})), end, fault.give})
			if !errors.Is(err, fault.want) {
				t.Errorf("end at %d: %v, want %v", end, err, fault.want)
			}
		}
	}
}

// TestSection: META in the image of a whole disk.
func TestSection(t *testing.T) {
	disk := lukstest.NewDisk(4 << 20)
	dev, err := luks.Section(disk, 2<<20, meta.Size)
	if err != nil {
		t.Fatal(err)
	}
	change(t, dev, content{15: "a UUID"})
	sound(t, dev, content{15: "a UUID"})
	if image := disk.Bytes(); !bytes.Equal(image[2<<20:][:copyLength], copyOf(entry{15, "a UUID"})) || bytes.Count(image[:2<<20], []byte{0}) != 2<<20 {
		t.Error("META is not where it should be, or not alone")
	}
}

func TestTags(t *testing.T) {
	names := content{
		6: "Upgrade", 7: "StagedUpgradeImageRef", 8: "StagedUpgradeInstallOptions", 9: "StateEncryptionConfig",
		10: "MetalNetworkPlatformConfig", 11: "DownloadURLCode", 12: "UserReserved1", 13: "UserReserved2",
		14: "UserReserved3", 15: "UUIDOverride", 16: "UniqueMachineToken", 17: "DiskImageBootloader",
		18: "StagedWipeSelectors", 5: "0x05", 19: "0x13", 0: "0x00", 255: "0xff",
	}
	for tag, name := range names {
		if tag.String() != name {
			t.Errorf("%d is %s, want %s", tag, tag, name)
		}
		if tag == 0 {
			continue
		}
		if got, err := meta.ParseTag(name); got != tag || err != nil {
			t.Errorf("%s is %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]meta.Tag{"9": 9, "0x9": 9, "0X0F": 15, "uuidoverride": 15, "255": 255, "017": 17} {
		if got, err := meta.ParseTag(text); got != want || err != nil {
			t.Errorf("%s is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "0x", "0x0", "256", "0x100", "-1", "+9", "9 ", "Upgrades", strings.Repeat("9", 1000)} {
		if got, err := meta.ParseTag(text); err == nil || len(err.Error()) > 200 {
			t.Errorf("%.20q is %d, %.300v", text, got, err)
		}
	}
}
