package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/internal/durable"
)

const (
	headName = "head"
	headSize = 20 + 1 + 64 + 1 // the longest head, padded, and a line end
	suffix   = ".jsonl"
)

// file is what is needed of an open file; tests give one that fails.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// disk is the directory of a log.
type disk struct {
	dir        string
	lock       *os.File
	file, head file
	size       int64     // of file, without what a failed write left
	synced     time.Time // when head was
	open       func(path string, flag int) (file, error)
}

func openFile(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err // a nil *os.File must not become a file that is not nil
	}
	return f, nil
}

// append writes and syncs text, then the head. If it fails and undone is true,
// the file is as before.
func (d *disk) append(text []byte, head Head) (undone bool, err error) {
	if _, err := d.file.WriteAt(text, d.size); err != nil {
		// Part of it may be there: a full disk. Take it back.
		if again := d.file.Truncate(d.size); again != nil {
			return false, fmt.Errorf("write: %w; take it back: %w", err, again)
		}
		return true, fmt.Errorf("write: %w", err)
	}
	if err := d.file.Sync(); err != nil {
		// The kernel may have dropped the pages and call the next sync a
		// success: nothing can be known until the file is read again.
		return false, fmt.Errorf("sync: %w", err)
	}
	if err := durable.Check(d.lock); err != nil {
		return false, err
	}
	d.size += int64(len(text))
	if err := d.writeHead(head); err != nil {
		return false, fmt.Errorf("head: %w", err)
	}
	return true, nil
}

// writeHead writes the head in place: its length never changes and it lies in
// one sector, so it is the old or the new one. It is synced once a second: a head
// that is behind does no harm, and the log itself is synced each time.
func (d *disk) writeHead(h Head) error {
	if _, err := d.head.WriteAt([]byte(fmt.Sprintf("%-*s\n", headSize-1, h)), 0); err != nil {
		return err
	}
	if time.Since(d.synced) < time.Second {
		return nil
	}
	d.synced = time.Now()
	return d.head.Sync()
}

// rotate begins the file of the records after head.
func (d *disk) rotate(head Head) error {
	path := filepath.Join(d.dir, nameOf(head.Seq+1))
	f, err := d.open(path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
	if err != nil {
		return err
	}
	if err := durable.SyncDir(d.dir); err != nil {
		f.Close()
		os.Remove(path)
		return err
	}
	d.file.Close() // everything in it is synced
	d.file, d.size = f, 0
	return nil
}

// probeSize is room for some hundred records.
const probeSize = 64 << 10

// probe tries whether the disk has room, with a file of its own: the log must not
// end in what is no record.
func (d *disk) probe() error {
	path := filepath.Join(d.dir, "probe")
	f, err := d.open(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	_, err = f.WriteAt(make([]byte, probeSize), 0)
	if err = errors.Join(err, f.Close(), os.Remove(path)); err != nil {
		return fmt.Errorf("audit log: try the disk: %w", err)
	}
	return nil
}

// free returns the bytes that are left for a user without special rights.
func (d *disk) free() (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(d.dir, &s); err != nil {
		return 0, fmt.Errorf("audit log %s: %w", d.dir, err)
	}
	return int64(s.Bavail) * int64(s.Bsize), nil
}

func (d *disk) close() error {
	err := d.head.Sync()
	for _, f := range []interface{ Close() error }{d.file, d.head, d.lock} {
		if e := f.Close(); err == nil {
			err = e
		}
	}
	return err
}

// lockDir makes us the only writer; the lock ends with the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another process writes %s: %w", dir, err)
	}
	return f, nil
}

func nameOf(seq uint64) string { return fmt.Sprintf("%016d%s", seq, suffix) }

// firstOf returns the number in a file's name, 0 if it is not a file of a log.
func firstOf(name string) uint64 {
	n, err := strconv.ParseUint(strings.TrimSuffix(name, suffix), 10, 64)
	if err != nil || nameOf(n) != name {
		return 0
	}
	return n
}

// files lists the files of a log, oldest first.
func files(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return firstOf(e.Name()) == 0 })
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.SortFunc(names, func(a, b string) int {
		if firstOf(a) < firstOf(b) {
			return -1
		}
		return 1
	})
	return names, nil
}
