package luks1_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks1"
	"github.com/cryptctl/cryptctl/secret"
)

func read(t testing.TB, d *disk) *luks1.Header {
	t.Helper()
	h, err := luks1.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestUnlock(t *testing.T) {
	for _, size := range []int{32, 64} {
		d, want := newVolume(t, size)
		h := read(t, d)
		for word, slot := range map[string]int{"zero": 0, "two": 2} {
			for _, slots := range [][]int{nil, {slot}} {
				key, err := h.Unlock(t.Context(), phrase(word), kdf.Limits{}, slots...)
				if err != nil {
					t.Fatalf("%q, slots %v: %v", word, slots, err)
				}
				if key.Slot() != slot || !bytes.Equal(key.Bytes().Bytes(), want) {
					t.Errorf("%q: slot %d gives %x, want %d and %x", word, key.Slot(), key.Bytes().Bytes(), slot, want)
				}
				key.Wipe()
			}
		}
	}
}

// TestVector opens what cryptsetup opens; see testdata/README.
func TestVector(t *testing.T) {
	header, err := os.ReadFile("testdata/header.bin")
	if err != nil {
		t.Fatal(err)
	}
	d := &disk{t: t, data: append(header, make([]byte, 397312-len(header))...), size: 3 << 20}
	for i := range uint32(4000) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte("material"), i))
		d.data = append(d.data, sum[:]...)
	}
	h := read(t, d)
	key, err := h.Unlock(t.Context(), phrase("sesame one"), kdf.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer key.Wipe()
	const want = "4b99068bdd87e676af08afe8556fda1102461384e54dbc6012d988cb90b1458c"
	if got := fmt.Sprintf("%x", key.Bytes().Bytes()); got != want || key.Slot() != 3 {
		t.Errorf("slot %d gives %s, want 3 and %s", key.Slot(), got, want)
	}
	if _, err := h.Unlock(t.Context(), phrase("sesame two"), kdf.Limits{}); !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}

	// A key is good for the volume that it is of.
	other, _ := newVolume(t, 32)
	if !h.Confirmed(key) || read(t, other).Confirmed(key) || h.Confirmed(nil) {
		t.Error("the key counts as confirmed by another header, or not by its own")
	}
	key.Wipe()
	if h.Confirmed(key) {
		t.Error("a key that was wiped counts as confirmed")
	}
}

func TestUnlockFails(t *testing.T) {
	golden, _ := newVolume(t, 64)
	first, _, _ := layout(64)
	cancelled, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	flip := func(at int) *disk {
		d := golden.with(nil)
		d.data[at] ^= 1
		return d
	}
	for _, c := range []struct {
		name   string
		disk   *disk
		ctx    context.Context
		word   string
		slots  []int
		limits kdf.Limits
		want   error
		says   string
	}{
		{name: "wrong passphrase", word: "three", want: luks.ErrWrongPassphrase, says: "(tried 0, 2)"},
		{name: "another slot", word: "zero", slots: []int{2}, want: luks.ErrWrongPassphrase, says: "(tried 2)"},
		{name: "free slot", word: "zero", slots: []int{1}, want: luks.ErrNoUsableSlot, says: "slot 1 is not in use"},
		{name: "no such slot", word: "zero", slots: []int{8, -1}, want: luks.ErrNoUsableSlot, says: "slot 8 is not in use"},
		{name: "limit", word: "zero", limits: kdf.Limits{MaxIterations: iterations - 1}, want: luks.KDFCost, says: "1000 iterations: more than the limit of 999"},
		{name: "cancelled", ctx: cancelled, word: "zero", want: cause, says: "not started"},
		{name: "material off", disk: flip(int(first)*512 + 77777), word: "zero", want: luks.ErrWrongPassphrase, says: "tried"},
		{name: "digest off", disk: flip(atDigest + 19), word: "zero", want: luks.ErrWrongPassphrase, says: "tried"},
		{name: "no slots", disk: golden.with(map[int]uint32{atSlots: disabled, atSlots + 2*slotBytes: disabled}), word: "zero", want: luks.ErrNoUsableSlot, says: "the volume has none"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, ctx := c.disk, c.ctx
			if d == nil {
				d = golden
			}
			if ctx == nil {
				ctx = t.Context()
			}
			key, err := read(t, d).Unlock(ctx, phrase(c.word), c.limits, c.slots...)
			if key != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v and %v, want %v: %s", key, err, c.want, c.says)
			}
		})
	}
}

