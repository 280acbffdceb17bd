package luks

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// MaxSlots is the number of keyslots, and of tokens, that a LUKS2 tool can name:
// ids run from 0 to 31.
const MaxSlots = 32

// Priority says when a keyslot is tried (LUKS2 specification, section 3.2).
type Priority int8

// Priorities. The zero value is the one that a keyslot has without the member.
const (
	PriorityIgnore Priority = -1 // only when the slot is named
	PriorityNormal Priority = 0
	PriorityPrefer Priority = 1 // before all others
)

// String gives cryptsetup's word for the priority.
func (p Priority) String() string {
	switch p {
	case PriorityIgnore:
		return "ignore"
	case PriorityPrefer:
		return "prefer"
	}
	return "normal"
}

// Keyslot is one keyslot object: how a passphrase turns into the volume key.
type Keyslot struct {
	ID       int
	Type     string // "luks2"; others are kept and never used
	KeySize  int    // bytes of the stored key
	Priority Priority
	AF       AF
	Area     Area
	KDF      kdf.Params

	badSalt error
}

// AF is the anti-forensic splitter of a keyslot. The number of stripes is
// stored, but 4000 is what every implementation uses.
type AF struct {
	Type string
	Hash string
}

// Area is where a keyslot's encrypted material lies on the header device, in
// bytes from its start.
type Area struct {
	Type         string
	Offset, Size int64
	Encryption   string // "aes-xts-plain64"
	KeySize      int    // bytes of the key that encrypts the area
}

func (a Area) end() int64 { return a.Offset + a.Size }

// Digest proves a volume key and binds keyslots to segments.
type Digest struct {
	ID         int
	Type       string
	Keyslots   []int
	Segments   []int
	Hash       string
	Iterations uint32
	Salt       []byte
	Digest     []byte

	badEncoding error
}

// Segment is a part of the data device.
type Segment struct {
	ID         int
	Type       string
	Offset     int64 // bytes
	Size       int64 // bytes; 0 means "dynamic", to the end of the device
	IVTweak    uint64
	Encryption string
	SectorSize int
	Integrity  string // dm-integrity algorithm, or ""
	Flags      []string
}

// Token is an object that says how a passphrase can be had.
type Token struct {
	ID       int
	Type     string
	Keyslots []int
	JSON     json.RawMessage // the whole object, compact
}

// metadata is the typed view of a document.
type metadata struct {
	keyslots     []Keyslot // in the order of the document: the trial order
	tokens       []Token
	segments     []Segment
	digests      []Digest
	keyslotsSize int64
	flags        []string
	requirements []string
}

func (m *metadata) keyslot(id int) (Keyslot, bool) {
	i := slices.IndexFunc(m.keyslots, func(k Keyslot) bool { return k.ID == id })
	if i < 0 {
		return Keyslot{}, false
	}
	return m.keyslots[i], true
}

// dataDigest returns the digest that binds the data segment.
func (m *metadata) dataDigest() (Digest, bool) {
	i := slices.IndexFunc(m.digests, func(d Digest) bool { return slices.Contains(d.Segments, 0) })
	if i < 0 {
		return Digest{}, false
	}
	return m.digests[i], true
}

func byOffset(a, b Area) int { return cmp.Compare(a.Offset, b.Offset) }

// areas returns all keyslot areas, ordered by offset.
func (m *metadata) areas() []Area {
	areas := make([]Area, len(m.keyslots))
	for i, k := range m.keyslots {
		areas[i] = k.Area
	}
	slices.SortFunc(areas, byOffset)
	return areas
}
