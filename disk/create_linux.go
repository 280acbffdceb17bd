package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"
	"github.com/siderolabs/go-blockdevice/v2/partitioning/gpt"
)

// Create makes a new sparse image with the partitions, in that order, each
// starting at a multiple of 1 MiB, and syncs it and its folder. It never touches
// a file or device that is there, and removes the image if it cannot finish it.
func Create(path string, size int64, parts []Spec) (*Table, error) {
	if size < 0 || size%newSector != 0 {
		return nil, fmt.Errorf("create %s: the size of %d bytes is not a multiple of %d", path, size, newSector)
	}
	if err := checkSpecs(parts); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create image: %w", err)
	}
	t, err := partition(f, size, parts)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = syncFolder(path)
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return t, nil
}

// partition turns an empty file into an image and reads back what it wrote.
func partition(f *os.File, size int64, parts []Spec) (*Table, error) {
	// Below this the writer's search for free sectors wraps around and finds
	// room beyond the end of the image.
	if size < 2*alignment {
		return nil, fmt.Errorf("an image of %d bytes is too small for any partition", size)
	}
	if err := f.Truncate(size); err != nil {
		return nil, err
	}
	dev, err := gpt.DeviceFromFile(f, gpt.WithFileSectorSize(newSector))
	if err != nil {
		return nil, err
	}
	table, err := gpt.New(dev)
	if err != nil {
		return nil, err
	}
	left, err := leftover(int64(table.LargestContiguousAllocatable()), size, parts)
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		if err := add(table, p, left); err != nil {
			return nil, fmt.Errorf("partition %q: %w", p.Label, err)
		}
	}
	if err := table.Write(); err != nil { // syncs the file
		return nil, err
	}
	return Read(f)
}

// leftover returns how many of the room bytes the partitions of a given size
// leave, every one rounded up to the alignment.
func leftover(room, size int64, parts []Spec) (int64, error) {
	left, need := room, int64(0)
	for _, p := range parts {
		n := max(p.Size, 1) // the rest takes one unit at least
		n += (alignment - n%alignment) % alignment
		if need += n; n < 0 || need < 0 {
			return 0, errors.New("the partitions need more than 2^63 bytes")
		}
		if p.Size > 0 {
			left -= n
		}
	}
	if need > room {
		return 0, fmt.Errorf("the image of %d bytes has room for %d bytes of partitions; these need %d", size, room, need)
	}
	return left, nil
}

// add appends one partition to the table.
func add(table *gpt.Table, p Spec, left int64) error {
	kind, err := uuid.Parse(LinuxFilesystem)
	if p.Type != "" {
		kind, err = uuid.Parse(p.Type)
	}
	if err != nil || kind == uuid.Nil {
		return fmt.Errorf("its type %q is not a GUID", p.Type)
	}
	size := p.Size
	if size == 0 {
		size = left
	}
	_, _, err = table.AllocatePartition(uint64(size), p.Label, kind)
	return err
}

// syncFolder makes the name of a new file durable.
func syncFolder(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
