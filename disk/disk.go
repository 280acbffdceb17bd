// Package disk finds partitions by their labels on a disk or a disk image, and
// makes fresh images.
//
//	sector 0   1        2 ...            usable sectors             ... last
//	+-------+--------+---------+---------------------------------+---------+--------+
//	| MBR   | header | entries | partition | partition | ...     | entries | header |
//	+-------+--------+---------+---------------------------------+---------+--------+
//	  protective       \--- checksums ---/      backup of both: ---^---------^
//
// Only GPT is read (UEFI 2.10, chapter 5), and by a reader of our own. The one
// of go-blockdevice leaves out partitions that do not fit instead of refusing
// the table, does not say that it took the backup, does not look at the backup
// when the entries of the primary cannot be read, and gives labels that are not
// UTF-16 another text. Its writer makes our images.
//
// What is read is hostile until checked: a table is refused as a whole if a
// partition lies outside of the usable sectors, overlaps another one or has a
// label that is not text. The checksums have no key and protect from accidents
// only: that a partition carries a label proves nothing about what is in it.
package disk

import (
	"errors"
	"fmt"
	"strings"
)

var (
	// ErrNoTable says that there is no GPT at either end, not even a damaged one.
	ErrNoTable = errors.New("no GPT partition table")
	// ErrNoPartition says that no partition has the label.
	ErrNoPartition = errors.New("no partition with that label")
)

// LinuxFilesystem is the partition type of Linux file system data, in which
// Talos keeps META, STATE and EPHEMERAL.
const LinuxFilesystem = "0fc63daf-8483-4772-8e79-3d69d8477de4"

// Partition is one entry of a table.
type Partition struct {
	Number int    `json:"number"` // from 1, as in /dev/sda1
	Label  string `json:"label"`  // up to 36 UTF-16 units; hostile text, print it with %q
	Type   string `json:"type"`   // GUID, lower case
	UUID   string `json:"uuid"`   // GUID of this partition, lower case
	Offset int64  `json:"offset"` // bytes from the start of the disk
	Size   int64  `json:"size"`   // bytes
}

// Table is a partition table that was found sound.
type Table struct {
	SectorSize int         `json:"sector_size"`
	Size       int64       `json:"size"` // of the disk, in bytes
	Partitions []Partition `json:"partitions"`

	// Damage says, a sentence part each, what is wrong with the copy that was
	// not used or around it. The partitions can be used nevertheless; the table
	// should be repaired.
	Damage []string `json:"damage,omitempty"`
}

// Find returns the only partition with the label. It fails with
// [ErrNoPartition] if there is none, and with another error if there are two.
func (t *Table) Find(label string) (Partition, error) {
	var found []Partition
	var all []string
	for _, p := range t.Partitions {
		if p.Label == label {
			found = append(found, p)
		}
		all = append(all, fmt.Sprintf("%d %q", p.Number, p.Label))
	}
	switch {
	case label == "":
		return Partition{}, errors.New("an empty label names no partition")
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Partition{}, fmt.Errorf("partitions %d and %d are both labelled %q: relabel one of them, or name the one that is meant by its device",
			found[0].Number, found[1].Number, label)
	case len(all) == 0:
		return Partition{}, fmt.Errorf("%w: %q, and the table is empty", ErrNoPartition, label)
	}
	return Partition{}, fmt.Errorf("%w: %q; there are %s", ErrNoPartition, label, strings.Join(all, ", "))
}
