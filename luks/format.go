package luks

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/pbkdf2"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// Defaults of [FormatOptions].
const (
	// DefaultMetadataSize holds 32 keyslots with 32 tokens of 800 bytes.
	// cryptsetup's 16 KiB hold 12 slots with a TPM token each.
	DefaultMetadataSize = 64 << 10
	// DefaultDataOffset is cryptsetup's; it leaves 64 areas for 32 keyslots, so
	// that each can be replaced while all are in use.
	DefaultDataOffset = 16 << 20
	// DefaultVolumeKeySize is the key of aes-xts-plain64 with AES-256, in bytes.
	DefaultVolumeKeySize = 64

	// digestIterations is cryptsetup's minimum. A digest proves a random key,
	// which no number of iterations makes harder to guess.
	digestIterations = 1000
)

// FormatOptions says what volume to make. The zero value gives the defaults.
type FormatOptions struct {
	UUID         string // default random; 8-4-4-4-12 hexadecimal digits
	Label        string // up to 47 bytes
	Subsystem    string // up to 47 bytes
	Cipher       string // default aes-xts-plain64
	SectorSize   int    // bytes; default 4096 where the data is a multiple of it, else 512
	MetadataSize int64  // of one copy, a power of two from 16 KiB to 4 MiB
	DataOffset   int64  // where the data begins, in bytes; multiple of 4096
	// Detached means that the device holds the header only; DataOffset is then
	// the place on the data device and may be 0, its default.
	Detached bool
	// Empty, when set, is asked under the device's lock, right before the first
	// write, whether the device holds nothing; its error ends the format. A
	// header that can be read is never nothing: [ErrNotEmpty].
	Empty func(Device) error
	// Config are members of our own for the config object; see [SetConfig].
	Config map[string]json.RawMessage
	// DataSize is the length of the data device of a detached header in bytes,
	// which decides the default sector size.
	DataSize int64
}

// ErrNotEmpty is wrapped when a device that was to be empty holds a volume.
var ErrNotEmpty = errors.New("the device is not empty")

