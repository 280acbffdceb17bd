// Package bolt keeps the key server's records in one file.
//
//	path       bbolt: bucket "cryptctl": format = 1
//	                  bucket "records":  name = revision, 8 bytes big endian | value
//	path.lock  one process at a time, also while the file is being replaced
//	path.scrub, path.old, path.restore
//	           of a Scrub or a Restore; after a kill the next Open overwrites and
//	           removes them
//
// Swaps that come while another one is being written share the next write and its
// sync; nobody waits for a clock. Gets read the mapped file and wait for nothing.
//
// What is guaranteed: what package store asks for, and that a file is the state
// after some Swap, whenever the process was killed. After a write that may or may
// not be on the disk nothing is answered until the file is opened anew. [DB.Backup] is a state of one
// moment while others read and write; [Restore] refuses a backup that is cut,
// changed or inconsistent.
//
// What it does not protect: bbolt has no checksums on its data pages, so a disk
// that returns other bytes is believed; backups have one. [DB.Scrub] overwrites
// the old file, which a file system that copies on write, or a flash disk, keeps
// elsewhere: a key is gone for good when the key that wrapped it is.
package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/kms/store"
)

const (
	openTimeout = 5 * time.Second // for bbolt's own lock; ours is tried once
	format      = "1"
	pageSize    = 500 // records of a list that are read at a time
)

var (
	metaBucket = []byte("cryptctl")
	records    = []byte("records")
	formatKey  = []byte("format")
)

// DB is an open file. Its methods may be called from many goroutines.
type DB struct {
	path string
	lock *os.File

	swap sync.RWMutex // held for writing while Scrub replaces db
	db   *bolt.DB

	commit     func(*bolt.DB, func(*bolt.Tx) error) error // bbolt's Update
	generation atomic.Uint64                              // counts the groups that were written
	durable    atomic.Uint64                              // the newest revision that is synced
	unusable   atomic.Pointer[error]                      // why, once a commit failed

	mu   sync.Mutex
	next *group
	turn chan struct{} // held by the one who writes

	copying chan struct{} // held by a Backup that reads, and by Scrub
}

var (
	_ store.Store    = (*DB)(nil)
	_ store.Scrubber = (*DB)(nil)

	_ store.Generational = (*DB)(nil)
)

// Open opens a file, or makes it.
func Open(path string) (*DB, error) {
	lock, err := alone(path)
	if err != nil {
		return nil, err
	}
	d := &DB{path: path, lock: lock, commit: (*bolt.DB).Update, next: newGroup(), turn: make(chan struct{}, 1), copying: make(chan struct{}, 1)}
	err = cleanUp(path)
	if err == nil {
		d.db, err = open(path, false)
	}
	if err == nil { // it may have been made just now
		err = errors.Join(durable.SyncDir(filepath.Dir(path)), d.db.View(func(tx *bolt.Tx) error {
			d.durable.Store(tx.Bucket(records).Sequence())
			return nil
		}))
	}
	if err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

// alone keeps other processes from a file until what it returns is closed.
func alone(path string) (lock *os.File, err error) {
	if lock, err = os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: another process has it open: %w", path, err)
	}
	return lock, nil
}

// open opens and checks the file itself. bbolt panics on some damages, and reads
// the whole map when it opens a file for writing: so the length is checked first,
// read-only.
func open(path string, readOnly bool) (db *bolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%s: %w: %v; restore a backup", path, errDamaged, p)
		}
	}()
	if info, err := os.Stat(path); err == nil && info.Size() > 0 && !readOnly {
		db, err := openChecked(path, true, whole)
		if err != nil {
			return nil, err
		}
		db.Close()
	}
	if readOnly {
		return openChecked(path, true, whole, ours)
	}
	return openChecked(path, false, ours)
}

func openChecked(path string, readOnly bool, checks ...func(*bolt.Tx) error) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: openTimeout, ReadOnly: readOnly, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !readOnly {
		err = db.Update(prepare)
	}
	for _, check := range checks {
		if err == nil {
			err = db.View(check)
		}
	}
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return db, nil
}

// whole finds a file that is shorter than it says: touching the missing part of
// the map would end the process.
func whole(tx *bolt.Tx) error {
	info, err := os.Stat(tx.DB().Path())
	if err == nil && info.Size() < tx.Size() {
		err = fmt.Errorf("the file has %d bytes and should have %d: it was cut; restore a backup", info.Size(), tx.Size())
	}
	return err
}

// prepare makes the buckets of a new file.
func prepare(tx *bolt.Tx) error {
	if name, _ := tx.Cursor().First(); name != nil {
		return nil
	}
	meta, err := tx.CreateBucket(metaBucket)
	if err != nil {
		return err
	}
	if _, err := tx.CreateBucket(records); err != nil {
		return err
	}
	return meta.Put(formatKey, []byte(format))
}

