package probe

import "fmt"

// Kinds of findings that callers tell apart. The others are names of formats
// for people and logs; see table.go.
const (
	KindLUKS1          = "luks1"
	KindLUKS2          = "luks2"
	KindLUKS2Secondary = "luks2-secondary"
	KindGPT            = "gpt"
	KindGPTBackup      = "gpt-backup"
	KindMBR            = "mbr"
	KindMeta           = "talos-meta"
	// KindMarker is the note of a format that did not finish, see package marker.
	KindMarker = "cryptctl-format"
	// KindData is bytes that are not zero and that no signature explains.
	KindData = "data"
)

// Finding is one thing seen on an area.
type Finding struct {
	Kind   string // one of the constants, or another lower-case name such as "xfs"
	Offset int64  // bytes from the start of the area to what gave it away
	Detail string // for people, a part of a sentence: "an XFS superblock"
}

// String returns the finding for a message: "an XFS superblock at byte 0".
func (f Finding) String() string { return fmt.Sprintf("%s at byte %d", f.Detail, f.Offset) }
