// Package secret holds bytes that must not leak: passphrases, volume keys and
// the keys derived from them.
//
// A [Bytes] lives outside the Go heap, in pages of its own:
//
//	+------------------------- one anonymous mapping -------------------------+
//	| the secret, n bytes | zeros up to the page end                          |
//	+--------------------------------------------------------------------------+
//	  mlock: never swapped        MADV_DONTDUMP: not in core dumps
//
// The garbage collector neither moves nor copies it, and Wipe zeroes and unmaps
// it at once. It cannot be printed: every verb of package fmt, JSON, text
// encoding and slog give [Placeholder].
//
// What this does not protect: a debugger or a process of the same user that
// reads our memory, hibernation images, and the copies that a cipher's key
// schedule makes in the Go heap, and a key derivation where [Do] cannot erase
// them. Locking is best effort: where RLIMIT_MEMLOCK is used up the bytes are
// still wiped and unprintable, and [Bytes.Locked] says so.
package secret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
)

// Placeholder is what a secret prints as, whoever prints it.
const Placeholder = "[secret]"

// ErrTooLong is returned by [Read] when the source holds more than the limit.
var ErrTooLong = errors.New("more bytes than a secret may have here")

// Bytes is a secret of a fixed length. The zero value and nil are empty secrets.
// It must not be copied; pass the pointer. Len, Clone and Concat may run while
// another goroutine wipes it, and find it empty afterwards: a provider that was
// left behind may ask for its secret late. What Bytes returned is not protected.
type Bytes struct {
	_      noCopy
	mu     sync.RWMutex
	data   []byte // the secret; a prefix of page
	page   []byte // the whole mapping, or nil for heap memory
	locked bool
}

type noCopy struct{}

func (*noCopy) Lock()   {}
func (*noCopy) Unlock() {}

// New returns a zeroed secret of n bytes.
func New(n int) *Bytes {
	if n <= 0 {
		return &Bytes{}
	}
	if page, locked, ok := mapPages(n); ok {
		return &Bytes{data: page[:n:n], page: page, locked: locked}
	}
	return &Bytes{data: make([]byte, n)}
}

// Random returns n bytes from the system's random source.
func Random(n int) *Bytes {
	b := New(n)
	rand.Read(b.data) // never fails: package crypto/rand
	return b
}

// Copy returns a secret with the contents of p, which stays as it is.
func Copy(p []byte) *Bytes {
	b := New(len(p))
	copy(b.data, p)
	return b
}

// Take returns a secret with the contents of p and zeroes p.
func Take(p []byte) *Bytes {
	b := Copy(p)
	clear(p)
	return b
}

// Concat returns the secrets joined in order.
func Concat(parts ...*Bytes) *Bytes {
	n, copies := 0, make([]*Bytes, len(parts))
	for i, p := range parts {
		copies[i] = p.Clone()
		n += copies[i].Len()
	}
	b, at := New(n), 0
	for _, p := range copies {
		at += copy(b.data[at:], p.data)
		p.Wipe()
	}
	return b
}

// Read reads r to its end. It fails with [ErrTooLong] when r holds more than
// limit bytes.
func Read(r io.Reader, limit int) (*Bytes, error) {
	buf := New(min(limit+1, 4096))
	n := 0
	for {
		if n == buf.Len() {
			if n > limit {
				buf.Wipe()
				return nil, fmt.Errorf("%w: limit %d", ErrTooLong, limit)
			}
			grown := New(min(2*n, limit+1))
			copy(grown.data, buf.data)
			buf.Wipe()
			buf = grown
		}
		got, err := r.Read(buf.data[n:])
		n += got
		if err == io.EOF {
			break
		}
		if err != nil {
			buf.Wipe()
			return nil, err
		}
	}
	if n > limit {
		buf.Wipe()
		return nil, fmt.Errorf("%w: limit %d", ErrTooLong, limit)
	}
	out := Copy(buf.data[:n])
	buf.Wipe()
	return out, nil
}

// Bytes returns the secret itself, valid until Wipe. The caller must not keep
// it, append to it or convert it to a string.
func (b *Bytes) Bytes() []byte {
	if b == nil {
		return nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.data
}

// Len returns the length in bytes.
func (b *Bytes) Len() int {
	return len(b.Bytes())
}

// Locked reports whether the kernel promised to keep the bytes out of swap.
func (b *Bytes) Locked() bool { return b != nil && b.locked }

// Equal compares two secrets in time that depends on their lengths only.
func (b *Bytes) Equal(o *Bytes) bool {
	return subtle.ConstantTimeCompare(b.Bytes(), o.Bytes()) == 1
}

// Clone returns an independent copy.
func (b *Bytes) Clone() *Bytes {
	if b == nil {
		return New(0)
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return Copy(b.data)
}

// Wipe zeroes the secret and gives its memory back. The secret is empty
// afterwards; wiping it again, or wiping nil, does nothing.
func (b *Bytes) Wipe() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.data)
	if b.page != nil {
		unmapPages(b.page)
	}
	b.data, b.page, b.locked = nil, nil, false
}

// Format prints [Placeholder] for every verb and flag.
func (b *Bytes) Format(f fmt.State, _ rune) { io.WriteString(f, Placeholder) }

// String returns [Placeholder].
func (b *Bytes) String() string { return Placeholder }

// GoString returns [Placeholder].
func (b *Bytes) GoString() string { return Placeholder }

// MarshalText returns [Placeholder].
func (b *Bytes) MarshalText() ([]byte, error) { return []byte(Placeholder), nil }

// MarshalJSON returns [Placeholder] as a JSON string.
func (b *Bytes) MarshalJSON() ([]byte, error) { return []byte(`"` + Placeholder + `"`), nil }

// LogValue returns [Placeholder].
func (b *Bytes) LogValue() slog.Value { return slog.StringValue(Placeholder) }
