package luks1

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
)

// Constants of the format (LUKS1 On-Disk Format Specification 1.1.1).
const (
	magic    = "LUKS\xba\xbe"
	version  = 1
	sector   = 512
	stripes  = 4000       // the one number that was ever in use
	enabled  = 0x00AC71F3 // LUKS_KEY_ENABLED
	disabled = 0x0000DEAD // LUKS_KEY_DISABLED
	maxSlots = 8

	// maxKeySize is four times the largest key of any cipher, so that sizes made
	// of it cannot overflow.
	maxKeySize = 256
)

// rawHeader is struct phdr of section 2.1.
type rawHeader struct {
	Magic             [6]byte
	Version           uint16
	CipherName        [32]byte
	CipherMode        [32]byte
	HashSpec          [32]byte
	PayloadOffset     uint32 // sectors
	KeyBytes          uint32
	MKDigest          [20]byte
	MKDigestSalt      [32]byte
	MKDigestIteration uint32
	UUID              [40]byte
	Slots             [maxSlots]rawSlot
}

// rawSlot is struct key slot of section 2.1.
type rawSlot struct {
	Active            uint32
	Iterations        uint32
	Salt              [32]byte
	KeyMaterialOffset uint32 // sectors
	Stripes           uint32
}

const (
	slotSize   = 4 + 4 + 32 + 4 + 4
	headerSize = 6 + 2 + 3*32 + 4 + 4 + 20 + 32 + 4 + 40 + maxSlots*slotSize
)

var _ [592]byte = [headerSize]byte{} // the size that the specification states

// Header is a header that was read and found valid. What may be unlocked of it
// is for [Header.Trust] to say.
type Header struct {
	raw                      rawHeader
	cipher, mode, hash, uuid string
	dev                      io.ReaderAt
}

// Slot is an active key slot.
type Slot struct {
	ID         int    `json:"slot"`
	Iterations uint32 `json:"iterations"` // of PBKDF2 with the header's hash
	Offset     int64  `json:"offset"`     // of its key material, in bytes
	Size       int64  `json:"size"`       // in whole sectors
}

// Read reads the header at the beginning of the device. A device without one
// gives [luks.NotLUKS]; a header that breaks the format a [luks.Refusal] of the
// level [luks.Invalid].
func Read(dev luks.Device) (*Header, error) {
	size := dev.Size()
	if size < headerSize {
		return nil, invalid(luks.NotLUKS, "header", "the device of %d bytes is too small for one", size)
	}
	var p [headerSize]byte
	if n, err := dev.ReadAt(p[:], 0); n != len(p) {
		return nil, fmt.Errorf("read the LUKS1 header: %w", err)
	}
	h, err := parse(p[:], size)
	if err != nil {
		return nil, err
	}
	h.dev = dev
	return h, nil
}

// parse reads and checks a header of a device of size bytes.
func parse(p []byte, size int64) (*Header, error) {
	h := &Header{}
	if _, err := binary.Decode(p, binary.BigEndian, &h.raw); err != nil {
		return nil, fmt.Errorf("LUKS1 header: %w", err)
	}
	switch {
	case string(h.raw.Magic[:]) != magic:
		return nil, invalid(luks.NotLUKS, "header", "there is no LUKS magic")
	case h.raw.Version != version:
		return nil, invalid(luks.BadVersion, "header", "version %d, must be 1", h.raw.Version)
	}
	for _, f := range []struct {
		name string
		raw  []byte
		text *string
	}{
		{"cipher-name", h.raw.CipherName[:], &h.cipher},
		{"cipher-mode", h.raw.CipherMode[:], &h.mode},
		{"hash-spec", h.raw.HashSpec[:], &h.hash},
		{"uuid", h.raw.UUID[:], &h.uuid},
	} {
		text, ok := word(f.raw)
		if !ok {
			return nil, invalid(luks.BadText, f.name, "%q is not a word that ends in a NUL", f.raw)
		}
		*f.text = text
	}
	if h.raw.KeyBytes == 0 || h.raw.KeyBytes > maxKeySize {
		return nil, invalid(luks.BadNumber, "key-bytes", "%d, must be 1 to %d", h.raw.KeyBytes, maxKeySize)
	}
	if err := h.checkLayout(size); err != nil {
		return nil, err
	}
	return h, nil
}

