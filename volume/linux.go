//go:build linux

package volume

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
)

// Linux is the system itself. File systems are made by the programs of e2fsprogs,
// xfsprogs and util-linux.
type Linux struct {
	Disks []string // where partitions are looked for; nil for all disks
}

// Find implements [System].
func (l Linux) Find(label string) (string, error) {
	disks := l.Disks
	if disks == nil {
		var err error
		if disks, err = Disks(); err != nil {
			return "", err
		}
	}
	parts, err := Scan(disks)
	if err != nil {
		return "", err
	}
	p, err := parts.Find(label)
	return p.Device, err
}

// Activate implements [System].
func (Linux) Activate(h *luks.Header, key *luks.VolumeKey, device *os.File, opts mapping.Options) (*mapping.Mapping, error) {
	return mapping.Activate(h, key, device, opts)
}

// Mapped implements [System].
func (Linux) Mapped(h *luks.Header, name string) (*mapping.Mapping, error) {
	return mapping.Find(h, name)
}

// Deactivate implements [System].
func (Linux) Deactivate(name string) error { return mapping.Close(name, mapping.CloseOptions{}) }

// Mkfs implements [System].
func (Linux) Mkfs(ctx context.Context, device, filesystem string) error {
	argv := map[string][]string{
		XFS:  {"mkfs.xfs", "-q", "-f", "-K", device},
		Ext4: {"mkfs.ext4", "-q", "-F", "-E", "nodiscard", device},
		Swap: {"mkswap", "-q", "-f", device},
	}[filesystem]
	if argv == nil {
		return fmt.Errorf("%q is not made here", filesystem)
	}
	if err := run(ctx, argv...); err != nil {
		return err
	}
	return syncDevice(device)
}

func syncDevice(device string) error {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// run runs a program of the system; its error has what the program printed.
func run(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Mount implements [System].
func (Linux) Mount(device, dir, filesystem string) error {
	if filesystem == Swap {
		return run(context.Background(), "swapon", device)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return unix.Mount(device, dir, filesystem, unix.MS_NODEV|unix.MS_NOSUID, "")
}

// Mounted implements [System].
func (Linux) Mounted(dir string) (device string, err error) {
	if isBlockDevice(dir) {
		return swapOn(dir)
	}
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[1] == dir {
			device = fields[0] // the last one is on top
		}
	}
	return device, nil
}

func isBlockDevice(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// swapOn returns the device when it is in use as swap. The kernel lists it by
// the name that symbolic links lead to.
func swapOn(device string) (string, error) {
	real, err := filepath.EvalSymlinks(device)
	if err != nil {
		return "", err
	}
	list, err := os.ReadFile("/proc/swaps")
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without swap
		return "", err
	}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] == real {
			return device, nil
		}
	}
	return "", nil
}

// Unmount implements [System].
func (Linux) Unmount(dir string) error {
	if isBlockDevice(dir) {
		return run(context.Background(), "swapoff", dir)
	}
	err := unix.Unmount(dir, 0)
	if errors.Is(err, unix.EBUSY) {
		return &mapping.BusyError{What: dir, Holders: users(dir)}
	}
	return err
}

// Grow implements [System].
func (Linux) Grow(ctx context.Context, device, dir, filesystem string) error {
	switch filesystem {
	case XFS:
		return run(ctx, "xfs_growfs", dir)
	case Ext4:
		return run(ctx, "resize2fs", device)
	}
	return nil
}

// zeroStep is what is zeroed between two looks at the context.
const zeroStep = 256 << 20

// headFirst is what goes first, synced: without it nothing of a LUKS volume or
// file system can be opened.
const headFirst = 32 << 20

// Zero implements [System]. Where the disk supports it the kernel tells it to
// forget, which is fast.
func (Linux) Zero(ctx context.Context, device string) error {
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return &mapping.BusyError{What: device}
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	for at, step := int64(0), int64(headFirst); at < size; step = zeroStep {
		n := min(step, size-at)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := zeroOut(f, at, n); err != nil {
			return fmt.Errorf("%s: zero %d bytes from byte %d: %w", device, n, at, err)
		}
		if err := f.Sync(); err != nil {
			return err
		}
		at += n
	}
	return nil
}
