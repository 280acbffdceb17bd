package luks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unsafe"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// Sizes of the LUKS2 On-Disk Format Specification, section 2.1.
const (
	binarySize  = 4096
	minHdrSize  = 16 << 10
	maxHdrSize  = 4 << 20
	alignment   = 4096      // of keyslot areas and of the keyslots area
	maxKeyslots = 128 << 20 // cap of config.keyslots_size, as cryptsetup has it
	textLabel   = 47        // longest label and subsystem, before the NUL
)

// binaryHeader is the binary header, big-endian, section 2.1 of the
// specification. Two copies exist; they differ in magic, salt, offset, checksum.
type binaryHeader struct {
	Magic       [6]byte
	Version     uint16
	HdrSize     uint64
	SeqID       uint64
	Label       [48]byte
	ChecksumAlg [32]byte
	Salt        [64]byte
	UUID        [40]byte
	Subsystem   [48]byte
	HdrOffset   uint64
	_           [184]byte
	Checksum    [64]byte
	_           [512 * 7]byte
}

var _ = [1]struct{}{}[unsafe.Sizeof(binaryHeader{})-binarySize]

var (
	primaryMagic   = [6]byte{'L', 'U', 'K', 'S', 0xBA, 0xBE}
	secondaryMagic = [6]byte{'S', 'K', 'U', 'L', 0xBA, 0xBE}
)

// checksumOffset and the end of the checksum in the encoded header.
const (
	seqOffset      = 16
	checksumOffset = 448
	checksumSize   = 64
)

func validHdrSize(n uint64) bool {
	return n >= minHdrSize && n <= maxHdrSize && n&(n-1) == 0
}

func decodeBinary(p []byte) (b binaryHeader) {
	if _, err := binary.Decode(p, binary.BigEndian, &b); err != nil {
		panic(err) // p is binarySize bytes
	}
	return b
}

// cstring returns the text of a NUL-terminated field.
func cstring(p []byte) (string, bool) {
	i := bytes.IndexByte(p, 0)
	if i < 0 {
		return "", false
	}
	return string(p[:i]), true
}

// checksum hashes one whole copy, its checksum field taken as zeros.
func checksum(alg string, copy []byte) ([]byte, error) {
	newHash, err := kdf.NewHash(alg)
	if err != nil {
		return nil, err
	}
	h := newHash()
	h.Write(copy[:checksumOffset])
	h.Write(make([]byte, checksumSize))
	h.Write(copy[checksumOffset+checksumSize:])
	return h.Sum(nil), nil
}

// encodeCopy renders one header copy: the binary header, the JSON text and zeros
// to the end of the JSON area, with the checksum over all of it.
func encodeCopy(b binaryHeader, text []byte) ([]byte, error) {
	if room := int(b.HdrSize) - binarySize - 1; len(text) > room {
		return nil, &RoomError{What: JSONArea, Need: int64(len(text)), Have: int64(room)}
	}
	out := make([]byte, b.HdrSize)
	b.Checksum = [64]byte{}
	if _, err := binary.Encode(out, binary.BigEndian, &b); err != nil {
		return nil, err
	}
	copy(out[binarySize:], text)
	alg, _ := cstring(b.ChecksumAlg[:])
	sum, err := checksum(alg, out)
	if err != nil {
		return nil, err
	}
	copy(out[checksumOffset:], sum)
	return out, nil
}

// Places of a [RoomError].
const (
	JSONArea     = "JSON area"
	KeyslotsArea = "keyslots area"
)

// RoomError says that something does not fit the header. Nothing was written.
type RoomError struct {
	What       string // JSONArea or KeyslotsArea
	Need, Have int64  // bytes
}

func (e *RoomError) Error() string {
	larger := "larger metadata"
	if e.What == KeyslotsArea {
		larger = "a larger data offset"
	}
	return fmt.Sprintf("no room in the %s: %d bytes needed, %d there; nothing was written (a volume formatted with %s has more room)", e.What, e.Need, e.Have, larger)
}
