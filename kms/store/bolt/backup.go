package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/cryptctl/cryptctl/kms/store"
)

// A backup is the database file, then a mark and the SHA-256 of the file.
const (
	mark        = "cryptctl kms backup, version 1.\n" // 32 bytes
	trailerSize = len(mark) + sha256.Size
	scrubbed    = ".scrub"
)

// Backup writes the state of one moment to w, while the store is in use. It is as
// confidential as the store is.
func (d *DB) Backup(w io.Writer) error {
	sum := sha256.New()
	err := d.view(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(io.MultiWriter(w, sum))
		return err
	})
	if err == nil {
		_, err = w.Write(append([]byte(mark), sum.Sum(nil)...))
	}
	if err != nil {
		return fmt.Errorf("%s: backup: %w", d.path, err)
	}
	return nil
}

// Restore makes the file path from a backup, and returns how many records it has.
// It checks the backup first and replaces no file: move the old one away.
func Restore(path string, backup io.Reader) (n int, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, fmt.Errorf("%s is there; move it away, a restore replaces nothing", path)
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".restore-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name())
	if err := errors.Join(receive(tmp, backup), tmp.Sync(), tmp.Close()); err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	if n, err = Check(tmp.Name()); err != nil {
		return 0, fmt.Errorf("restore: the backup is not consistent: %w", err)
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	return n, syncDir(filepath.Dir(path))
}

// receive copies a backup without its trailer, which it checks.
func receive(to *os.File, from io.Reader) error {
	size, err := io.Copy(to, from)
	if err != nil {
		return err
	}
	size -= int64(trailerSize)
	trailer := make([]byte, trailerSize)
	if size > 0 {
		_, err = to.ReadAt(trailer, size)
	}
	if err != nil {
		return err
	}
	if string(trailer[:len(mark)]) != mark {
		return errors.New("the backup is cut, or none of ours: its end is missing")
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(to, 0, size)); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), trailer[len(mark):]) {
		return errors.New("the backup was changed: its checksum does not fit")
	}
	return to.Truncate(size)
}

// Check walks through a file that no process has open and returns how many
// records it has: each page is reached once, and each record can be read.
func Check(path string) (n int, err error) {
	db, err := open(path, true)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		var problems []error
		for e := range tx.Check() {
			if problems = append(problems, e); len(problems) > 10 {
				problems = problems[:10]
			}
		}
		if len(problems) > 0 {
			return errors.Join(problems...)
		}
		items, err := listed(context.Background(), tx, "")
		n = len(items)
		return err
	})
	return n, err
}

// Scrub moves the records to a new file and overwrites the old one: bbolt leaves
// replaced values in free pages. Nothing else runs meanwhile. If it fails the old
// file stays in use.
func (d *DB) Scrub(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	d.swap.Lock()
	defer d.swap.Unlock()
	if err := d.compact(); err != nil {
		os.Remove(d.path + scrubbed)
		return fmt.Errorf("%s: scrub: %w", d.path, err)
	}
	old, err := os.OpenFile(d.path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if err := d.replace(); err != nil {
		return fmt.Errorf("%s: scrub: %w: %w", d.path, store.ErrUnavailable, err)
	}
	return zero(old)
}

// compact writes the records to a new file next to the old one.
func (d *DB) compact() error {
	os.Remove(d.path + scrubbed)
	out, err := bolt.Open(d.path+scrubbed, 0o600, &bolt.Options{Timeout: openTimeout})
	if err != nil {
		return err
	}
	return errors.Join(bolt.Compact(out, d.db, 1<<20), out.Sync(), out.Close())
}

// replace puts the new file in the old one's place and opens it. Should it not
// open, the store stays closed: its records are on the disk all the same.
func (d *DB) replace() error {
	if err := os.Rename(d.path+scrubbed, d.path); err != nil {
		return err
	}
	if err := errors.Join(syncDir(filepath.Dir(d.path)), d.db.Close()); err != nil {
		return err
	}
	db, err := open(d.path, false)
	if err != nil {
		return err
	}
	d.db = db
	return nil
}

func zero(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < info.Size(); at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), info.Size()-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
