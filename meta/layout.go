package meta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// One copy of the Talos layout (go-adv v1.0.0, adv/talos/talos.go), big-endian:
//
//	0        4   magic1
//	4            records: tag 4 | size 4 | value; a tag of 0 ends them
//	262108   32  SHA-256 over the whole copy with this field zeroed
//	262140   4   magic2
const (
	copySize     = 256 << 10
	recordsAt    = 4
	checksumAt   = copySize - 36
	magic2At     = copySize - 4
	recordHeader = 8

	magic1 = 0x5a4b3c2d
	magic2 = 0xa5b4c3d2
)

// Capacity is how many bytes the values may take, with 8 more for each of them.
const Capacity = checksumAt - recordsAt

var _ [262104]struct{} = [Capacity]struct{}{}

// copyNames name the copies by their offset divided by copySize.
var copyNames = [2]string{"copy 1 (at byte 0)", "copy 2 (at byte 262144)"}

// Record is one tag and its value as they stand on the disk.
type Record struct {
	Tag   uint32 // as wide as the format has it
	Value []byte // may hold a passphrase
}

// values are values by tag.
type values map[Tag][]byte

func (v values) equal(o values) bool { return maps.EqualFunc(v, o, bytes.Equal) }

// size returns what the values take of [Capacity].
func (v values) size() (n int) {
	for _, value := range v {
		n += recordHeader + len(value)
	}
	return n
}

// over returns the values, and those of under that they do not hide.
func (v values) over(under values) values {
	all := make(values, len(v)+len(under))
	maps.Copy(all, under)
	maps.Copy(all, v)
	return all
}

// encode returns one copy. The values must fit.
func (v values) encode() []byte {
	p := make([]byte, copySize)
	binary.BigEndian.PutUint32(p, magic1)
	binary.BigEndian.PutUint32(p[magic2At:], magic2)
	records := p[recordsAt:recordsAt]
	for _, tag := range slices.Sorted(maps.Keys(v)) {
		records = binary.BigEndian.AppendUint32(records, uint32(tag))
		records = binary.BigEndian.AppendUint32(records, uint32(len(v[tag])))
		records = append(records, v[tag]...)
	}
	sum := sha256.Sum256(p)
	copy(p[checksumAt:], sum[:])
	return p
}

// decode returns the values of one copy, or what is wrong with it.
func decode(p []byte) (v values, flaw string) {
	if flaw := checkFrame(p); flaw != "" {
		return nil, flaw
	}
	records, flaw := scan(p)
	if flaw != "" {
		return nil, flaw
	}
	v = values{}
	for _, r := range records {
		if r.Tag > 0xff {
			return nil, fmt.Sprintf("the tag %#x is wider than a byte", r.Tag)
		}
		if _, twice := v[Tag(r.Tag)]; twice {
			return nil, fmt.Sprintf("the tag %s is there twice", Tag(r.Tag))
		}
		v[Tag(r.Tag)] = r.Value
	}
	return v, ""
}

// checkFrame checks everything but the records.
func checkFrame(p []byte) (flaw string) {
	switch {
	case isZero(p):
		return "it is all zeros"
	case binary.BigEndian.Uint32(p) != magic1:
		return "it does not begin with its magic number"
	case binary.BigEndian.Uint32(p[magic2At:]) != magic2:
		return "it does not end with its magic number"
	}
	h := sha256.New()
	h.Write(p[:checksumAt])
	h.Write(make([]byte, sha256.Size))
	h.Write(p[magic2At:])
	if !bytes.Equal(h.Sum(nil), p[checksumAt:magic2At]) {
		return "its checksum is wrong: it was changed, or written in part"
	}
	return ""
}

// scan returns the records of a copy up to their end or to the first that cannot
// be one. Values are parts of p.
func scan(p []byte) (records []Record, flaw string) {
	p = p[:checksumAt]
	for at := recordsAt; len(p)-at >= recordHeader; {
		tag, size := binary.BigEndian.Uint32(p[at:]), binary.BigEndian.Uint32(p[at+4:])
		if tag == 0 {
			break
		}
		value := at + recordHeader
		if left := len(p) - value; uint64(size) > uint64(left) {
			return records, fmt.Sprintf("the record at its byte %d claims %d bytes and there are %d", at, size, left)
		}
		at = value + int(size)
		records = append(records, Record{tag, p[value:at:at]})
	}
	return records, ""
}

// isZero compares p with itself one byte further on.
func isZero(p []byte) bool { return len(p) == 0 || p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }
