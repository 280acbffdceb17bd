package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/cryptctl/cryptctl/disk"
)

// Partition is a partition of this machine.
type Partition struct {
	disk.Partition
	Disk   string // /dev/vda
	Device string // /dev/vda3
}

// Partitions are those of all disks.
type Partitions []Partition

// sysBlock is where the kernel lists disks and partitions.
const sysBlock = "/sys/class/block"

// Disks returns the devices of the machine that may have a partition table.
func Disks() ([]string, error) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil, fmt.Errorf("list the disks: %w", err)
	}
	var disks []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "dm-") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") || strings.HasPrefix(name, "sr") {
			continue
		}
		if size, err := os.ReadFile(filepath.Join("/sys/block", name, "size")); err != nil || strings.TrimSpace(string(size)) == "0" {
			continue
		}
		disks = append(disks, "/dev/"+strings.ReplaceAll(name, "!", "/"))
	}
	return disks, nil
}

// Scan reads the partition tables of disks. One without a table has none; one
// that cannot be read is an error, since a second STATE might be on it. A disk
// that is named twice is read once.
func Scan(disks []string) (Partitions, error) {
	var all Partitions
	seen := map[string]bool{}
	for _, path := range disks {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real // what sysfs has; one that is gone is an error below
		}
		if seen[path] {
			continue
		}
		seen[path] = true
		parts, err := scan(path)
		noMedium := errors.Is(err, syscall.ENXIO) // a floppy drive has a size without one
		if err != nil && !noMedium && !errors.Is(err, disk.ErrNoTable) {
			return nil, err // it names the disk
		}
		all = append(all, parts...)
	}
	return all, nil
}

func scan(path string) (Partitions, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := disk.Read(f)
	if err != nil {
		return nil, err
	}
	var parts Partitions
	for _, p := range table.Partitions {
		parts = append(parts, Partition{Partition: p, Disk: path})
	}
	return parts, nil
}

// Find returns the one partition with a label, and the device that the kernel
// has for it.
func (ps Partitions) Find(label string) (Partition, error) {
	var found Partitions
	for _, p := range ps {
		if p.Label == label && label != "" {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 0:
		return Partition{}, fmt.Errorf("%w %q", ErrMissing, label)
	case 1:
		p := found[0]
		device, err := p.device(sysBlock)
		p.Device = device
		return p, err
	}
	var where []string
	for _, p := range found {
		where = append(where, fmt.Sprintf("partition %d of %s", p.Number, p.Disk))
	}
	return Partition{}, fmt.Errorf("%w %q: %s; remove or rename all but the right one", ErrAmbiguous, label, strings.Join(where, ", "))
}

// device finds the kernel's device for a partition of a table that was read from
// the disk, and checks that the kernel means the same bytes. sys is [sysBlock].
func (p Partition) device(sys string) (string, error) {
	name := strings.ReplaceAll(strings.TrimPrefix(p.Disk, "/dev/"), "/", "!")
	children, err := filepath.Glob(filepath.Join(sys, name, "*", "partition"))
	if err != nil {
		return "", err
	}
	for _, path := range children {
		dir := filepath.Dir(path)
		if readNumber(path) != int64(p.Number) {
			continue
		}
		if start, size := readNumber(filepath.Join(dir, "start"))*512, readNumber(filepath.Join(dir, "size"))*512; start != p.Offset || size != p.Size {
			return "", fmt.Errorf("partition %d of %s: the table on the disk and the kernel disagree about where it lies; reread the table (blockdev --rereadpt) or reboot", p.Number, p.Disk)
		}
		return "/dev/" + strings.ReplaceAll(filepath.Base(dir), "!", "/"), nil
	}
	return "", fmt.Errorf("the kernel has no device for partition %d of %s; reread the table (blockdev --rereadpt) or reboot", p.Number, p.Disk)
}

// readNumber returns the number in a file of sysfs, -1 when there is none.
func readNumber(path string) int64 {
	b, err := os.ReadFile(path)
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}
