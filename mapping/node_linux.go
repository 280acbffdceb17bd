package mapping

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// nodeDir is where device-mapper nodes are (linux/dm-ioctl.h, DM_DIR).
const nodeDir = "/dev/mapper"

func nodePath(name string) string { return filepath.Join(nodeDir, name) }

// kernelPath is the kernel's own name of a device-mapper device, which devtmpfs
// has without udev.
func kernelPath(n Number) string { return fmt.Sprintf("/dev/dm-%d", n.Minor) }

// makeNodes makes /dev/dm-N where devtmpfs has not, and /dev/mapper/NAME as a
// link to it, as udev does: where udev runs it finds its work done.
func makeNodes(name string, n Number) error {
	device := kernelPath(n)
	if !isDevice(device, n) {
		if err := replaceNode(device, func(path string) error { return makeDevice(path, unix.S_IFBLK, n) }); err != nil {
			return err
		}
	}
	path := nodePath(name)
	if isDevice(path, n) {
		return nil
	}
	if err := os.MkdirAll(nodeDir, 0o755); err != nil {
		return err
	}
	return replaceNode(path, func(path string) error { return os.Symlink("../"+filepath.Base(device), path) })
}

// removeNode removes /dev/mapper/NAME. A name that outlives its mapping may come
// to lead to the next one that gets its number.
func removeNode(name string) error {
	path := nodePath(name)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&(fs.ModeSymlink|fs.ModeDevice) == 0:
		return fmt.Errorf("%s: neither a link nor a device; it is left there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // udev may be faster
		return err
	}
	return nil
}

// replaceNode makes a node in place of a stale link or device, in one step.
func replaceNode(path string, create func(path string) error) error {
	if info, err := os.Lstat(path); err == nil && info.Mode()&(fs.ModeSymlink|fs.ModeDevice) == 0 {
		return fmt.Errorf("%s: neither a link nor a device is there; remove it", path)
	}
	fresh := filepath.Join(filepath.Dir(path), ".cryptctl-"+filepath.Base(path))
	os.Remove(fresh) // of a run that was killed here
	if err := create(fresh); err != nil {
		return err
	}
	if err := os.Rename(fresh, path); err != nil {
		os.Remove(fresh)
		return err
	}
	return nil
}

func makeDevice(path string, kind uint32, n Number) error {
	if err := unix.Mknod(path, kind|0o600, int(unix.Mkdev(n.Major, n.Minor))); err != nil {
		return fmt.Errorf("make the device node %s: %w", path, err)
	}
	return nil
}

// isDevice reports whether a path leads to the block device of that number.
func isDevice(path string, n Number) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFBLK && st.Rdev == unix.Mkdev(n.Major, n.Minor)
}

// makeControlNode makes the device-mapper's own node when the kernel says in
// /proc/misc that it has one.
func makeControlNode(path string) error {
	const major = 10 // of all misc devices
	misc, err := os.ReadFile("/proc/misc")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(misc) {
		fields := strings.Fields(string(line))
		if len(fields) != 2 || fields[1] != "device-mapper" {
			continue
		}
		minor, err := strconv.ParseUint(fields[0], 10, 20)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		return makeDevice(path, unix.S_IFCHR, Number{major, uint32(minor)})
	}
	return fs.ErrNotExist
}
