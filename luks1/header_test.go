package luks1_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks1"
)

func TestRead(t *testing.T) {
	for _, size := range []int{32, 64} {
		d, _ := newVolume(t, size)
		h, err := luks1.Read(d)
		if err != nil {
			t.Fatal(err)
		}
		first, third, payload := layout(size)
		type facts struct {
			UUID, Cipher, Hash string
			KeySize            int
			Payload            int64
			Slots              []luks1.Slot
		}
		want := facts{uuid, "aes-xts-plain64", "sha256", size, int64(payload) * 512, []luks1.Slot{
			{0, iterations, int64(first) * 512, int64(size) * 4000},
			{2, iterations, int64(third) * 512, int64(size) * 4000},
		}}
		got := facts{h.UUID(), h.Cipher(), h.Hash(), h.KeySize(), h.PayloadOffset(), h.Slots()}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("want (-), got (+):\n%s", diff)
		}
		if r := h.Trust(kdf.Limits{}); len(r) > 0 {
			t.Errorf("refused: %v", r)
		}
		if _, err := luks.Read(d); !errors.Is(err, luks.LUKS1) {
			t.Errorf("package luks reads it with %v", err)
		}
	}
}

// fault is a header that is not, or not wholly, used.
type fault struct {
	name  string
	spoil func(d *disk) *disk
	level luks.Level
	code  luks.Code
	says  string
}

func put(at int, n uint32) func(*disk) *disk {
	return func(d *disk) *disk { return d.with(map[int]uint32{at: n}) }
}

func text(at int, s string) func(*disk) *disk {
	return func(d *disk) *disk { return d.text(at, 32, s) }
}

func cut(size int64) func(*disk) *disk {
	return func(d *disk) *disk { d.size = size; return d }
}

// faults are the seeds of the fuzz target too. Volumes have keys of 64 bytes.
func faults() []fault {
	first, third, payload := layout(64)
	slot := func(id, field int) int { return atSlots + id*slotBytes + field }
	return []fault{
		{"no magic", put(0, 0), luks.Invalid, luks.NotLUKS, "no LUKS magic"},
		{"zeros", func(d *disk) *disk { d.data = nil; return d }, luks.Invalid, luks.NotLUKS, "no LUKS magic"},
		{"591 bytes", cut(591), luks.Invalid, luks.NotLUKS, "too small"},
		{"LUKS2", put(atVersion-2, 0xbabe0002), luks.Invalid, luks.BadVersion, "version 2"},
		{"cipher without its NUL", text(atCipher, strings.Repeat("a", 32)), luks.Invalid, luks.BadText, "cipher-name"},
		{"no hash", text(atHash, ""), luks.Invalid, luks.BadText, "hash-spec"},
		{"mode of two words", text(atMode, "xts-plain64 1"), luks.Invalid, luks.BadText, "cipher-mode"},
		{"UUID of control characters", text(atUUID, "\x1b[2J"), luks.Invalid, luks.BadText, `uuid: "\x1b[2J`},
		{"key of 0 bytes", put(atKeyBytes, 0), luks.Invalid, luks.BadNumber, "0, must be 1 to 256"},
		{"key of 4 GiB", put(atKeyBytes, 1<<32-1), luks.Invalid, luks.BadNumber, "4294967295, must be"},
		{"key whose material wraps to 0", put(atKeyBytes, 1<<31), luks.Invalid, luks.BadNumber, "2147483648"},
		{"slot neither active nor free", put(slot(5, 0), 1), luks.Invalid, luks.BadStructure, "slot 5: is marked 0x1"},
		{"one stripe", put(slot(2, inLen), 1), luks.Invalid, luks.BadStructure, "slot 2: has 1 stripes"},
		{"2^32-1 stripes", put(slot(0, inLen), 1<<32-1), luks.Invalid, luks.BadStructure, "slot 0: has 4294967295 stripes"},
		{"material in the header", put(slot(0, inOffset), 1), luks.Invalid, luks.BadAreas, "at byte 512 lies in the header"},
		{"material in the data", put(slot(2, inOffset), payload-1), luks.Invalid, luks.BadAreas, "room before the data"},
		{"material beyond everything", put(slot(2, inOffset), 1<<32-1), luks.Invalid, luks.BadAreas, "at byte 2199023255040 does not lie within"},
		{"materials that overlap", put(slot(2, inOffset), first+1), luks.Invalid, luks.BadAreas, "slot 2: its key material overlaps that of slot 0"},
		{"materials at one place", put(slot(0, inOffset), third), luks.Invalid, luks.BadAreas, "overlaps"},
		{"device cut in the last material", cut(int64(third)*512 + 1), luks.Invalid, luks.BadAreas, "the device, which ends at byte"},

		{"null cipher", text(atCipher, "cipher_null"), luks.Untrusted, luks.NullCipherSegment, "in clear"},
		{"CBC", text(atMode, "cbc-essiv:sha256"), luks.Untrusted, luks.SegmentCipher, `"aes-cbc-essiv:sha256" of a LUKS1 volume is not opened here`},
		{"another cipher", text(atCipher, "twofish"), luks.Untrusted, luks.SegmentCipher, `"twofish-xts-plain64"`},
		{"key of 16 bytes", put(atKeyBytes, 16), luks.Untrusted, luks.KeyslotKeySize, "16 bytes"},
		{"key of 48 bytes", put(atKeyBytes, 48), luks.Untrusted, luks.KeyslotKeySize, "48 bytes"},
		{"unknown hash", text(atHash, "whirlpool"), luks.Untrusted, luks.DigestType, `"whirlpool"`},
		{"digest of 0 iterations", put(atDigestCount, 0), luks.Untrusted, luks.DigestCost, "0 iterations"},
		{"digest of 2^32-1 iterations", put(atDigestCount, 1<<32-1), luks.Untrusted, luks.DigestCost, "more than the limit of 4194304"},

		{"slot of 0 iterations", put(slot(0, inIterations), 0), luks.SlotOnly, luks.KDFParams, "slot 0: pbkdf2 with 0 iterations"},
		{"slot of 2^32-1 iterations", put(slot(0, inIterations), 1<<32-1), luks.SlotOnly, luks.KDFCost, "slot 0: pbkdf2 with 4294967295 iterations: more than the limit"},
	}
}

// TestRefused: what is wrong is named, and no part of it is used.
func TestRefused(t *testing.T) {
	golden, _ := newVolume(t, 64)
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			h, err := luks1.Read(f.spoil(golden.with(nil)))
			if f.level == luks.Invalid {
				refused(t, f, err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			all := h.Trust(kdf.Limits{})
			if len(all) != 1 {
				t.Fatalf("refusals %v, want one", all)
			}
			refused(t, f, all[0])
			_, err = h.Unlock(t.Context(), phrase("zero"), kdf.Limits{})
			if !errors.Is(err, f.code) {
				t.Errorf("slot 0 is unlocked with %v", err)
			}
			key, err := h.Unlock(t.Context(), phrase("two"), kdf.Limits{})
			if opens := err == nil && key.Slot() == 2; opens != (f.level == luks.SlotOnly) {
				t.Errorf("slot 2 is unlocked with %v", err)
			}
			key.Wipe()
		})
	}
}

func refused(t *testing.T, f fault, err error) {
	t.Helper()
	var r *luks.Refusal
	if !errors.As(err, &r) || r.Level != f.level || r.Code != f.code || !strings.Contains(r.Error(), f.says) {
		t.Errorf("refused with %v, want %s %s: %s", err, f.level, f.code, f.says)
	}
}
