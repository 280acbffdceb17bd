package meta

import (
	"errors"
	"fmt"
	"io"
)

// Size is the size of META in bytes. Talos finds it by this size too.
const Size = 1 << 20

// Device holds META and nothing else: a partition, an image file, or a test
// device that cuts the power.
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
	Lock(exclusive bool) (release func(), err error)
}

func lock(dev Device, exclusive bool) (release func(), err error) {
	if l, ok := dev.(Locker); ok {
		return l.Lock(exclusive)
	}
	return func() {}, nil
}

// readAt reads exactly len(p) bytes and says where when it cannot.
func readAt(dev Device, p []byte, off int64) error {
	n, err := dev.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes of META at byte %d: %w", len(p), off, err)
}

// writeAt writes and syncs.
func writeAt(dev Device, p []byte, off int64) error {
	n, err := dev.WriteAt(p, off)
	if err == nil && n < len(p) {
		err = errors.New("short write")
	}
	if err != nil {
		return fmt.Errorf("write %d bytes of META at byte %d: %w", len(p), off, err)
	}
	if err := dev.Sync(); err != nil {
		return fmt.Errorf("write %d bytes of META at byte %d: sync: %w", len(p), off, err)
	}
	return nil
}
