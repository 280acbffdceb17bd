// Package store says what the key server needs of a place that keeps its records:
// named values, each changed only by who knows which one it replaces.
//
//	kms/store/bolt   one file, one server
//	kms/store/etcd   a cluster, any number of servers
//
//	Get  ──> value, revision ──> change it ──> Swap(revision) ──> new revision
//	             ^                                  │
//	             └─────────── ErrConflict <─────────┘ someone else was faster
//
// A name is never deleted, so its history cannot begin anew behind a reader's
// back; what has to go is overwritten by something that says so, and [Scrubber]
// takes care of what was there before.
//
// What is guaranteed by every implementation: what Swap returned a revision for is
// durable and is seen by each Get that begins later with age 0; of two Swaps of
// one revision, one fails.
//
// What it does not protect: values are stored as they are. What is secret in them
// must be encrypted before.
package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Entry is a stored value. The value belongs to the reader.
type Entry struct {
	Value    []byte
	Revision uint64 // of this value, above 0; the next one's is higher
}

// Item is an entry with its name.
type Item struct {
	Name string
	Entry
}

// Store keeps values. Its methods may be called from many goroutines.
type Store interface {
	// Get returns a value that was the newest one at most age ago; with 0, when
	// the call began. ErrNotFound if there was none.
	Get(ctx context.Context, name string, age time.Duration) (Entry, error)
	// Swap stores value in place of the one with revision old, 0 for a name that
	// is new, and returns its revision. ErrConflict if another one is there.
	// After any other error it is not known whether the value was stored.
	Swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error)
	// List gives the names that begin with prefix, in order: all that were there
	// when the call began, each with a value that it had since then, and perhaps
	// some that came meanwhile. It ends with the first error.
	List(ctx context.Context, prefix string) iter.Seq2[Item, error]
}

// Scrubber is a Store that can clean up: afterwards, values that were replaced
// before are not in its live files any more. Backups keep what they have.
type Scrubber interface {
	Scrub(ctx context.Context) error
}

// Generational is a Store that can say, for next to nothing, that nothing changed.
// What a Get returned that began after Generation gave a number is the newest value
// for as long as it gives the same number.
type Generational interface {
	Generation() uint64
}

var (
	// ErrNotFound: there is no value of that name.
	ErrNotFound = errors.New("no such record")
	// ErrConflict: the value was changed since it was read. Read it again.
	ErrConflict = errors.New("the record was changed by someone else")
	// ErrUnavailable is wrapped by errors that may pass: trying again may help.
	ErrUnavailable = errors.New("the store is not available")
)

// The bounds of names and values.
const (
	MaxName  = 200
	MaxValue = 1 << 20
)

// CheckName says why a name cannot be one: lower-case letters, digits and -._/
// are allowed.
func CheckName(name string) error {
	if name == "" || len(name) > MaxName {
		return fmt.Errorf("store: a name of %d bytes; 1 to %d", len(name), MaxName)
	}
	return CheckPrefix(name)
}

// CheckPrefix says why a prefix cannot begin a name.
func CheckPrefix(prefix string) error {
	for i := range len(prefix) {
		c := prefix[i]
		if (c < 'a' || c > 'z') && (c < '-' || c > '9') && c != '_' {
			return fmt.Errorf("store: name %.60q: only a-z, 0-9 and -._/ are allowed", prefix)
		}
	}
	return nil
}

// CheckValue says why a value cannot be stored.
func CheckValue(value []byte) error {
	if len(value) == 0 || len(value) > MaxValue {
		return fmt.Errorf("store: a value of %d bytes; 1 to %d", len(value), MaxValue)
	}
	return nil
}
