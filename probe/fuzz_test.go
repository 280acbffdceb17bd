package probe_test

import (
	"bytes"
	"testing"

	"github.com/cryptctl/cryptctl/probe"
	"github.com/cryptctl/cryptctl/probe/marker"
)

type seed struct {
	name  string
	data  []byte
	empty bool
}

func seeds() []seed {
	with := func(size int, pieces ...piece) []byte {
		b := make([]byte, size)
		for _, p := range pieces {
			copy(b[p.at:], p.data)
		}
		return b
	}
	note := piece{0, string(marker.Marker{UUID: uuid, Reach: 4096}.Encode())}
	return []seed{
		{"one byte", with(1), true},
		{"a block", with(4096), true},
		{"the least for blkid", with(16384), true},
		{"an odd size", with(20001), true},
		{"a byte", with(20001, piece{20000, "x"}), false},
		{"a note", with(8192, note), true},
		{"a note and a byte", with(8192, note, piece{8191, "x"}), false},
		{"luks2", with(32768, piece{0, "LUKS\xba\xbe\x00\x02"}), false},
		{"fat", with(32768, piece{0, "\xeb\x3c\x90mkfs.fat\x00\x02\x04\x01\x00\x02\x00\x02\x00\x80\xf8\x20\x00"}, piece{0x36, "FAT16   "}, piece{510, "\x55\xaa"}), false},
		{"ext", with(32768, piece{0x400, "\x00\x20\x00\x00\x00\x80\x00\x00"}, piece{0x438, "\x53\xef\x01"}), false},
		{"xfs", with(32768, piece{0, "XFSB\x00\x00\x10\x00"}), false},
		{"squashfs", with(32768, piece{0, "hsqs"}, piece{28, "\x04\x00"}), false},
		{"swap", with(32768, piece{1024, "\x01\x00\x00\x00\x07\x00\x00\x00"}, piece{4086, "SWAPSPACE2"}), false},
		{"gpt", with(20480, piece{512, "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00"}), false},
	}
}

// FuzzProbe: small areas are read to the last byte, so what Empty must say is
// known exactly.
func FuzzProbe(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s.data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 || len(data) > 4*mib {
			t.Skip()
		}
		r, err := probe.Probe(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if r.Empty() != mustBeEmpty(data) {
			t.Errorf("empty is %v; findings %v", r.Empty(), r.Findings)
		}
		for _, finding := range r.Findings {
			if finding.Offset < 0 || finding.Offset >= int64(len(data)) {
				t.Errorf("%v of %d", finding, len(data))
			}
		}
	})
}

func mustBeEmpty(data []byte) bool {
	from := 0
	if m, ok := marker.Decode(data); ok && m.Reach <= int64(len(data)) && m.Reach <= marker.MaxReach {
		from = int(m.Reach)
	}
	return len(bytes.Trim(data[from:], "\x00")) == 0
}

// TestSeeds: every seed does what it is there for.
func TestSeeds(t *testing.T) {
	if len(seeds()) < 14 {
		t.Error("seeds are missing")
	}
	for _, s := range seeds() {
		r := mustProbe(t, bytes.NewReader(s.data))
		if r.Empty() != s.empty || mustBeEmpty(s.data) != s.empty {
			t.Errorf("%s: empty is %v, the model says %v; findings %v", s.name, r.Empty(), mustBeEmpty(s.data), r.Findings)
		}
	}
}
