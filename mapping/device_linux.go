package mapping

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// inspect says what the open data device is.
func inspect(file *os.File) (Device, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return Device{}, fmt.Errorf("%s: %w", file.Name(), err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return Device{}, fmt.Errorf("%s: only a block device can be mapped; make one of an image file with losetup --find --show", file.Name())
	}
	size, err := deviceSize(file)
	if err != nil {
		return Device{}, err
	}
	readOnly, err := unix.IoctlGetInt(int(file.Fd()), unix.BLKROGET)
	if err != nil {
		return Device{}, fmt.Errorf("%s: is it read-only: %w", file.Name(), err)
	}
	return Device{Number{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, size, readOnly != 0}, nil
}

func deviceSize(file *os.File) (int64, error) {
	var size uint64
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return 0, fmt.Errorf("%s: find the size: %w", file.Name(), errno)
	}
	return int64(size), nil
}

// claimable fails with a [BusyError] when the device has a user that excludes
// others, such as a mount or this process, when it opened it exclusively. The
// kernel itself lets two mappings share a device.
func claimable(file *os.File, n Number) error {
	claim, err := os.OpenFile(file.Name(), os.O_RDONLY|unix.O_EXCL, 0)
	switch {
	case errors.Is(err, unix.EBUSY):
		return &BusyError{file.Name(), holders(n)}
	case err != nil:
		return err
	}
	defer claim.Close()
	if !isDevice(claim.Name(), n) {
		return fmt.Errorf("%s: now leads to another device than the one that was opened", file.Name())
	}
	return nil
}
