package luks

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// snapshot is one header copy that passed every rule of the format.
type snapshot struct {
	binary     binaryHeader
	doc        *object
	meta       *metadata
	duplicates []string
}

// Header is a LUKS2 header as it was read once: checked, in memory, and the only
// thing that unlocking and planning look at. It does not change; [Header.Commit]
// returns a new one.
type Header struct {
	snapshot
	dev    Device
	copies [2]Copy
	why    string
}

// CopyState is what reading found of one header copy.
type CopyState string

// States of a header copy.
const (
	CopyGood   CopyState = "good"   // passes every rule
	CopyStale  CopyState = "stale"  // good, but older than the other copy
	CopyBad    CopyState = "bad"    // there, and damaged
	CopyAbsent CopyState = "absent" // no magic where it should be
)

// Copy says how one of the two header copies was found.
type Copy struct {
	Name   string    `json:"name"`
	Offset int64     `json:"offset"`
	State  CopyState `json:"state"`
	SeqID  uint64    `json:"seqid,omitempty"`
	UUID   string    `json:"uuid,omitempty"`
	Err    *Refusal  `json:"refusal,omitempty"` // why it is bad or absent
}

// Read reads both header copies and returns the one that counts. It never
// writes. When no copy is usable the error says why for each, and wraps
// [NotLUKS] or [LUKS1] when that is what it is.
func Read(dev Device) (*Header, error) {
	release, err := lock(dev, false)
	if err != nil {
		return nil, err
	}
	defer release()
	return read(dev)
}

// read is Read for those who hold a lock.
func read(dev Device) (*Header, error) {
	first, err := readCopy(dev, 0, candidate{})
	if err != nil {
		return nil, err
	}
	if first.binary.Magic == primaryMagic && first.binary.Version == 1 {
		// Before the search for a secondary: it could only be a leftover.
		return nil, invalid(LUKS1, "primary header", "this is a LUKS1 volume, which can be inspected and opened, and is never changed here; `cryptsetup convert --type luks2` makes it a LUKS2 volume")
	}
	second, err := readSecondary(dev, first)
	if err != nil {
		return nil, err
	}
	h, err := choose(first, second)
	if err != nil {
		return nil, err
	}
	h.dev = dev
	if need := 2*int64(h.binary.HdrSize) + h.meta.keyslotsSize; dev.Size() < need {
		return nil, invalid(DeviceTooSmall, "device", "the header needs %d bytes and the device ends at byte %d: it was truncated", need, dev.Size())
	}
	return h, nil
}

// candidate is one place where a copy was looked for.
type candidate struct {
	offset  int64
	binary  binaryHeader
	area    []byte // JSON area, when the checksum is right
	snap    *snapshot
	refusal *Refusal
}

// readCopy reads the copy at an offset. Only I/O is an error; what is wrong with
// the copy stands in the candidate. A copy with the same document as its twin is
// not parsed again: the rules look at the document and its size only.
func readCopy(dev Device, offset int64, twin candidate) (candidate, error) {
	c := candidate{offset: offset}
	name := "primary header"
	if offset != 0 {
		name = "secondary header"
	}
	if dev.Size()-offset < minHdrSize {
		c.refusal = invalid(BadMagic, name, "the device ends at byte %d", dev.Size())
		return c, nil
	}
	buf := make([]byte, minHdrSize)
	if err := readAt(dev, buf, offset); err != nil {
		return c, fmt.Errorf("%s: %w", name, err)
	}
	if c.binary, c.refusal = parseBinary(buf[:binarySize], offset); c.refusal != nil {
		return c, nil
	}
	if size := int64(c.binary.HdrSize); size > dev.Size()-offset {
		c.refusal = invalid(BadHdrSize, name, "its %d bytes do not fit the device of %d bytes", size, dev.Size())
		return c, nil
	} else if size > minHdrSize {
		buf = slices.Grow(buf, int(size)-minHdrSize)[:size]
		if err := readAt(dev, buf[minHdrSize:], offset+minHdrSize); err != nil {
			return c, fmt.Errorf("%s: %w", name, err)
		}
	}
	if c.refusal = checkSum(c.binary, buf); c.refusal != nil {
		return c, nil
	}
	c.area = buf[binarySize:]
	if twin.snap != nil && bytes.Equal(twin.area, c.area) {
		c.snap = &snapshot{binary: c.binary, doc: twin.snap.doc, meta: twin.snap.meta, duplicates: twin.snap.duplicates}
		return c, nil
	}
	c.snap, c.refusal = parseCopy(c.binary, buf)
	return c, nil
}

// readSecondary looks where the primary says, and when there is no good primary
// at every offset that the format allows.
func readSecondary(dev Device, primary candidate) (candidate, error) {
	if primary.snap != nil {
		return readCopy(dev, int64(primary.binary.HdrSize), primary)
	}
	best := candidate{offset: minHdrSize, refusal: invalid(BadMagic, "secondary header", "no LUKS2 magic at any of its places")}
	for offset := int64(minHdrSize); offset <= maxHdrSize; offset *= 2 {
		c, err := readCopy(dev, offset, candidate{})
		if err != nil {
			return c, err
		}
		if c.snap != nil {
			return c, nil
		}
		if c.refusal.Code != BadMagic {
			best = c
		}
	}
	return best, nil
}

