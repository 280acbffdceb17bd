package volume

import (
	"context"
	"os"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
)

// System is what volumes need of the machine. [Linux] is the real one.
type System interface {
	// Find returns the device of the one partition with a label; its errors wrap
	// [ErrMissing] or [ErrAmbiguous].
	Find(label string) (device string, err error)
	// Activate maps a volume, or finds it mapped; see [mapping.Activate].
	Activate(h *luks.Header, key *luks.VolumeKey, device *os.File, opts mapping.Options) (*mapping.Mapping, error)
	// Mapped returns the volume's mapping; see [mapping.Find].
	Mapped(h *luks.Header, name string) (*mapping.Mapping, error)
	// Deactivate closes a mapping; see [mapping.Close].
	Deactivate(name string) error
	// Mkfs makes a file system over whatever is on the device, and returns when
	// it is on stable storage.
	Mkfs(ctx context.Context, device, filesystem string) error
	// Mount mounts a device on a directory, which it makes. Swap is switched on;
	// where a directory is asked for, here and below, it has its own device.
	Mount(device, dir, filesystem string) error
	// Mounted returns the device that is mounted on a directory, "" for none.
	Mounted(dir string) (device string, err error)
	// Unmount returns a [*mapping.BusyError] when the mount is in use.
	Unmount(dir string) error
	// Grow makes a mounted file system as large as its device.
	Grow(ctx context.Context, device, dir, filesystem string) error
	// Zero makes a partition read as zeros, its beginning first.
	Zero(ctx context.Context, device string) error
}