func ours(tx *bolt.Tx) error {
	meta := tx.Bucket(metaBucket)
	if meta == nil || tx.Bucket(records) == nil {
		return errors.New("not a store of the key server")
	}
	if v := string(meta.Get(formatKey)); v != format {
		return fmt.Errorf("format %.20q, known is %s; it needs a newer program", v, format)
	}
	return nil
}

// Close waits for what is under way and closes the file.
func (d *DB) Close() error {
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	d.swap.Lock()
	defer d.swap.Unlock()
	return errors.Join(d.db.Close(), d.lock.Close())
}

// Generation returns a number that changes with every Swap. The file belongs to
// this process, so nothing else changes it.
func (d *DB) Generation() uint64 { return d.generation.Load() }

// Get returns a value; it is always the newest one.
func (d *DB) Get(ctx context.Context, name string, _ time.Duration) (e store.Entry, err error) {
	if err := errors.Join(store.CheckName(name), ctx.Err()); err != nil {
		return store.Entry{}, err
	}
	err = d.view(func(tx *bolt.Tx) error {
		e, err = decode(name, tx.Bucket(records).Get([]byte(name)))
		return err
	})
	if err == nil {
		err = d.settled(ctx, e.Revision)
	}
	if err != nil {
		return store.Entry{}, err
	}
	return e, nil
}

// settled waits until what was read is synced: bbolt shows a commit to readers
// before that.
func (d *DB) settled(ctx context.Context, revision uint64) error {
	if revision <= d.durable.Load() {
		return nil
	}
	select {
	case d.turn <- struct{}{}: // whoever writes is done, one way or the other
		<-d.turn
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.usable()
}

// usable says why nothing is answered any more.
func (d *DB) usable() error {
	if why := d.unusable.Load(); why != nil {
		return fmt.Errorf("%s: %w: %w: %w", d.path, store.ErrUnavailable, ErrUnusable, *why)
	}
	return nil
}

func (d *DB) view(read func(*bolt.Tx) error) error {
	d.swap.RLock()
	defer d.swap.RUnlock()
	if err := d.usable(); err != nil {
		return err
	}
	return unavailable(d.db.View(read))
}

// unavailable marks errors of a database that is closed or full.
func unavailable(err error) error {
	if err == nil || errors.Is(err, store.ErrNotFound) || errors.Is(err, errDamaged) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

var errDamaged = errors.New("the store is damaged")

// ErrUnusable: a write failed such that nobody knows what is on the disk, so nothing
// is read or written any more until the file is opened anew.
var ErrUnusable = errors.New("a change could not be synced; restart the key server to read what is on the disk")

// decode copies: what bbolt gives is valid inside the transaction only.
func decode(name string, raw []byte) (store.Entry, error) {
	if raw == nil {
		return store.Entry{}, fmt.Errorf("%s: %w", name, store.ErrNotFound)
	}
	if len(raw) <= 8 {
		return store.Entry{}, fmt.Errorf("%s: %w: %d bytes", name, errDamaged, len(raw))
	}
	return store.Entry{Revision: binary.BigEndian.Uint64(raw), Value: append([]byte(nil), raw[8:]...)}, nil
}

// List gives the names with a prefix, page by page, so that all of them need not be
// in memory, and the caller may write meanwhile.
func (d *DB) List(ctx context.Context, prefix string) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		err := store.CheckPrefix(prefix)
		for from, more := prefix, true; more && err == nil; {
			var items []store.Item
			if items, err = d.page(ctx, prefix, from); err != nil {
				break
			}
			for _, i := range items {
				if !yield(i, nil) {
					return
				}
				from = i.Name + "\x00"
			}
			more = len(items) == pageSize
		}
		if err != nil {
			yield(store.Item{}, err)
		}
	}
}

// page reads a part of a list.
func (d *DB) page(ctx context.Context, prefix, from string) (items []store.Item, err error) {
	newest := uint64(0)
	err = d.view(func(tx *bolt.Tx) error {
		return walk(ctx, tx, prefix, from, func(i store.Item) bool {
			items, newest = append(items, i), max(newest, i.Revision)
			return len(items) < pageSize
		})
	})
	if err == nil {
		err = d.settled(ctx, newest)
	}
	return items, err
}

// walk calls do with each record, until it returns false.
func walk(ctx context.Context, tx *bolt.Tx, prefix, from string, do func(store.Item) bool) error {
	c := tx.Bucket(records).Cursor()
	for k, v := c.Seek([]byte(from)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		e, err := decode(string(k), v)
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		if !do(store.Item{Name: string(k), Entry: e}) {
			return nil
		}
	}
	return nil
}
