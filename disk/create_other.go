//go:build !linux

package disk

import (
	"errors"
	"fmt"
)

// Create makes a new image on Linux; here it fails, for go-blockdevice's writer
// is for Linux.
func Create(path string, _ int64, parts []Spec) (*Table, error) {
	if err := checkSpecs(parts); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	return nil, fmt.Errorf("create %s: %w", path, errors.ErrUnsupported)
}
