// Package marker is the note that a format leaves at the start of a volume
// while it runs: a power cut in the middle must not leave a volume that is
// neither a volume nor proven empty.
//
// The formatter writes it first, syncs, writes the rest and overwrites it last:
//
//	offset  size
//	     0    16  "CRYPTCTL-FORMAT\n"
//	    16     8  reach, big-endian: every write of the formatter ends at or before it
//	    24    36  UUID of the volume that was to be, text
//	    60   420  zeros
//	   480    32  SHA-256 of the bytes before it
//
// It is one sector: a disk writes it whole or not at all, so that there is no
// instant at which the volume is neither as it was nor marked. The checksum
// tells the note from chance and damage. It has no key: whoever can write the
// note could as well write zeros over the volume.
package marker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"math"
)

const (
	// Size is the length of an encoded marker in bytes: the smallest sector.
	Size = 512
	// MaxReach bounds what a marker may excuse. The largest LUKS2 header with
	// the largest keyslots area takes 136 MiB.
	MaxReach = 256 << 20

	magic    = "CRYPTCTL-FORMAT\n"
	reachAt  = len(magic)
	uuidAt   = reachAt + 8
	uuidSize = 36
	sumAt    = Size - sha256.Size
)

// Marker says that a format of the volume UUID began and that nothing at or
// after byte Reach was written by it.
type Marker struct {
	UUID  string // 36 characters: 8-4-4-4-12 hexadecimal digits
	Reach int64  // bytes from the start of the volume
}

// Encode returns the marker's [Size] bytes. What [Decode] would refuse (a UUID
// of another form, a Reach below Size) is encoded as it is: the caller checks
// its own values.
func (m Marker) Encode() []byte {
	b := make([]byte, Size)
	copy(b, magic)
	binary.BigEndian.PutUint64(b[reachAt:], uint64(m.Reach))
	if len(m.UUID) == uuidSize { // never a part of a longer text
		copy(b[uuidAt:], m.UUID)
	}
	sum := sha256.Sum256(b[:sumAt])
	copy(b[sumAt:], sum[:])
	return b
}

// Decode reads a marker from the first [Size] bytes of b. It reports false for
// anything that Encode does not make of a proper UUID and a Reach of at least
// Size. Whether the reach is acceptable ([MaxReach], the size of the volume) is
// for the caller to judge.
func Decode(b []byte) (Marker, bool) {
	if len(b) < Size || string(b[:len(magic)]) != magic {
		return Marker{}, false
	}
	reach := binary.BigEndian.Uint64(b[reachAt:])
	m := Marker{UUID: string(b[uuidAt : uuidAt+uuidSize]), Reach: int64(reach)}
	if reach < Size || reach > math.MaxInt64 || !isUUID(m.UUID) {
		return Marker{}, false
	}
	if !bytes.Equal(b[:Size], m.Encode()) {
		return Marker{}, false
	}
	return m, true
}

func isUUID(s string) bool {
	for i, c := range []byte(s) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			hex := '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
			if !hex {
				return false
			}
		}
	}
	return len(s) == uuidSize
}