// NewUUID returns a random UUID (RFC 9562, version 4) as text.
func NewUUID() string {
	var u [16]byte
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

// Format writes a new header, with the keyslots and tokens that the changes add,
// in one step: after a power cut the device holds the finished volume, or a
// marker that says a format was interrupted (package probe/marker), which lets it be
// formatted again. Format does not look at what is on the device: whoever calls
// it must have proven it empty, or mean to destroy it.
func Format(dev Device, key *VolumeKey, opts FormatOptions, changes ...Change) (*Header, error) {
	b, doc, err := opts.layout(dev, key)
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	bare, err := checkedSnapshot(b, doc)
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	key.digest = (&Header{snapshot: *bare}).digestText(0)
	d := &draft{base: bare, now: bare, next: doc.clone()}
	for _, name := range slices.Sorted(maps.Keys(opts.Config)) {
		changes = append(changes, SetConfig(name, opts.Config[name]))
	}
	for _, c := range changes {
		if err := c.apply(d); err != nil {
			return nil, fmt.Errorf("format: %w", err)
		}
	}
	next, err := d.finish(1)
	if err != nil {
		return nil, fmt.Errorf("format: %w", err)
	}
	if len(next.meta.keyslots) == 0 {
		return nil, fmt.Errorf("format: at least one keyslot is needed to open the volume")
	}
	release, err := lock(dev, true)
	if err != nil {
		return nil, err
	}
	defer release()
	if opts.Empty != nil {
		if now, err := read(dev); err == nil {
			return nil, fmt.Errorf("format: %w: it holds LUKS2 volume %s", ErrNotEmpty, printable(now.UUID()))
		}
		if err := opts.Empty(dev); err != nil {
			return nil, fmt.Errorf("format: %w", err)
		}
	}
	h, err := writeFresh(dev, next, d.writes)
	if err != nil {
		return h, fmt.Errorf("format: %w", err)
	}
	return h, nil
}

// layout turns options into a binary header and a document without keyslots.
func (o FormatOptions) layout(dev Device, key *VolumeKey) (b binaryHeader, doc *object, err error) {
	o = o.orDefault(dev)
	if err := o.check(dev, key.key.Len()); err != nil {
		return b, nil, err
	}
	b = binaryHeader{Magic: primaryMagic, Version: 2, HdrSize: uint64(o.MetadataSize), SeqID: 1}
	copy(b.ChecksumAlg[:], "sha256")
	copy(b.UUID[:], o.UUID)
	copy(b.Label[:], o.Label)
	copy(b.Subsystem[:], o.Subsystem)

	keyslotsSize := min((o.headerEnd(dev)-2*o.MetadataSize)/alignment*alignment, maxKeyslots)
	salt := secret.Random(kdf.SaltSize) // public
	defer salt.Wipe()
	newHash, err := kdf.NewHash(slotHash)
	if err != nil {
		return b, nil, err
	}
	digest := pbkdf2.Key(key.key.Bytes(), salt.Bytes(), digestIterations, newHash().Size(), newHash)
	return b, newObject(
		"keyslots", &object{},
		"tokens", &object{},
		"segments", newObject("0", newObject(
			"type", "crypt", "offset", decimal(o.DataOffset), "size", "dynamic", "iv_tweak", "0",
			"encryption", o.Cipher, "sector_size", number(o.SectorSize))),
		"digests", newObject("0", newObject(
			"type", "pbkdf2", "keyslots", []any{}, "segments", []any{"0"}, "hash", slotHash,
			"iterations", number(digestIterations), "salt", base64.StdEncoding.EncodeToString(salt.Bytes()),
			"digest", base64.StdEncoding.EncodeToString(digest))),
		"config", newObject("json_size", decimal(o.MetadataSize-binarySize), "keyslots_size", decimal(keyslotsSize)),
	), nil
}

// headerEnd is where the header must end: at the data, or at the end of a
// detached header's device. The format holds a detached header to the data's
// offset too, unless that is 0.
func (o FormatOptions) headerEnd(dev Device) int64 {
	switch {
	case !o.Detached:
		return o.DataOffset
	case o.DataOffset > 0:
		return min(dev.Size(), DefaultDataOffset, o.DataOffset)
	}
	return min(dev.Size(), DefaultDataOffset)
}

func (o FormatOptions) orDefault(dev Device) FormatOptions {
	if o.UUID == "" {
		o.UUID = NewUUID()
	}
	if o.Cipher == "" {
		o.Cipher = areaCipher
	}
	if o.MetadataSize == 0 {
		o.MetadataSize = DefaultMetadataSize
	}
	if o.DataOffset == 0 && !o.Detached {
		o.DataOffset = DefaultDataOffset
	}
	if !o.Detached {
		o.DataSize = dev.Size()
	}
	if o.SectorSize == 0 {
		if o.SectorSize = 512; (o.DataSize-o.DataOffset)%4096 == 0 {
			o.SectorSize = 4096
		}
	}
	return o
}

func (o FormatOptions) check(dev Device, keySize int) error {
	sizes, known := segmentCiphers(o.Cipher)
	oneArea := 2*o.MetadataSize + areaSize(keySize)
	switch {
	case !validUUID(o.UUID):
		return fmt.Errorf("UUID %q is not of the form 8-4-4-4-12 hexadecimal digits", o.UUID)
	case len(o.Label) > textLabel || len(o.Subsystem) > textLabel:
		return fmt.Errorf("label and subsystem may have %d bytes, they have %d and %d", textLabel, len(o.Label), len(o.Subsystem))
	case strings.ContainsRune(o.Label+o.Subsystem, 0):
		return fmt.Errorf("label and subsystem must not contain a NUL byte")
	case !known:
		return fmt.Errorf("cipher %q is not one of aes-xts-plain64, xchacha12,aes-adiantum-plain64, xchacha20,aes-adiantum-plain64", o.Cipher)
	case !slices.Contains(sizes, keySize):
		return fmt.Errorf("a volume key of %d bits does not fit %s", keySize*8, o.Cipher)
	case !slices.Contains([]int{512, 1024, 2048, 4096}, o.SectorSize):
		return fmt.Errorf("sector size %d is not 512, 1024, 2048 or 4096", o.SectorSize)
	case o.MetadataSize < 0 || !validHdrSize(uint64(o.MetadataSize)):
		return fmt.Errorf("metadata size %d is not a power of two from 16 KiB to 4 MiB", o.MetadataSize)
	case o.DataOffset < 0 || o.DataOffset%alignment != 0:
		return fmt.Errorf("data offset %d is not a multiple of %d", o.DataOffset, alignment)
	case (!o.Detached || o.DataOffset > 0) && o.DataOffset < oneArea:
		return fmt.Errorf("data offset %d leaves no room for the header, which needs %d bytes for one keyslot", o.DataOffset, oneArea)
	case o.Detached && dev.Size() < oneArea:
		return fmt.Errorf("the header device of %d bytes is too small: %d are needed for one keyslot", dev.Size(), oneArea)
	case !o.Detached && dev.Size() < o.DataOffset+int64(o.SectorSize):
		return fmt.Errorf("the device of %d bytes is too small: the header takes %d, and the data needs at least one sector of %d", dev.Size(), o.DataOffset, o.SectorSize)
	case o.Detached && o.DataSize > 0 && o.DataSize < o.DataOffset+int64(o.SectorSize):
		return fmt.Errorf("the data device of %d bytes is too small: the data begins at byte %d and needs at least one sector of %d", o.DataSize, o.DataOffset, o.SectorSize)
	case o.DataSize > 0 && (o.DataSize-o.DataOffset)%int64(o.SectorSize) != 0:
		return fmt.Errorf("the data of %d bytes is not a multiple of the sector size %d", o.DataSize-o.DataOffset, o.SectorSize)
	}
	return nil
}

// validUUID reports whether s is 8-4-4-4-12 hexadecimal digits.
func validUUID(s string) bool {
	parts := strings.Split(s, "-")
	if len(parts) != 5 {
		return false
	}
	for i, n := range []int{8, 4, 4, 4, 12} {
		if len(parts[i]) != n || strings.Trim(parts[i], "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return true
}
