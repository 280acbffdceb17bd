// Package bolt keeps the key server's records in one file.
//
//	path       bbolt: bucket "cryptctl": format = 1
//	                  bucket "records":  name = revision, 8 bytes big endian | value
//	path.lock  one process at a time, also while the file is being replaced
//
// Swaps that come while another one is being written share the next write and its
// sync; nobody waits for a clock. Gets read the mapped file and wait for nothing.
//
// What is guaranteed: what package store asks for, and that a file is the state
// after some Swap, whenever the process was killed. [DB.Backup] is a state of one
// moment while others read and write; [Restore] refuses a backup that is cut,
// changed or inconsistent.
//
// What it does not protect: bbolt has no checksums on its data pages, so a disk
// that returns other bytes is believed; backups have one. [DB.Scrub] overwrites
// the old file, which a file system that copies on write, or a flash disk, keeps
// elsewhere: a key is gone for good when the key that wrapped it is.
package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/kms/store"
)

const (
	openTimeout = 5 * time.Second // for bbolt's own lock; ours is tried once
	format      = "1"
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

	generation atomic.Uint64 // counts the groups that were written

	mu   sync.Mutex
	next *group
	turn chan struct{} // held by the one who writes
}

var (
	_ store.Store    = (*DB)(nil)
	_ store.Scrubber = (*DB)(nil)

	_ store.Generational = (*DB)(nil)
)

// Open opens a file, or makes it.
func Open(path string) (*DB, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s: another process has it open: %w", path, err)
	}
	os.Remove(path + scrubbed) // of a Scrub that was interrupted
	db, err := open(path, false)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &DB{path: path, lock: lock, db: db, next: newGroup(), turn: make(chan struct{}, 1)}, nil
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
	return e, err
}

func (d *DB) view(read func(*bolt.Tx) error) error {
	d.swap.RLock()
	defer d.swap.RUnlock()
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

// List gives the names with a prefix. They are read before the first is given, so
// that the caller may write meanwhile.
func (d *DB) List(ctx context.Context, prefix string) iter.Seq2[store.Item, error] {
	return func(yield func(store.Item, error) bool) {
		var items []store.Item
		err := store.CheckPrefix(prefix)
		if err == nil {
			err = d.view(func(tx *bolt.Tx) error {
				items, err = listed(ctx, tx, prefix)
				return err
			})
		}
		for _, i := range items {
			if err == nil && !yield(i, nil) {
				return
			}
		}
		if err != nil {
			yield(store.Item{}, err)
		}
	}
}

func listed(ctx context.Context, tx *bolt.Tx, prefix string) (items []store.Item, err error) {
	c := tx.Bucket(records).Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix; k, v = c.Next() {
		e, err := decode(string(k), v)
		if err := errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
		items = append(items, store.Item{Name: string(k), Entry: e})
	}
	return items, nil
}
