package meta_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/secret"
)

// fuzzed is an input of FuzzRead: little of an image that is mostly zeros.
type fuzzed struct {
	first, second []byte // of each copy, from its records on or from their end back
	legacy        []byte
	how           byte // bits: frame copy 1, copy 2, the legacy sectors; put the copies' bytes at the end
}

func (f fuzzed) image() []byte {
	fill := func(p []byte, framed bool) []byte {
		if len(p) == 0 && !framed {
			return nil
		}
		c := make([]byte, copyLength)
		switch at := recordsEnd - 8 - len(p); {
		case f.how&8 == 0:
			copy(c[4:recordsEnd], p)
		case at >= 12: // one record of tag 1 leads to it
			c = copyOf(entry{1, strings.Repeat("x", at-12)})
			copy(c[at:recordsEnd], p)
		}
		if framed {
			return frame(c)
		}
		return c
	}
	legacy := make([]byte, 1024)
	copy(legacy[8:], f.legacy)
	if f.how&4 != 0 {
		frameLegacy(legacy[:512])
		frameLegacy(legacy[512:])
	}
	return imageOf(fill(f.first, f.how&1 != 0), fill(f.second, f.how&2 != 0), legacy)
}

func records(entries ...entry) []byte {
	return bytes.TrimRight(copyOf(entries...)[4:recordsEnd], "\x00")
}

func fuzzSeeds() map[string]fuzzed {
	two := records(entry{6, "old"}, entry{9, "null"})
	wide := raw(6, 0xfffffffc)[4:12]
	return map[string]fuzzed{
		"empty":         {},
		"good":          {two, two, nil, 3},
		"differ":        {two, records(entry{6, "new"}), nil, 3},
		"copy 1 broken": {two, two, nil, 2},
		"copy 2 broken": {two, two, nil, 1},
		"both broken":   {two, two, nil, 0},
		"size wraps":    {wide, wide, nil, 3},
		"wide tag":      {records(entry{0x10a, "x"}), nil, nil, 1},
		"end":           {[]byte("\x00\x00\x00\x02\x00\x00\x00\x00"), []byte("\x00\x00\x00\x02\x00\x00\x00\x09"), nil, 11},
		"legacy":        {two, two, []byte("\x06\x03abc\x07\x00"), 7},
		"legacy broken": {two, two, []byte("\x06\x03abc\x07\xff"), 3},
		"legacy only":   {nil, nil, []byte("\x06\x03abc\x07\x00"), 4},
	}
}

// TestFuzzSeeds: the seeds reach what they are for.
func TestFuzzSeeds(t *testing.T) {
	var good, damaged, refusals, legacy int
	for name, f := range fuzzSeeds() {
		m, err := meta.Read(lukstest.DiskOf(f.image()))
		switch {
		case err != nil:
			refusals++
		case len(m.Damage()) > 0:
			damaged++
		default:
			good++
		}
		if err == nil && strings.HasPrefix(name, "legacy") && len(m.Damage()) == 0 {
			if _, ok := m.Get(7); ok {
				legacy++
			}
		}
	}
	if good != 4 || damaged != 5 || refusals != 3 || legacy != 2 {
		t.Errorf("%d good, %d damaged, %d refused, %d with legacy values", good, damaged, refusals, legacy)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s.first, s.second, s.legacy, s.how)
	}
	f.Fuzz(func(t *testing.T, first, second, legacy []byte, how byte) {
		image := fuzzed{first, second, legacy, how}.image()
		d := lukstest.DiskOf(image)
		m, err := meta.Read(d)
		var damage *meta.DamageError
		switch {
		case errors.As(err, &damage):
			done, err := meta.Repair(d, meta.RepairOptions{Reset: true})
			if err != nil || len(done) != 1 {
				t.Errorf("reset: %q, %v", done, err)
			}
			m = mustRead(t, d)
			if len(m.Damage()) > 0 && len(legacy) == 0 {
				t.Errorf("damage after a reset: %q", m.Damage())
			}
		case err != nil:
			t.Fatal(err)
		case len(d.Ops()) > 0:
			t.Fatalf("reading wrote %v", d.Ops())
		}
		want := contentOf(t, m)
		if used, total := m.Room(); used > total {
			t.Errorf("%d of %d", used, total)
		}
		if len(want) == 0 {
			want[9] = "null"
			if err := m.Set(9, []byte("null")); err != nil {
				t.Fatal(err)
			}
		} else { // the last one goes
			tag := m.Tags()[len(want)-1]
			delete(want, tag)
			m.Delete(tag)
		}
		if err := m.Commit(); err != nil {
			t.Fatal(err)
		}
		holds(t, d, want)
		if !bytes.Equal(d.Bytes()[2*copyLength:legacyStart], image[2*copyLength:legacyStart]) {
			t.Error("wrote where nothing is")
		}
	})
}

