package disk

import (
	"errors"
	"fmt"
	"os"

	"github.com/siderolabs/go-blockdevice/v2/block"
)

// Sector sizes that the kernel lets a block device have.
const (
	minSector = 512
	maxSector = 64 << 10
)

// dimensions returns the size of an image or a block device, and the sector
// sizes that its table may have been made for.
func dimensions(f *os.File) (int64, []int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return info.Size(), imageSectors(), nil
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		dev := block.NewFromFile(f)
		size, err := dev.GetSize()
		if err != nil {
			return 0, nil, fmt.Errorf("ask the device for its size: %w", err)
		}
		sector := dev.GetSectorSize()
		if sector < minSector || sector > maxSector {
			return 0, nil, fmt.Errorf("the device says that its sectors have %d bytes", sector)
		}
		return int64(size), []int{int(sector)}, nil
	}
	return 0, nil, errors.New("neither a disk image nor a block device")
}
