package luks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// lockDir is where cryptsetup keeps a lock file for each block device
	// (--with-luks2-lock-path, the default of every distribution).
	lockDir = "/run/cryptsetup"
	// lockPatience is how long another holder is waited for. cryptsetup keeps
	// its lock through key derivations, which take seconds.
	lockPatience = 30 * time.Second
	lockPoll     = 5 * time.Millisecond
)

// Lock takes the locks that cryptsetup takes, so that both tools exclude each
// other: for a regular file flock on it; for a block device flock on the file
// /run/cryptsetup/L_<major>:<minor>, and on the device for udev and others.
func (f *File) Lock(exclusive bool) (release func(), err error) {
	f.mu.Lock()
	var held []func()
	unlockAll := func() {
		for i := len(held) - 1; i >= 0; i-- {
			held[i]()
		}
		f.mu.Unlock()
	}
	defer func() {
		if err != nil { // release is nil then
			unlockAll()
		}
	}()
	how := unix.LOCK_SH
	if exclusive {
		how = unix.LOCK_EX
	}
	deadline := time.Now().Add(lockPatience)
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return nil, fmt.Errorf("%s: %w", f.file.Name(), err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		unlock, err := lockFile(st.Rdev, how, deadline)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.file.Name(), err)
		}
		held = append(held, unlock)
	}
	if err := flock(f.file, how, deadline); err != nil {
		return nil, fmt.Errorf("%s: %w", f.file.Name(), err)
	}
	held = append(held, func() { unix.Flock(int(f.file.Fd()), unix.LOCK_UN) })
	return unlockAll, nil
}

func flock(file *os.File, how int, deadline time.Time) error {
	for {
		err := unix.Flock(int(file.Fd()), how|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("lock: %w", err)
		case time.Now().After(deadline):
			return fmt.Errorf("%w for %s; end it or try again", ErrLocked, lockPatience)
		default:
			time.Sleep(lockPoll)
		}
	}
}

// lockFile holds cryptsetup's lock file of a block device. The file is removed
// by whoever releases it last, so after locking it must be looked at again: a
// lock on a file without a name excludes nobody.
func lockFile(rdev uint64, how int, deadline time.Time) (release func(), err error) {
	if err := os.Mkdir(lockDir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make cryptsetup's lock directory: %w", err)
	}
	path := filepath.Join(lockDir, fmt.Sprintf("L_%d:%d", unix.Major(rdev), unix.Minor(rdev)))
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("open cryptsetup's lock file: %w", err)
		}
		if err := flock(file, how, deadline); err != nil {
			file.Close()
			return nil, err
		}
		if named(file, path) {
			return func() { unlinkIfLast(file, path); file.Close() }, nil
		}
		file.Close()
	}
}

func named(file *os.File, path string) bool {
	held, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(held, there)
}

// unlinkIfLast removes the lock file when nobody else waits for it or holds it,
// as cryptsetup does.
func unlinkIfLast(file *os.File, path string) {
	if unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && named(file, path) {
		os.Remove(path)
	}
}

// readOnlyDevice reports whether the kernel would refuse writes to a block
// device that it let us open for writing.
func readOnlyDevice(f *os.File) bool {
	n, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	return err == nil && n != 0
}

// dropCache makes the next read come from the device: what is read back after a
// sync shall be what the device holds, not what memory remembers.
func dropCache(file *os.File) {
	unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
}

func systemOpenError(path string, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%s: in use: it is mounted, mapped or part of an array; release it first", path)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s: read-only: %w", path, ErrReadOnly)
	}
	return err
}