// TestReadsWhatWasWritten draws changes and commits, and compares with a map.
func TestReadsWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tags := rapid.Uint8Range(1, 255)
		if rapid.Bool().Draw(t, "few tags") {
			tags = rapid.Uint8Range(6, 9)
		}
		var old []entry
		want := content{}
		for tag, value := range rapid.MapOfN(tags, rapid.StringN(0, 8, 16), 0, 8).Draw(t, "legacy") {
			old = append(old, entry{uint32(tag), value})
			want[meta.Tag(tag)] = value
		}
		d := lukstest.DiskOf(imageOf(nil, nil, legacyOf(old...)))
		for range rapid.IntRange(1, 3).Draw(t, "commits") {
			m, err := meta.Read(d)
			if err != nil {
				t.Fatal(err)
			}
			for range rapid.IntRange(0, 6).Draw(t, "changes") {
				tag := meta.Tag(tags.Draw(t, "tag"))
				if rapid.IntRange(0, 2).Draw(t, "delete") == 0 {
					m.Delete(tag)
					delete(want, tag)
					continue
				}
				value := rapid.SliceOfN(rapid.Byte(), 0, 600).Draw(t, "value")
				if err := m.Set(tag, value); err != nil {
					t.Fatal(err)
				}
				want[tag] = string(value)
			}
			if err := m.Commit(); err != nil {
				t.Fatal(err)
			}
			again, err := meta.Read(d)
			if err != nil || len(again.Damage()) > 0 {
				t.Fatalf("%v, %q", err, again.Damage())
			}
			for _, m := range []*meta.Meta{m, again} {
				got := content{}
				for _, tag := range m.Tags() {
					value, _ := m.Get(tag)
					got[tag] = string(value)
				}
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("values (-want +got):\n%s", d)
				}
			}
		}
	})
}

// sameSecret compares secrets, which are all equal to what prints them.
var sameSecret = cmp.Comparer(func(a, b *secret.Bytes) bool { return (a == nil) == (b == nil) && a.Equal(b) })

func FuzzEncryption(f *testing.F) {
	for _, text := range encryptionSeeds() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := meta.ParseEncryption(data)
		if err != nil {
			if e != nil || len(err.Error()) > 400 {
				t.Errorf("%v beside %.1000q", e, err)
			}
			return
		}
		defer e.Wipe()
		checkEncryption(t, e)
		first, err := e.Encode()
		if err != nil {
			if e == nil || !hasUnknown(e) {
				t.Errorf("read and not written: %v", err)
			}
			return
		}
		again, err := meta.ParseEncryption(first)
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		defer again.Wipe()
		if d := cmp.Diff(e, again, sameSecret); d != "" {
			t.Errorf("%s\nfrom %s (-first +second):\n%s", first, data, d)
		}
		if second, err := again.Encode(); !bytes.Equal(first, second) || err != nil {
			t.Errorf("%s and then %s, %v", first, second, err)
		}
	})
}

func hasUnknown(e *meta.Encryption) bool {
	for _, k := range e.Keys {
		if k.Unknown != "" {
			return true
		}
	}
	return false
}

// checkEncryption asserts what ParseEncryption promises of its result.
func checkEncryption(t *testing.T, e *meta.Encryption) {
	t.Helper()
	if e == nil {
		return
	}
	if len(e.Keys) == 0 || len(e.Keys) > 32 {
		t.Errorf("%d keys", len(e.Keys))
	}
	taken := map[int]bool{}
	for _, k := range e.Keys {
		kinds := 0
		for _, there := range []bool{k.Static != nil, k.NodeID, k.KMS != nil, k.TPM != nil, k.Unknown != ""} {
			if there {
				kinds++
			}
		}
		if kinds != 1 || k.Slot < 0 || k.Slot > 31 || taken[k.Slot] {
			t.Errorf("key %+v", k)
		}
		taken[k.Slot] = true
	}
}

// TestEncryptionRoundTrip draws an encryption and reads back what is written.
func TestEncryptionRoundTrip(t *testing.T) {
	text := rapid.String()
	kinds := map[string]func(t *rapid.T, k *meta.Key){
		"static": func(t *rapid.T, k *meta.Key) { k.Static = secret.Copy([]byte(text.Draw(t, "passphrase"))) },
		"nodeID": func(_ *rapid.T, k *meta.Key) { k.NodeID = true },
		"kms":    func(t *rapid.T, k *meta.Key) { k.KMS = &meta.KMS{Endpoint: text.Draw(t, "endpoint")} },
		"tpm": func(t *rapid.T, k *meta.Key) {
			k.TPM = &meta.TPM{CheckSecureboot: rapid.Bool().Draw(t, "check")}
			if rapid.Bool().Draw(t, "has PCRs") {
				k.TPM.PCRs = rapid.SliceOfN(rapid.IntRange(0, 23), 0, 24).Draw(t, "PCRs")
			}
		},
	}
	rapid.Check(t, func(t *rapid.T) {
		want := &meta.Encryption{
			Cipher: text.Draw(t, "cipher"), KeySize: rapid.Uint().Draw(t, "key size"), BlockSize: rapid.Uint64().Draw(t, "block size"),
			PerfOptions: rapid.SliceOf(text).Draw(t, "options"), AllowDiscards: rapid.Bool().Draw(t, "discards"),
		}
		for _, slot := range rapid.SliceOfNDistinct(rapid.IntRange(0, 31), 1, 32, rapid.ID).Draw(t, "slots") {
			k := meta.Key{Slot: slot, LockToState: rapid.Bool().Draw(t, "lock")}
			kinds[rapid.SampledFrom([]string{"static", "nodeID", "kms", "tpm"}).Draw(t, "kind")](t, &k)
			want.Keys = append(want.Keys, k)
		}
		defer want.Wipe()
		data, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := meta.ParseEncryption(data)
		if err != nil {
			t.Fatal(err)
		}
		defer got.Wipe()
		if d := cmp.Diff(want, got, sameSecret, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("%s (-want +got):\n%s", data, d)
		}
	})
}