// choose picks the copy that counts: the good one, of two good ones the one with
// the higher sequence number, and the primary when they are equal.
func choose(first, second candidate) (*Header, error) {
	h := &Header{copies: [2]Copy{first.describe("primary"), second.describe("secondary")}}
	switch {
	case first.snap == nil && second.snap == nil:
		return nil, noHeader(first, second)
	case second.snap == nil:
		h.snapshot, h.why = *first.snap, "the secondary copy is "+string(h.copies[1].State)
	case first.snap == nil:
		h.snapshot, h.why = *second.snap, "the primary copy is "+string(h.copies[0].State)
	case first.binary.SeqID < second.binary.SeqID:
		h.snapshot, h.why = *second.snap, "the secondary copy is newer"
		h.copies[0].State = CopyStale
	case first.binary.SeqID > second.binary.SeqID:
		h.snapshot, h.why = *first.snap, "the primary copy is newer"
		h.copies[1].State = CopyStale
	default:
		h.snapshot, h.why = *first.snap, "both copies have the same sequence number"
		if !sameCopy(first.snap, second.snap) {
			h.why = "both copies have the same sequence number but differ, so the primary counts"
			h.copies[1].State = CopyStale
		}
	}
	return h, nil
}

// sameCopy reports whether two copies say the same.
func sameCopy(a, b *snapshot) bool {
	return a.binary.SeqID == b.binary.SeqID && a.binary.UUID == b.binary.UUID &&
		a.binary.Label == b.binary.Label && a.binary.Subsystem == b.binary.Subsystem &&
		(a.doc == b.doc || slices.Equal(a.doc.encode(), b.doc.encode()))
}

func (c candidate) describe(name string) Copy {
	d := Copy{Name: name, Offset: c.offset, State: CopyGood, Err: c.refusal}
	switch {
	case c.snap != nil:
		d.SeqID = c.binary.SeqID
		d.UUID, _ = cstring(c.binary.UUID[:])
	case c.refusal.Code == BadMagic:
		d.State = CopyAbsent
	default:
		d.State = CopyBad
	}
	return d
}

// noHeader explains why neither copy can be used.
func noHeader(first, second candidate) error {
	if first.refusal.Code == BadMagic && second.refusal.Code == BadMagic {
		return invalid(NotLUKS, "device", "no LUKS header")
	}
	if *first.refusal == *second.refusal { // it is about what both say
		return first.refusal
	}
	return errors.Join(first.refusal, second.refusal)
}

// Copies says how the primary and the secondary copy were found.
func (h *Header) Copies() [2]Copy { return h.copies }

// Why says in words why the copy that counts was chosen.
func (h *Header) Why() string { return h.why }

// UUID returns the volume's UUID.
func (h *Header) UUID() string { s, _ := cstring(h.binary.UUID[:]); return s }

// Label returns the volume's label.
func (h *Header) Label() string { s, _ := cstring(h.binary.Label[:]); return s }

// Subsystem returns the volume's subsystem label.
func (h *Header) Subsystem() string { s, _ := cstring(h.binary.Subsystem[:]); return s }

// SeqID returns the sequence number, which grows with every change.
func (h *Header) SeqID() uint64 { return h.binary.SeqID }

// MetadataSize returns the size of one header copy in bytes: the binary header
// and the JSON area.
func (h *Header) MetadataSize() int64 { return int64(h.binary.HdrSize) }

// KeyslotsArea returns where keyslot areas may lie, in bytes.
func (h *Header) KeyslotsArea() (offset, size int64) {
	return 2 * int64(h.binary.HdrSize), h.meta.keyslotsSize
}

// Keyslots returns the keyslots in the order of the document.
func (h *Header) Keyslots() []Keyslot { return slices.Clone(h.meta.keyslots) }

// Keyslot returns one keyslot.
func (h *Header) Keyslot(id int) (Keyslot, bool) { return h.meta.keyslot(id) }

// Tokens returns the tokens in the order of the document.
func (h *Header) Tokens() []Token { return slices.Clone(h.meta.tokens) }

// Token returns one token.
func (h *Header) Token(id int) (Token, bool) {
	i := slices.IndexFunc(h.meta.tokens, func(t Token) bool { return t.ID == id })
	if i < 0 {
		return Token{}, false
	}
	return h.meta.tokens[i], true
}

// Digests returns the digests.
func (h *Header) Digests() []Digest { return slices.Clone(h.meta.digests) }

// Segments returns the segments.
func (h *Header) Segments() []Segment { return slices.Clone(h.meta.segments) }

// Flags returns the persistent activation flags.
func (h *Header) Flags() []string { return slices.Clone(h.meta.flags) }

// Requirements returns what a tool must know to change or activate the volume.
func (h *Header) Requirements() []string { return slices.Clone(h.meta.requirements) }

// JSON returns the document as it would be written.
func (h *Header) JSON() json.RawMessage { return h.doc.encode() }

// JSONRoom returns the size of the document and of the room it has, in bytes.
func (h *Header) JSONRoom() (used, total int) {
	return len(h.doc.encode()), int(h.binary.HdrSize) - binarySize - 1
}

// Config returns a member of the config object that the format does not define,
// such as another tool's notes.
func (h *Header) Config(name string) (json.RawMessage, bool) {
	config, _ := h.doc.child("config")
	v, ok := config.get(name)
	if !ok {
		return nil, false
	}
	return appendValue(nil, v), true
}
