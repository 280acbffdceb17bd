package mapping

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

// sectorSize is the device-mapper's unit, whatever a cipher works on.
const sectorSize = 512

// Device is the block device that holds the data.
type Device struct {
	Number   Number
	Size     int64 // bytes
	ReadOnly bool
}

// Number is a device number.
type Number struct{ Major, Minor uint32 }

// String gives the form in which the kernel reads and shows it: "254:16".
func (n Number) String() string { return fmt.Sprintf("%d:%d", n.Major, n.Minor) }

// MarshalText gives [Number.String].
func (n Number) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText gives.
func (n *Number) UnmarshalText(text []byte) error {
	if _, err := fmt.Sscanf(string(text), "%d:%d", &n.Major, &n.Minor); err != nil || n.String() != string(text) {
		return fmt.Errorf("%q is not a device number of the form 254:16", text)
	}
	return nil
}

// Table is what dm-crypt is told of a volume, without the key itself. Sectors
// have 512 bytes.
type Table struct {
	Sectors    int64  `json:"sectors"` // length of the mapped device
	Cipher     string `json:"cipher"`
	KeySize    int    `json:"keySize"`       // bytes
	Key        string `json:"key,omitempty"` // description of the logon key, "" when the key stands in the table
	IVOffset   uint64 `json:"ivOffset"`      // sectors
	Device     Number `json:"device"`
	Offset     int64  `json:"offset"` // sectors of the data device before the first
	Flags      []Flag `json:"flags,omitempty"`
	SectorSize int    `json:"sectorSize"` // bytes that are encrypted as one
}

// NewTable says how a volume is mapped onto a device: what cryptsetup loads for
// the same header and options. It refuses a header that is not trusted, and a
// segment that the device does not hold.
func NewTable(h *luks.Header, keySize int, dev Device, opts Options) (*Table, error) {
	if err := h.Trusted(); err != nil {
		return nil, fmt.Errorf("the header is refused: %w", err)
	}
	if err := checkUUID(h.UUID()); err != nil {
		return nil, err
	}
	// Trusted: exactly one segment, of type crypt.
	t, err := newTable(h.Segments()[0], keySize, dev, h.Flags(), opts.Flags)
	if err != nil {
		return nil, err
	}
	if !opts.NoKeyring {
		t.Key = fmt.Sprintf("cryptsetup:%s-d%d", h.UUID(), dataDigest(h))
	}
	return t, nil
}

// newTable says how data is mapped, with the key in the table.
func newTable(data luks.Segment, keySize int, dev Device, persistent []string, asked []Flag) (*Table, error) {
	flags, err := mergeFlags(persistent, asked)
	if err != nil {
		return nil, err
	}
	sectors, err := length(data, dev)
	if err != nil {
		return nil, err
	}
	return &Table{
		Sectors: sectors, Cipher: data.Encryption, KeySize: keySize, IVOffset: data.IVTweak,
		Device: dev.Number, Offset: data.Offset / sectorSize, Flags: flags, SectorSize: data.SectorSize,
	}, nil
}

// dataDigest is the id of the one digest that binds the data.
func dataDigest(h *luks.Header) int {
	digests := h.Digests()
	return digests[slices.IndexFunc(digests, func(d luks.Digest) bool { return slices.Contains(d.Segments, 0) })].ID
}

// length returns the sectors that are mapped. A segment that states its size is
// kept to it; cryptsetup 2.6 maps all of the device (LUKS2_activate).
func length(s luks.Segment, dev Device) (int64, error) {
	size, usable := s.Size, dev.Size/sectorSize*sectorSize
	if s.Offset >= usable {
		return 0, fmt.Errorf("the data begins at byte %d, and the device ends at byte %d: it was truncated", s.Offset, dev.Size)
	}
	if size == 0 {
		size = usable - s.Offset
	}
	unit := int64(s.SectorSize)
	switch {
	case size > usable-s.Offset:
		return 0, fmt.Errorf("the data takes %d bytes from byte %d, and the device ends at byte %d: it was truncated", size, s.Offset, dev.Size)
	case size%unit != 0:
		return 0, fmt.Errorf("the data of %d bytes is not a multiple of the encryption sector size %d: resize the device by %d bytes", size, unit, unit-size%unit)
	case s.IVTweak%uint64(unit/sectorSize) != 0:
		return 0, fmt.Errorf("segments.0.iv_tweak %d is not a multiple of the encryption sector size %d", s.IVTweak, unit)
	}
	return size / sectorSize, nil
}

