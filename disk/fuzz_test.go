package disk_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"

	"github.com/cryptctl/cryptctl/disk"
)

const fuzzSize = 64 << 10 // 128 sectors

// seed is an image as a fuzzer can change it: the header without what follows
// it in its sector, and the first entries.
type seed struct {
	name            string
	header, entries []byte
	partitions      int // -1: refused
}

func seeds() []seed {
	header := "EFI PART\x00\x00\x01\x00\x5c\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00" +
		"\x01\x00\x00\x00\x00\x00\x00\x00" + "\x7f\x00\x00\x00\x00\x00\x00\x00" +
		"\x22\x00\x00\x00\x00\x00\x00\x00" + "\x5e\x00\x00\x00\x00\x00\x00\x00" +
		"sixteen byte id." + "\x02\x00\x00\x00\x00\x00\x00\x00" + "\x80\x00\x00\x00\x80\x00\x00\x00" + "\x00\x00\x00\x00"
	entry := func(first, last byte, label string) string {
		var s strings.Builder
		s.WriteString("type of 16 bytesuuid of 16 bytes")
		s.WriteString(string([]byte{first, 0, 0, 0, 0, 0, 0, 0, last, 0, 0, 0, 0, 0, 0, 0}))
		s.WriteString("\x00\x00\x00\x00\x00\x00\x00\x00")
		for _, c := range []byte(label) {
			s.Write([]byte{c, 0})
		}
		return s.String() + strings.Repeat("\x00", 128-s.Len())
	}
	with := func(at int, b string) string { return header[:at] + b + header[at+len(b):] }
	return []seed{
		{"empty", []byte(header), nil, 0},
		{"two", []byte(header), []byte(entry(0x22, 0x2f, "STATE") + entry(0x30, 0x5e, "META")), 2},
		{"one sector", []byte(header), []byte(entry(0x22, 0x22, "")), 1},
		{"overlap", []byte(header), []byte(entry(0x22, 0x30, "A") + entry(0x30, 0x5e, "B")), -1},
		{"backwards", []byte(header), []byte(entry(0x30, 0x22, "A")), -1},
		{"outside", []byte(header), []byte(entry(0x22, 0x5f, "A")), -1},
		{"label", []byte(header), []byte(entry(0x22, 0x5e, "") + "type of 16 bytes")[:56+2], 1},
		{"256 entries", []byte(with(80, "\x00\x01")), nil, -1},
		{"far entries", []byte(with(72, "\xff\xff\xff\xff\xff\xff\xff\xff")), nil, -1},
		{"usable beyond", []byte(with(48, "\xff\xff\xff\xff\xff\xff\xff\xff")), nil, -1},
		{"no header", nil, nil, -1},
	}
}

// build makes an image with right checksums, without a backup.
func build(header, entries []byte) []byte {
	b := make([]byte, fuzzSize)
	b[446+4], b[510], b[511] = 0xee, 0x55, 0xaa
	copy(b[512:1024], header)
	copy(b[1024:34*512], entries)
	seal(b)
	return b
}

// FuzzRead changes header and entries behind right checksums. What is accepted
// must be safe to address, and go-blockdevice must not see more or other than
// we do.
func FuzzRead(f *testing.F) {
	for _, s := range seeds() {
		f.Add(s.header, s.entries)
	}
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		b := build(header, entries)
		table, err := disk.ReadFrom(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			if table != nil {
				t.Errorf("table %v beside %v", table, err)
			}
			return
		}
		check(t, table)
		them, err := gpt.Read(memory{b})
		if err != nil {
			return // it knows no other sizes of entries
		}
		for _, p := range ours(them, 512) {
			p.Label, _, _ = strings.Cut(p.Label, "\x00") // it cuts zeros only at the end
			if !slices.Contains(table.Partitions, p) {
				t.Errorf("go-blockdevice has %v, we have %v", p, table.Partitions)
			}
		}
	})
}

func check(t *testing.T, table *disk.Table) {
	t.Helper()
	for i, p := range table.Partitions {
		if p.Size <= 0 || p.Offset < 1024 || p.Offset+p.Size > table.Size || (p.Offset|p.Size)%int64(table.SectorSize) != 0 {
			t.Errorf("%v on a disk of %d bytes", p, table.Size)
		}
		if !utf8.ValidString(p.Label) || strings.ContainsRune(p.Label, 0) || len(p.Type) != 36 || len(p.UUID) != 36 {
			t.Errorf("%v", p)
		}
		for _, q := range table.Partitions[:i] {
			if q.Number >= p.Number || q.Offset < p.Offset+p.Size && p.Offset < q.Offset+q.Size {
				t.Errorf("%v and %v", q, p)
			}
		}
	}
}

// TestSeeds: every seed does what it is there for.
func TestSeeds(t *testing.T) {
	if len(seeds()) < 11 {
		t.Error("seeds are missing")
	}
	for _, s := range seeds() {
		b := build(s.header, s.entries)
		table, err := disk.ReadFrom(bytes.NewReader(b), int64(len(b)))
		got := -1
		if err == nil {
			got = len(table.Partitions)
			check(t, table)
		}
		if got != s.partitions {
			t.Errorf("%s: %d partitions, want %d; %v", s.name, got, s.partitions, err)
		}
	}
}

// memory is an image for go-blockdevice.
type memory struct{ b []byte }

func (m memory) ReadAt(p []byte, off int64) (int, error)                { return bytes.NewReader(m.b).ReadAt(p, off) }
func (memory) WriteAt([]byte, int64) (int, error)                       { panic("a reader writes") }
func (memory) GetSectorSize() uint                                      { return 512 }
func (m memory) GetSize() uint64                                        { return uint64(len(m.b)) }
func (memory) GetIOSize() (uint, error)                                 { return 512, nil }
func (memory) Sync() error                                              { panic("a reader syncs") }
func (memory) GetKernelLastPartitionNum() (int, error)                  { return 0, nil }
func (memory) KernelPartitionAdd(no int, start, length uint64) error    { return nil }
func (memory) KernelPartitionResize(no int, first, length uint64) error { return nil }
func (memory) KernelPartitionDelete(no int) error                       { return nil }
