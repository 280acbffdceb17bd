package bolt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/kms/store"
)

// A backup is the database file, then a mark and the SHA-256 of the file.
const (
	mark        = "cryptctl kms backup, version 1.\n" // 32 bytes
	trailerSize = len(mark) + sha256.Size
	scrubbed    = ".scrub"   // the new file of a Scrub
	replaced    = ".old"     // its old one
	restored    = ".restore" // the new file of a Restore
)

// Backup writes the state of one moment to w, while the store is in use. It is as
// confidential as the store is. What w takes its time for holds up nothing: the
// state is copied next to the store first, into a file without a name that is
// overwritten afterwards.
func (d *DB) Backup(w io.Writer) error {
	err := d.backup(w)
	if err != nil {
		return fmt.Errorf("%s: backup: %w", d.path, err)
	}
	return nil
}

func (d *DB) backup(w io.Writer) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(d.path), filepath.Base(d.path)+".backup-*")
	if err != nil {
		return err
	}
	defer tmp.Close()
	if err := os.Remove(tmp.Name()); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, zero(tmp)) }()
	sum := sha256.New()
	if err := d.copy(io.MultiWriter(tmp, sum)); err != nil {
		return err
	}
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.Copy(w, tmp); err != nil {
		return err
	}
	_, err = w.Write(append([]byte(mark), sum.Sum(nil)...))
	return err
}

// copy writes the state of one moment to w, and keeps Scrub away meanwhile.
func (d *DB) copy(w io.Writer) error {
	d.copying <- struct{}{}
	defer func() { <-d.copying }()
	return d.view(func(tx *bolt.Tx) error {
		_, err := tx.WriteTo(w)
		return err
	})
}

// Restore makes the file path from a backup, and returns how many records it has.
// It checks the backup first and replaces no file: move the old one away. A process
// that still has the old one open keeps it from doing anything: it might put a file
// of its own in the place of the restored one.
func Restore(path string, backup io.Reader) (n int, err error) {
	if _, err := os.Lstat(path); err == nil {
		return 0, fmt.Errorf("%s is there; move it away, a restore replaces nothing", path)
	}
	lock, err := alone(path)
	if err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	defer lock.Close()
	if err := cleanUp(path); err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	tmp, err := os.OpenFile(path+restored, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer os.Remove(tmp.Name()) // a kill leaves it to cleanUp
	if err := errors.Join(receive(tmp, backup), tmp.Sync(), tmp.Close()); err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	if n, err = Check(tmp.Name()); err != nil {
		return 0, fmt.Errorf("restore: the backup is not consistent: %w", err)
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return 0, fmt.Errorf("restore: %w", err)
	}
	return n, durable.SyncDir(filepath.Dir(path))
}

// receive copies a backup without its trailer, which it checks.
func receive(to *os.File, from io.Reader) error {
	size, err := io.Copy(to, from)
	if err != nil {
		return err
	}
	if size, err = complete(to, size); err != nil {
		return err
	}
	return to.Truncate(size)
}

// complete checks the trailer of a backup of size bytes, and returns how many come
// before it.
func complete(backup io.ReaderAt, size int64) (int64, error) {
	size -= int64(trailerSize)
	trailer := make([]byte, trailerSize)
	if size > 0 {
		if _, err := backup.ReadAt(trailer, size); err != nil {
			return 0, err
		}
	}
	if string(trailer[:len(mark)]) != mark {
		return 0, errors.New("the backup is cut, or none of ours: its end is missing")
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(backup, 0, size)); err != nil {
		return 0, err
	}
	if !bytes.Equal(sum.Sum(nil), trailer[len(mark):]) {
		return 0, errors.New("the backup was changed: its checksum does not fit")
	}
	return size, nil
}

// ReadBackup checks a backup as Restore does, where it lies, calls do with each of
// its records, and returns the SHA-256 of all of it.
func ReadBackup(ctx context.Context, path string, do func(store.Item) error) (sum []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		return nil, err
	}
	if _, err := complete(f, info.Size()); err != nil {
		return nil, err
	}
	all := sha256.New()
	if _, err := io.Copy(all, f); err != nil {
		return nil, err
	}
	db, err := open(path, true)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		if err := consistent(tx); err != nil {
			return err
		}
		var stopped error
		err := walk(ctx, tx, "", "", func(i store.Item) bool { stopped = do(i); return stopped == nil })
		return errors.Join(err, stopped)
	})
	return all.Sum(nil), err
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
		if err := consistent(tx); err != nil {
			return err
		}
		return walk(context.Background(), tx, "", "", func(store.Item) bool { n++; return true })
	})
	return n, err
}

// consistent says what is wrong with the pages, ten things at most.
func consistent(tx *bolt.Tx) error {
	var problems []error
	for e := range tx.Check() {
		if problems = append(problems, e); len(problems) > 10 {
			problems = problems[:10]
		}
	}
	return errors.Join(problems...)
}

// Scrub moves the records to a new file and overwrites the old one: bbolt leaves
// replaced values in free pages. Nothing else runs meanwhile. If it fails the old
// file stays in use. It waits for a backup that is being copied, as long as ctx
// lasts.
func (d *DB) Scrub(ctx context.Context) error {
	select {
	case d.copying <- struct{}{}: // before the turn: writers go on while it waits
		defer func() { <-d.copying }()
	case <-ctx.Done():
		return fmt.Errorf("%s: scrub: a backup is running: %w", d.path, ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	d.swap.Lock()
	defer d.swap.Unlock()
	if err := errors.Join(d.usable(), cleanUp(d.path)); err != nil {
		return err
	}
	if err := d.compact(); err != nil {
		return fmt.Errorf("%s: scrub: %w", d.path, errors.Join(err, cleanUp(d.path)))
	}
	// By its other name the old file is found, and overwritten, after a kill.
	if err := os.Link(d.path, d.path+replaced); err != nil {
		return fmt.Errorf("%s: scrub: %w", d.path, errors.Join(err, cleanUp(d.path)))
	}
	if err := d.replace(); err != nil {
		return fmt.Errorf("%s: scrub: %w: %w", d.path, store.ErrUnavailable, err)
	}
	return cleanUp(d.path)
}

// cleanUp overwrites and removes what a Scrub or a Restore of path left, if it was
// interrupted. The caller has the lock.
func cleanUp(path string) error {
	current, err := os.Stat(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range []string{path + scrubbed, path + replaced, path + restored} {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		left, err := f.Stat()
		if err == nil && (current == nil || !os.SameFile(current, left)) { // not a second name of path itself
			err = zero(f)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// compact writes the records to a new file next to the old one.
func (d *DB) compact() error {
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
	if err := errors.Join(durable.SyncDir(filepath.Dir(d.path)), d.db.Close()); err != nil {
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
