package luks

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// File is a Device on a block device or a regular file.
type File struct {
	file     *os.File
	size     int64
	writable bool
	mu       sync.Mutex // one lock holder at a time among our own goroutines
}

// Mode says what a [File] is opened for.
type Mode int

// Modes. Exclusive also claims a block device for us alone, so that one that is
// mounted, mapped or part of an array is refused.
const (
	ReadOnly Mode = iota
	ReadWrite
	Exclusive
)

// OpenFile opens a block device or a regular file.
func OpenFile(path string, mode Mode) (*File, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: no such device or file", path)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s: is a directory; name a block device or an image file", path)
	case !info.Mode().IsRegular() && (info.Mode()&fs.ModeDevice == 0 || info.Mode()&fs.ModeCharDevice != 0):
		return nil, fmt.Errorf("%s: neither a block device nor a regular file", path)
	}
	flag := os.O_RDONLY
	if mode != ReadOnly {
		flag = os.O_RDWR
	}
	if mode == Exclusive && !info.Mode().IsRegular() {
		flag |= os.O_EXCL
	}
	f, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, openError(path, mode, err)
	}
	if mode != ReadOnly && readOnlyDevice(f) {
		f.Close()
		return nil, fmt.Errorf("%s: read-only: %w", path, ErrReadOnly)
	}
	size, err := f.Seek(0, io.SeekEnd) // works for block devices, where Stat gives 0
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: find the size: %w", path, err)
	}
	return &File{file: f, size: size, writable: mode != ReadOnly}, nil
}

func openError(path string, mode Mode, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission) && mode == ReadOnly:
		return fmt.Errorf("%s: no permission to read it", path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: no permission to write it", path)
	}
	return systemOpenError(path, err)
}

// File returns the open file, for those who probe the same bytes.
func (f *File) File() *os.File { return f.file }

// Size returns the length that the file had when it was opened.
func (f *File) Size() int64 { return f.size }

// ReadAt implements [io.ReaderAt].
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// WriteAt implements [io.WriterAt]. It never makes the file longer.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	switch {
	case !f.writable:
		return 0, fmt.Errorf("%s: write: %w", f.file.Name(), ErrReadOnly)
	case off < 0 || int64(len(p)) > f.size-off:
		return 0, fmt.Errorf("%s: write of %d bytes at byte %d: beyond the end at byte %d", f.file.Name(), len(p), off, f.size)
	}
	return f.file.WriteAt(p, off)
}

// Sync implements [Device].
func (f *File) Sync() error {
	if !f.writable {
		return nil
	}
	if err := f.file.Sync(); err != nil {
		return err
	}
	dropCache(f.file)
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
