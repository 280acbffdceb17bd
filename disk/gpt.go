package disk

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"unicode/utf16"
)

const (
	signature  = "EFI PART"
	headerSize = 92  // UEFI 2.10, table 5.5
	entrySize  = 128 // table 5.6, the least

	// maxEntries and maxEntrySize bound the memory that a header can ask for.
	// Tools write 128 entries of 128 bytes.
	maxEntries   = 1024
	maxEntrySize = 4096
)

// header is the GPT header, little-endian.
type header struct {
	Signature   [8]byte
	Revision    uint32
	Size        uint32
	Checksum    uint32
	Reserved    uint32
	MyLBA       uint64
	OtherLBA    uint64
	FirstUsable uint64
	LastUsable  uint64
	Disk        guid
	EntriesLBA  uint64
	Entries     uint32
	EntrySize   uint32
	EntriesSum  uint32
}

// entry is a partition entry, little-endian.
type entry struct {
	Type       guid
	UUID       guid
	First      uint64
	Last       uint64 // inclusive
	Attributes uint64
	Label      [36]uint16
}

// guid is a GUID in the order of the disk: the first three fields are
// little-endian (UEFI 2.10, appendix A).
type guid [16]byte

func (g guid) String() string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(g[0:]), le.Uint16(g[4:]), le.Uint16(g[6:]), g[8:10], g[10:])
}

// medium is what a table is read from.
type medium struct {
	io.ReaderAt
	size   int64
	sector int
}

// last returns the last sector.
func (m medium) last() uint64 { return uint64(m.size)/uint64(m.sector) - 1 }

// sectors reads n bytes from the start of a sector that the disk has.
func (m medium) sectors(lba uint64, n int) ([]byte, error) {
	b := make([]byte, n)
	off := int64(lba) * int64(m.sector)
	if got, err := m.ReadAt(b, off); got < n {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read of %d bytes at byte %d: %w", n, off, err)
	}
	return b, nil
}

// table is one of the two copies: its header, and its entries still encoded.
type table struct {
	header
	entries []byte
}

// readCopy reads and checks the copy whose header is in sector lba. It fails
// with ErrNoTable if there is no header at all.
func readCopy(m medium, lba uint64) (*table, error) {
	b, err := m.sectors(lba, m.sector)
	if err != nil {
		return nil, err
	}
	if string(b[:len(signature)]) != signature {
		return nil, ErrNoTable
	}
	var t table
	if _, err := binary.Decode(b, binary.LittleEndian, &t.header); err != nil {
		return nil, err
	}
	if err := t.check(b, m, lba); err != nil {
		return nil, err
	}
	if t.entries, err = m.sectors(t.EntriesLBA, int(t.Entries)*int(t.EntrySize)); err != nil {
		return nil, err
	}
	if crc32.ChecksumIEEE(t.entries) != t.EntriesSum {
		return nil, errors.New("the entries do not match their checksum")
	}
	return &t, nil
}

// check judges a header, of which b is the sector: whether it is whole, whether
// it belongs here and whether what it points to is on the disk.
func (h *header) check(b []byte, m medium, lba uint64) error {
	if h.Size < headerSize || h.Size > uint32(m.sector) {
		return fmt.Errorf("the header claims a size of %d bytes", h.Size)
	}
	b = bytes.Clone(b[:h.Size])
	clear(b[16:20]) // the checksum is made with itself as zero
	if crc32.ChecksumIEEE(b) != h.Checksum {
		return errors.New("the header does not match its checksum")
	}
	if h.MyLBA != lba {
		return fmt.Errorf("the header in sector %d says that it is in sector %d", lba, h.MyLBA)
	}
	if h.Entries == 0 || h.Entries > maxEntries {
		return fmt.Errorf("the table has %d entries; the limit is %d", h.Entries, maxEntries)
	}
	if h.EntrySize < entrySize || h.EntrySize > maxEntrySize || h.EntrySize&(h.EntrySize-1) != 0 {
		return fmt.Errorf("the entries have %d bytes each; %d times a power of two, up to %d, are allowed", h.EntrySize, entrySize, maxEntrySize)
	}
	last := m.last()
	if h.FirstUsable > h.LastUsable || h.LastUsable > last || h.FirstUsable < 2 || h.FirstUsable <= lba && lba <= h.LastUsable {
		return fmt.Errorf("the usable sectors are said to be %d to %d, on a disk whose last one is %d", h.FirstUsable, h.LastUsable, last)
	}
	length := (uint64(h.Entries)*uint64(h.EntrySize) + uint64(m.sector) - 1) / uint64(m.sector)
	if h.EntriesLBA > last || length > last-h.EntriesLBA+1 {
		return fmt.Errorf("the entries are said to be in sectors from %d, on a disk whose last one is %d", h.EntriesLBA, last)
	}
	if h.EntriesLBA <= h.LastUsable && h.FirstUsable <= h.EntriesLBA+length-1 {
		return fmt.Errorf("the entries lie among the usable sectors %d to %d", h.FirstUsable, h.LastUsable)
	}
	return nil
}

// partitions decodes the entries that are in use.
func (t *table) partitions(sector int) ([]Partition, error) {
	var all []Partition
	for i := range int(t.Entries) {
		var e entry
		if _, err := binary.Decode(t.entries[i*int(t.EntrySize):], binary.LittleEndian, &e); err != nil {
			return nil, err
		}
		if e.Type == (guid{}) {
			continue
		}
		label, ok := text(e.Label[:])
		if !ok {
			return nil, fmt.Errorf("partition %d: its label is not UTF-16", i+1)
		}
		if e.First > e.Last || e.First < t.FirstUsable || e.Last > t.LastUsable {
			return nil, fmt.Errorf("partition %d (%q): sectors %d to %d; the usable ones are %d to %d",
				i+1, label, e.First, e.Last, t.FirstUsable, t.LastUsable)
		}
		all = append(all, Partition{
			Number: i + 1,
			Label:  label,
			Type:   e.Type.String(),
			UUID:   e.UUID.String(),
			Offset: int64(e.First) * int64(sector),
			Size:   int64(e.Last-e.First+1) * int64(sector),
		})
	}
	return all, disjoint(all)
}

// disjoint fails if two partitions share a sector.
func disjoint(all []Partition) error {
	sorted := slices.SortedFunc(slices.Values(all), func(a, b Partition) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; a.Offset+a.Size > b.Offset {
			return fmt.Errorf("partitions %d (%q) and %d (%q) overlap at byte %d", a.Number, a.Label, b.Number, b.Label, b.Offset)
		}
	}
	return nil
}

// text decodes UTF-16 up to the first zero and reports whether it is well formed.
func text(units []uint16) (string, bool) {
	var s strings.Builder
	for i := 0; i < len(units) && units[i] != 0; i++ {
		r := rune(units[i])
		if utf16.IsSurrogate(r) {
			if i+1 == len(units) {
				return "", false
			}
			i++
			if r = utf16.DecodeRune(r, rune(units[i])); r == '\uFFFD' {
				return "", false
			}
		}
		s.WriteRune(r)
	}
	return s.String(), true
}