// sameVolume reports whether two tables decrypt the same data in the same way.
// The length may differ, since devices grow, and so may flags and how the key is
// given.
func (t *Table) sameVolume(o *Table) bool {
	return t.Device == o.Device && t.Offset == o.Offset && t.Cipher == o.Cipher && t.KeySize == o.KeySize &&
		t.IVOffset == o.IVOffset && t.SectorSize == o.SectorSize
}

// around returns the target's arguments before and after the key.
func (t *Table) around() (before, after string) {
	options := make([]string, 0, len(t.Flags)+1)
	for _, f := range t.Flags {
		options = append(options, string(f))
	}
	if t.SectorSize != sectorSize {
		options = append(options, fmt.Sprintf("sector_size:%d", t.SectorSize))
	}
	after = fmt.Sprintf(" %d %s %d", t.IVOffset, t.Device, t.Offset)
	if len(options) > 0 {
		after += fmt.Sprintf(" %d %s", len(options), strings.Join(options, " "))
	}
	return t.Cipher + " ", after
}

// reference is how the table names a logon key.
func (t *Table) reference() string { return fmt.Sprintf(":%d:logon:%s", t.KeySize, t.Key) }

// String gives the line as `dmsetup table` shows it, with zeros for a key that
// stands in the table.
func (t *Table) String() string {
	key := strings.Repeat("0", 2*t.KeySize)
	if t.Key != "" {
		key = t.reference()
	}
	before, after := t.around()
	return fmt.Sprintf("0 %d crypt %s%s%s", t.Sectors, before, key, after)
}

// arguments returns the target's arguments with the key, or its reference, for
// the kernel.
func (t *Table) arguments(key []byte) *secret.Bytes {
	before, after := t.around()
	n := hex.EncodedLen(len(key))
	if t.Key != "" {
		before, n = before+t.reference(), 0
	}
	b := secret.New(len(before) + n + len(after))
	copy(b.Bytes(), before)
	if n > 0 {
		hex.Encode(b.Bytes()[len(before):], key)
	}
	copy(b.Bytes()[len(before)+n:], after)
	return b
}

// parseTable reads the arguments that the kernel shows for a target. The key, if
// there is one, is left where it is.
func parseTable(sectors int64, arguments []byte) (*Table, error) {
	cipher, rest, _ := cut(arguments)
	key, rest, ok := cut(rest)
	if !ok {
		return nil, errors.New("the kernel shows a dm-crypt table without a key")
	}
	t := &Table{Sectors: sectors, Cipher: string(cipher), KeySize: len(key) / 2, SectorSize: sectorSize}
	if len(key) > 0 && key[0] == ':' { // a reference, no secret
		size, name, _ := strings.Cut(string(key[1:]), ":")
		_, t.Key, _ = strings.Cut(name, ":")
		t.KeySize, _ = strconv.Atoi(size)
	}
	fields := strings.Fields(string(rest))
	if len(fields) < 3 {
		return nil, fmt.Errorf("the kernel shows a dm-crypt table that ends after the key: %q", fields)
	}
	var errs [3]error
	t.IVOffset, errs[0] = strconv.ParseUint(fields[0], 10, 64)
	errs[1] = t.Device.UnmarshalText([]byte(fields[1]))
	t.Offset, errs[2] = strconv.ParseInt(fields[2], 10, 64)
	for _, option := range fields[min(4, len(fields)):] {
		if size, ok := strings.CutPrefix(option, "sector_size:"); ok {
			t.SectorSize, _ = strconv.Atoi(size)
			continue
		}
		t.Flags = append(t.Flags, Flag(option))
	}
	return t, errors.Join(errs[:]...)
}

// cut splits at the first space, without a copy.
func cut(p []byte) (word, rest []byte, found bool) {
	i := slices.Index(p, ' ')
	if i < 0 {
		return p, nil, false
	}
	return p[:i], p[i+1:], true
}
