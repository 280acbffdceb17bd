package eventlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// patch sets a 32-bit number in a copy.
func patch(b []byte, at int, v uint32) []byte {
	b = bytes.Clone(b)
	binary.LittleEndian.PutUint32(b[at:], v)
	return b
}

// TestParse: what is refused, and by which words. Offsets are those of a log of
// one bank with one event: header of 32 bytes, 33 bytes of Spec ID data (the
// count at 56, the bank at 60, its size at 62), then the event at byte 65 (count
// at 73, bank at 77, data size at 111).
func TestParse(t *testing.T) {
	t.Parallel()
	one := newWriter(pcr.SHA256).data(7, eventlog.EvSeparator, separator).b
	const event = 65
	sha1Log := header([]byte("text"))
	sha1Log[4] = 8
	tests := []struct {
		name string
		raw  []byte
		want string // "": accepted
	}{
		{"one event", one, ""},
		{"no event", one[:event], ""},
		{"zeros after the last event", append(bytes.Clone(one), make([]byte, 999)...), ""},
		{"ones after the last event", append(bytes.Clone(one), bytes.Repeat([]byte{0xff}, 999)...), ""},
		{"something after the last event", append(bytes.Clone(one), 0, 0, 0, 1), "event 2 of the event log, at byte 119: it ends too early"},
		{"nothing", nil, "it is empty"},
		{"a few bytes", one[:20], "event 0 of the event log: it ends too early"},
		{"old format", sha1Log, "SHA-1 digests only"},
		{"old format of EFI", header(specID("Spec ID Event02", nil, nil)), "SHA-1 digests only"},
		{"newer format", header(specID("Spec ID Event04", nil, nil)), `unknown kind "Spec ID Event04"`},
		{"header's size too large", patch(one, 28, 1<<31), "event 0 of the event log: it ends too early"},
		{"no algorithms", patch(one, 56, 0), "0 hash algorithms"},
		{"too many algorithms", patch(one, 56, 1<<30), "1073741824 hash algorithms"},
		{"more algorithms than there are", patch(one, 56, 2), "the header: it ends too early"},
		{"wrong length of SHA-256", patch(one, 60, 31<<16|0xb), "sha256 a length of 31 bytes"},
		{"no length of another", patch(one, 60, 0x12), "algorithm 0x0012 a length of 0 bytes"},
		{"an algorithm twice", header(specID("Spec ID Event03", [][2]uint16{{11, 32}, {11, 32}}, nil)), "sha256 twice"},
		{"vendor's data too long", patch(one, 64, 200)[:event], "the header: it ends too early"},
		{"PCR 24", patch(one, event, 24), "PCR 24"},
		{"note of PCR 24", patch(patch(one, event, 24), event+4, 3), ""},
		{"no digest", patch(one, event+8, 0), "it has 0 digests"},
		{"too many digests", patch(one, event+8, 2), "it has 2 digests"},
		{"digest of another bank", patch(one, event+12, 4), "a digest of sha1, which the header does not name"},
		{"data too long", patch(one, event+46, 5), "its data should have 5 bytes, 4 are left"},
		{"data far too long", patch(one, event+46, 0xffffffff), "its data should have 4294967295 bytes, 4 are left"},
		{"cut in the digest", one[:event+20], "it ends too early"},
		{"too large", make([]byte, 8<<20+1), "more than 8388608 bytes"},
	}
	for _, test := range tests {
		l, err := eventlog.Parse(test.raw)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.name, err)
		case test.want == "" && len(l.Events) == 0:
			t.Errorf("%s: no event", test.name)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
		if legacy := strings.HasPrefix(test.name, "old format"); errors.Is(err, eventlog.ErrLegacy) != legacy {
			t.Errorf("%s: %v, legacy is %v", test.name, err, legacy)
		}
	}
	for cut := range one { // a log that ends anywhere is an error or a shorter log, never a panic
		if l, err := eventlog.Parse(one[:cut]); (err == nil) != (cut == event) {
			t.Errorf("%d bytes: %v, %v", cut, l, err)
		}
	}
}

func TestTwoDigestsOfOneBank(t *testing.T) {
	t.Parallel()
	w := newWriter(pcr.SHA1, pcr.SHA256)
	w.banks[0] = pcr.SHA256 // the header has two
	if _, err := eventlog.Parse(w.data(7, eventlog.EvSeparator, separator).b); err == nil || !strings.Contains(err.Error(), "two digests of sha256") {
		t.Error(err)
	}
}

func TestTooManyEvents(t *testing.T) {
	t.Parallel()
	w := newWriter(pcr.SHA1)
	for range 1<<14 - 1 {
		w.data(7, eventlog.EvSeparator, nil)
	}
	if l := w.parse(t); len(l.Events) != 1<<14 {
		t.Errorf("%d events", len(l.Events))
	}
	if _, err := eventlog.Parse(w.data(7, eventlog.EvSeparator, nil).b); err == nil || !strings.Contains(err.Error(), "more than 16384 events") {
		t.Error(err)
	}
}

// TestUnknownAlgorithm: a bank that is not known here is read over.
func TestUnknownAlgorithm(t *testing.T) {
	t.Parallel()
	const sm3 = 0x12
	b := header(specID("Spec ID Event03", [][2]uint16{{sm3, 32}, {0xb, 32}}, []byte("vendor")))
	b = append(b, 7, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, sm3, 0)
	b = append(append(append(b, make([]byte, 32)...), 0xb, 0), pcr.SHA256.Sum(separator)...)
	l, err := eventlog.Parse(append(b, 4, 0, 0, 0, 0, 0, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Events[1].Describe(); got != "separator: the firmware has finished its part" {
		t.Error(got)
	}
	if _, err := l.Replay(sm3); err == nil || !strings.Contains(err.Error(), "not known") {
		t.Error(err)
	}
	values, err := l.Replay(pcr.SHA256)
	if err != nil || !bytes.Equal(values[7], pcr.SHA256.Extend(make([]byte, 32), pcr.SHA256.Sum(separator))) {
		t.Errorf("%x, %v", values[7], err)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	if _, err := eventlog.Read(filepath.Join(t.TempDir(), "none")); !errors.Is(err, eventlog.ErrNone) {
		t.Error(err)
	}
	if _, err := eventlog.Read(t.TempDir()); err == nil || errors.Is(err, eventlog.ErrNone) {
		t.Error(err)
	}
}
