package volume

import (
	"errors"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/mapping"
)

// ErrHalfMade is wrapped when making the file system failed: a plain volume then
// holds part of it.
var ErrHalfMade = errors.New("the file system was not finished")

// Errors that callers act on. Each leaves the partition untouched.
var (
	// ErrEmpty: the partition is proven empty, and may not be formatted.
	ErrEmpty = errors.New("the partition is empty")
	// ErrContent: the partition holds something else than it should.
	ErrContent = errors.New("the partition holds something else")
	// ErrMissing: no partition has the label.
	ErrMissing = errors.New("no partition has the label")
	// ErrAmbiguous: several partitions have the label.
	ErrAmbiguous = errors.New("several partitions have the label")
)

// File systems of a [Spec].
const (
	XFS  = "xfs"
	Ext4 = "ext4"
	Swap = "swap"
	// Auto takes the file system that is there, and makes xfs, or ext4 on a volume
	// that is too small for xfs.
	Auto = ""
	// None leaves the volume to its user.
	None = "none"
)

// Spec says what a volume shall be.
type Spec struct {
	Name       string      // its id: STATE, EPHEMERAL, u-data. The mapping is luks2-<Name>
	Encryption *Encryption // nil: plain
	Filesystem string
	// Known is what was recorded of the volume; nil when nothing was.
	Known *Identity
	// MayFormat allows to format a partition that is proven empty.
	MayFormat bool
}

// Encryption says how a volume is encrypted. Cipher, KeySize and SectorSize are
// for a new one; a volume keeps those that it was made with.
type Encryption struct {
	Keys []keys.Key
	// Former are keys that the header may still have; see [keys.Options].
	Former     [][]keys.Key
	Cipher     string
	KeySize    int // bits; 0: 512
	SectorSize int // bytes
	Flags      []mapping.Flag
}

// MappingName is the name of a volume's mapping, as Talos has it since 1.12.
func MappingName(name string) string { return "luks2-" + name }
