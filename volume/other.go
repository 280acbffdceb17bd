//go:build !linux

package volume

import (
	"context"
	"errors"
	"os"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
)

var errOther = errors.New("volumes are brought up on Linux only")

// Linux is the system itself, which this is not: all its methods fail.
type Linux struct{ Disks []string }

// Find fails.
func (Linux) Find(string) (string, error) { return "", errOther }

// Activate fails.
func (Linux) Activate(*luks.Header, *luks.VolumeKey, *os.File, mapping.Options) (*mapping.Mapping, error) {
	return nil, errOther
}

// Mapped fails.
func (Linux) Mapped(*luks.Header, string) (*mapping.Mapping, error) { return nil, errOther }

// Deactivate fails.
func (Linux) Deactivate(string) error { return errOther }

// Mkfs fails.
func (Linux) Mkfs(context.Context, string, string) error { return errOther }

// Mount fails.
func (Linux) Mount(string, string, string) error { return errOther }

// Mounted fails.
func (Linux) Mounted(string) (string, error) { return "", errOther }

// Unmount fails.
func (Linux) Unmount(string) error { return errOther }

// Grow fails.
func (Linux) Grow(context.Context, string, string, string) error { return errOther }

// Zero fails.
func (Linux) Zero(context.Context, string) error { return errOther }
