package meta

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// The legacy vector is the syslinux ADV (go-adv v1.0.0, adv/syslinux), twice in
// the last two sectors, little-endian:
//
//	0     4   magic1
//	4     4   magic2 minus the 32-bit words of the records
//	8         records: tag 1 | size 1 | value; a tag of 0 ends them
//	508   4   magic3
const (
	legacySize      = 512
	legacyAt        = Size - 2*legacySize
	legacyRecordsAt = 8
	legacyMagic3At  = legacySize - 4

	legacyMagic1 = 0x5a2d2fa5
	legacyMagic2 = 0xa3041767
	legacyMagic3 = 0xdd28bf64
)

// legacy is the last 1024 bytes of META.
type legacy struct {
	raw    []byte
	inUse  []byte // the sector that counts, a part of raw, or nil
	values values
	flaws  []string
}

// readLegacy looks at both sectors. The first good one counts. Talos looks at
// the first without checking it; one that is neither good nor zeros is what an
// earlier use of the disk left, and nothing of it is read here.
func readLegacy(raw []byte) legacy {
	l := legacy{raw: raw, values: values{}}
	for i, name := range []string{"first", "second"} {
		p := raw[i*legacySize:][:legacySize]
		if isZero(p) {
			continue
		}
		v, flaw := decodeLegacy(p)
		switch {
		case flaw != "":
			l.flaws = append(l.flaws, fmt.Sprintf("the %s legacy sector (at byte %d) is not used: %s", name, legacyAt+i*legacySize, flaw))
		case l.inUse == nil:
			l.inUse, l.values = p, v
		}
	}
	return l
}

func decodeLegacy(p []byte) (v values, flaw string) {
	switch {
	case binary.LittleEndian.Uint32(p) != legacyMagic1 || binary.LittleEndian.Uint32(p[legacyMagic3At:]) != legacyMagic3:
		return nil, "it lacks its magic numbers"
	case binary.LittleEndian.Uint32(p[4:]) != legacyChecksum(p):
		return nil, "its checksum is wrong"
	}
	v = values{}
	flaw = eachLegacy(p, func(tag Tag, record []byte) {
		if _, twice := v[tag]; !twice { // Talos takes the first
			v[tag] = record[2:]
		}
	})
	return v, flaw
}

// eachLegacy calls f for each record, its two header bytes included.
func eachLegacy(p []byte, f func(tag Tag, record []byte)) (flaw string) {
	// Talos looks for no record in the last two bytes.
	for p = p[legacyRecordsAt:legacyMagic3At]; len(p) > 2 && p[0] != 0; {
		n := 2 + int(p[1])
		if n > len(p) {
			return fmt.Sprintf("the record of tag %s goes beyond its end", Tag(p[0]))
		}
		f(Tag(p[0]), p[:n:n])
		p = p[n:]
	}
	return ""
}

func legacyChecksum(p []byte) uint32 {
	sum := uint32(legacyMagic2)
	for i := legacyRecordsAt; i < legacyMagic3At; i += 4 {
		sum -= binary.LittleEndian.Uint32(p[i:])
	}
	return sum
}

// without returns the legacy bytes with the records of some tags taken out. With
// no tags they are what was read, byte for byte.
func (l legacy) without(tags []Tag) []byte {
	if len(tags) == 0 {
		return l.raw
	}
	p := make([]byte, legacySize)
	kept := p[legacyRecordsAt:legacyRecordsAt]
	eachLegacy(l.inUse, func(tag Tag, record []byte) {
		if !slices.Contains(tags, tag) {
			kept = append(kept, record...)
		}
	})
	binary.LittleEndian.PutUint32(p, legacyMagic1)
	binary.LittleEndian.PutUint32(p[4:], legacyChecksum(p))
	binary.LittleEndian.PutUint32(p[legacyMagic3At:], legacyMagic3)
	return bytes.Repeat(p, 2)
}
