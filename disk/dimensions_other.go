//go:build !linux

package disk

import (
	"errors"
	"os"
)

// dimensions returns the size of an image and the sector sizes that its table
// may have been made for. Block devices are read on Linux only.
func dimensions(f *os.File) (int64, []int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	if !info.Mode().IsRegular() {
		return 0, nil, errors.New("not a disk image")
	}
	return info.Size(), imageSectors(), nil
}
