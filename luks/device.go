package luks

import (
	"errors"
	"fmt"
	"io"
)

// Device holds a header, and mostly the data too: a block device, an image
// file, a detached header file, or a test device that cuts the power.
type Device interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when all that was written is on stable storage.
	Sync() error
	// Size returns the length in bytes.
	Size() int64
}

// Locker is a Device that other processes share. Readers lock it shared,
// writers exclusively.
type Locker interface {
	// Lock waits for the lock and returns its release. It gives up with
	// [ErrLocked] when another holder keeps it too long.
	Lock(exclusive bool) (release func(), err error)
}

// ErrLocked is wrapped when another process keeps the device locked.
var ErrLocked = errors.New("locked by another process")

// ErrReadOnly is wrapped when a write is asked of a device opened for reading.
var ErrReadOnly = errors.New("opened read-only")

func lock(dev Device, exclusive bool) (release func(), err error) {
	if l, ok := dev.(Locker); ok {
		return l.Lock(exclusive)
	}
	return func() {}, nil
}

// section is a window onto a Device, such as one partition of an image.
type section struct {
	*io.SectionReader
	dev  Device
	base int64
}

// Section returns the size bytes of dev that begin at offset as a device of
// their own. Locking it locks dev.
func Section(dev Device, offset, size int64) (Device, error) {
	if offset < 0 || size <= 0 || offset > dev.Size() || size > dev.Size()-offset {
		return nil, fmt.Errorf("a section of %d bytes at byte %d does not lie within the device of %d bytes", size, offset, dev.Size())
	}
	return &section{io.NewSectionReader(dev, offset, size), dev, offset}, nil
}

func (s *section) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > s.Size() || int64(len(p)) > s.Size()-off {
		return 0, fmt.Errorf("write of %d bytes at byte %d: beyond the section of %d bytes", len(p), off, s.Size())
	}
	return s.dev.WriteAt(p, s.base+off)
}

func (s *section) Sync() error { return s.dev.Sync() }

func (s *section) Lock(exclusive bool) (func(), error) { return lock(s.dev, exclusive) }

// readAt reads exactly len(p) bytes and says where when it cannot.
func readAt(dev Device, p []byte, off int64) error {
	n, err := dev.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		return fmt.Errorf("read %d bytes at byte %d: the device ends at byte %d", len(p), off, dev.Size())
	}
	return fmt.Errorf("read %d bytes at byte %d: %w", len(p), off, err)
}
