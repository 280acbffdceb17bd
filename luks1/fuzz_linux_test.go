package luks1_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks1"
)

// fuzzed is the size of the devices that fuzzing sees.
const fuzzed = 4 << 20

// try reads a header as every caller does and returns its refusal. What was read
// has slots within the device and apart; what is trusted is unlocked, and fails
// as a wrong passphrase does.
func try(t *testing.T, header []byte) error {
	t.Helper()
	h, err := luks1.Read(&disk{t, header, fuzzed})
	if err != nil {
		return err
	}
	slots := h.Slots()
	for i, s := range slots {
		if s.Offset < headerBytes || s.Size < int64(h.KeySize())*4000 || s.Offset+s.Size > fuzzed {
			t.Fatalf("slot %+v of a device of %d bytes", s, fuzzed)
		}
		for _, o := range slots[:i] {
			if s.Offset < o.Offset+o.Size && o.Offset < s.Offset+s.Size {
				t.Fatalf("the slots %+v and %+v overlap", s, o)
			}
		}
	}
	limits := kdf.Limits{MaxIterations: iterations}
	for _, r := range h.Trust(limits) {
		if r.Level == luks.Untrusted {
			return r
		}
	}
	key, err := h.Unlock(t.Context(), phrase("word"), limits)
	if key != nil || !errors.Is(err, luks.ErrWrongPassphrase) && !errors.Is(err, luks.ErrNoUsableSlot) || strings.Contains(err.Error(), "luks.go") {
		t.Fatalf("unlocked with %v", err)
	}
	return err
}

// seeds are a good header and all the bad ones.
func seeds(t testing.TB) map[string][]byte {
	golden, _ := newVolume(t, 64)
	out := map[string][]byte{"good": golden.data[:headerBytes]}
	for _, f := range faults() {
		if d := f.spoil(golden.with(nil)); d.size == golden.size && d.data != nil {
			out[f.name] = d.data[:headerBytes]
		}
	}
	return out
}

// TestSeeds: fuzzing begins with headers of every kind of refusal, and none of
// them makes anything panic.
func TestSeeds(t *testing.T) {
	all := seeds(t)
	if err := try(t, all["good"]); !errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("the good header: %v", err)
	}
	for _, f := range faults() {
		header, ok := all[f.name]
		if !ok {
			continue
		}
		err := try(t, header)
		switch f.level {
		case luks.SlotOnly:
			if !errors.Is(err, luks.ErrWrongPassphrase) || !errors.Is(err, f.code) {
				t.Errorf("%s: %v", f.name, err)
			}
		default:
			refused(t, f, err)
		}
	}
	if len(all) < 25 {
		t.Errorf("only %d seeds", len(all))
	}
}

func FuzzRead(f *testing.F) {
	for _, header := range seeds(f) {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header []byte) {
		if len(header) > headerBytes {
			header = header[:headerBytes] // the rest is key material
		}
		// The digest's limit is above what fuzzing has time for.
		if len(header) >= atDigestCount+4 {
			clear(header[atDigestCount:][:2])
		}
		try(t, header)
	})
}