// TestExtract: luks.go sees one slot and no data, whatever the volume has.
func TestExtract(t *testing.T) {
	d, _ := newVolume(t, 64)
	volume, err := read(t, d).Extract(2)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, &disk{t, volume, int64(len(volume))})
	want := []luks1.Slot{{ID: 0, Iterations: iterations, Offset: 4096, Size: 256000}}
	if diff := cmp.Diff(want, got.Slots()); diff != "" || got.PayloadOffset() != 0 || len(volume) != 4096+256000 {
		t.Errorf("%d bytes, data at %d, slots:\n%s", len(volume), got.PayloadOffset(), diff)
	}
	_, third, _ := layout(64)
	if !bytes.Equal(volume[4096:], d.data[int64(third)*512:][:256000]) {
		t.Error("the material is not that of slot 2")
	}
}

// TestConfirms: what luks.go says is not taken on trust.
func TestConfirms(t *testing.T) {
	d, key := newVolume(t, 32)
	h, off := read(t, d), bytes.Clone(key)
	off[31] ^= 1
	for _, c := range []struct {
		name string
		key  []byte
		want bool
	}{{"the key", key, true}, {"one bit off", off, false}, {"cut", key[:31], false}, {"none", nil, false}} {
		if got := h.Confirms(secret.Copy(c.key)); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// TestHeaderIsReadOnce: a header that changes after the check is not seen.
func TestHeaderIsReadOnce(t *testing.T) {
	d, _ := newVolume(t, 64)
	h := read(t, d)
	clear(d.data[:headerBytes])
	key, err := h.Unlock(t.Context(), phrase("zero"), kdf.Limits{})
	if err != nil {
		t.Fatalf("the header was read again: %v", err)
	}
	key.Wipe()
}

// TestPanic hands luks.go what it panics on: a LUKS2 header that asks for an
// Argon2 of no passes. Nothing of the kind gets past the checks, so the call is
// made directly.
func TestPanic(t *testing.T) {
	volume := make([]byte, 16<<10)
	copy(volume, "LUKS\xba\xbe\x00\x02")
	binary.BigEndian.PutUint64(volume[8:], uint64(len(volume)))
	copy(volume[72:], "sha256")
	copy(volume[4096:], `{"keyslots":{"0":{"type":"luks2","key_size":32,"af":{"type":"luks1","stripes":4000,"hash":"sha256"},`+
		`"area":{"type":"raw","encryption":"aes-xts-plain64","key_size":32,"offset":"0","size":"0"},`+
		`"kdf":{"type":"argon2id","time":0,"memory":32,"cpus":1,"salt":""}}}}`)
	sum := sha256.Sum256(volume)
	copy(volume[448:], sum[:])
	key, err := luks1.Unseal(volume, phrase("zero"))
	if key != nil || err == nil || !strings.Contains(err.Error(), "luks.go gave up on the header: argon2") {
		t.Errorf("%v and %v, want an error that stands for the panic", key, err)
	}
}

// TestNothingStaysOpen: unlocking leaves no file behind.
func TestNothingStaysOpen(t *testing.T) {
	count := func() int {
		files, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	d, _ := newVolume(t, 32)
	h, before := read(t, d), count()
	for _, word := range []string{"zero", "wrong"} {
		key, _ := h.Unlock(t.Context(), phrase(word), kdf.Limits{})
		key.Wipe()
	}
	if after := count(); after != before {
		t.Errorf("%d files are open, and %d were before", after, before)
	}
}