// word returns a field's text: printable, without blanks, before a NUL.
func word(p []byte) (string, bool) {
	text, _, ok := bytes.Cut(p, []byte{0})
	unprintable := func(r rune) bool { return r <= ' ' || r > '~' }
	return string(text), ok && len(text) > 0 && !strings.ContainsFunc(string(text), unprintable)
}

// checkLayout holds the active slots against the device, the data and each
// other. Slots that are not active have offsets too, which mean nothing.
func (h *Header) checkLayout(size int64) error {
	end, what := size, "device"
	if payload := h.PayloadOffset(); payload > 0 && payload < end {
		end, what = payload, "room before the data"
	}
	for id, s := range h.raw.Slots {
		if s.Active != enabled && s.Active != disabled {
			return invalid(luks.BadStructure, at(id), "is marked %#x, which is neither active nor free", s.Active)
		}
	}
	active := h.Slots()
	for i, s := range active {
		switch {
		case h.raw.Slots[s.ID].Stripes != stripes:
			return invalid(luks.BadStructure, at(s.ID), "has %d stripes, must be %d", h.raw.Slots[s.ID].Stripes, stripes)
		case s.Offset < headerSize:
			return invalid(luks.BadAreas, at(s.ID), "its key material at byte %d lies in the header", s.Offset)
		case s.Offset > end || s.Size > end-s.Offset:
			return invalid(luks.BadAreas, at(s.ID), "its key material of %d bytes at byte %d does not lie within the %s, which ends at byte %d", s.Size, s.Offset, what, end)
		}
		for _, o := range active[:i] {
			if s.Offset < o.Offset+o.Size && o.Offset < s.Offset+s.Size {
				return invalid(luks.BadAreas, at(s.ID), "its key material overlaps that of slot %d", o.ID)
			}
		}
	}
	return nil
}

func at(slot int) string { return fmt.Sprintf("slot %d", slot) }

// UUID returns the volume's UUID as it stands in the header: a word, of a disk
// that anyone may have written.
func (h *Header) UUID() string { return h.uuid }

// Cipher returns the cipher of data and key material, as dm-crypt names it.
func (h *Header) Cipher() string { return h.cipher + "-" + h.mode }

// Hash returns the hash of PBKDF2 and of the anti-forensic splitter.
func (h *Header) Hash() string { return h.hash }

// KeySize returns the length of the volume key in bytes.
func (h *Header) KeySize() int { return int(h.raw.KeyBytes) }

// PayloadOffset returns where the data begins, in bytes. It is 0 for a detached
// header whose data begins at the start of its device.
func (h *Header) PayloadOffset() int64 { return int64(h.raw.PayloadOffset) * sector }

// Slots returns the active slots in ascending order.
func (h *Header) Slots() []Slot {
	slots := []Slot{}
	for id, s := range h.raw.Slots {
		if s.Active == enabled {
			slots = append(slots, Slot{id, s.Iterations, int64(s.KeyMaterialOffset) * sector, h.materialSize()})
		}
	}
	return slots
}

// materialSize is the length of a slot's key material, in whole sectors.
func (h *Header) materialSize() int64 {
	return (int64(h.raw.KeyBytes)*stripes + sector - 1) / sector * sector
}

func invalid(code luks.Code, where, format string, args ...any) error {
	return &luks.Refusal{Level: luks.Invalid, Code: code, Where: where, Reason: fmt.Sprintf(format, args...), Slot: -1}
}
