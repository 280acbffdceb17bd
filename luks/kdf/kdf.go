// Package kdf turns a passphrase into a key-encryption key, as LUKS2 keyslots
// do it, and says what that costs.
//
//	Cost   what a derivation takes: kind, passes, memory, lanes or iterations
//	Params a Cost and the salt: all that a keyslot stores
//	Limits what the caller is willing to spend on parameters found on a disk
//	Target what a new passphrase is worth; Machine what this computer can do
//
// Parameters read from a disk are hostile: [Params.Derive] holds them against
// the caller's [Limits] before it allocates or starts anything. Derivations that
// need much memory run one at a time in a process, and their memory goes back to
// the system when they end.
//
// What this does not do: stop a derivation half way. A context is looked at
// before a derivation starts and when it ends.
package kdf

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/pbkdf2"

	"github.com/cryptctl/cryptctl/secret"
)

// Kind names an algorithm the way the LUKS2 `kdf.type` member does.
type Kind string

// The kinds of the LUKS2 On-Disk Format Specification, section 3.2.1.
const (
	Argon2id Kind = "argon2id"
	Argon2i  Kind = "argon2i"
	PBKDF2   Kind = "pbkdf2"
)

// MemoryHard reports whether the kind is an Argon2 variant.
func (k Kind) MemoryHard() bool { return k == Argon2id || k == Argon2i }

// Cost is what one derivation takes.
type Cost struct {
	Kind Kind

	Hash       string // PBKDF2: the hash, such as "sha256"
	Iterations uint32 // PBKDF2: iterations

	Time      uint32 // Argon2: passes over the memory
	MemoryKiB uint32 // Argon2: memory in KiB
	CPUs      uint32 // Argon2: lanes
}

// String gives the cost for people: "argon2id, 4 passes over 512 MiB, 2 lanes".
func (c Cost) String() string {
	if c.Kind.MemoryHard() {
		return fmt.Sprintf("%s, %d passes over %s, %d lanes", c.Kind, c.Time, kib(uint64(c.MemoryKiB)), c.CPUs)
	}
	return fmt.Sprintf("%s-%s, %d iterations", c.Kind, c.Hash, c.Iterations)
}

func kib(n uint64) string {
	if n >= 1<<10 && n%(1<<10) == 0 {
		return fmt.Sprintf("%d MiB", n>>10)
	}
	return fmt.Sprintf("%d KiB", n)
}

// SaltSize is the length of the salts made here, as cryptsetup makes them.
const SaltSize = 32

// Params is a Cost and a salt: what a keyslot stores.
type Params struct {
	Cost
	Salt []byte
}

// Salted returns the cost with a fresh random salt.
func (c Cost) Salted() Params {
	salt := secret.Random(SaltSize) // a salt is public; this is just a random source
	defer salt.Wipe()
	return Params{Cost: c, Salt: append([]byte(nil), salt.Bytes()...)}
}

// heavyKiB is the memory from which a derivation waits for its turn. Below it,
// two at a time are no danger to a small node.
const heavyKiB = 16 << 10

// turn lets one heavy derivation run at a time. It is process-wide because the
// memory it guards is.
var turn = make(chan struct{}, 1)

// Derive returns size bytes of key material. It refuses costs above the limits
// before it allocates, waits for its turn if it needs much memory, and gives
// that memory back to the system. It fails with the context's error when that
// ends before, or while, the derivation runs; a running derivation is not cut
// short.
func (p Params) Derive(ctx context.Context, passphrase *secret.Bytes, size int, limits Limits) (*secret.Bytes, error) {
	if err := p.Check(limits); err != nil {
		return nil, err
	}
	heavy := p.Kind.MemoryHard() && p.MemoryKiB >= heavyKiB
	if heavy {
		select {
		case turn <- struct{}{}:
			defer func() { <-turn }()
		case <-ctx.Done():
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("key derivation not started: %w", context.Cause(ctx))
	}
	done := traceStart(ctx, p.Cost)
	var key *secret.Bytes
	secret.Do(func() { key = secret.Take(p.run(passphrase.Bytes(), size)) })
	if heavy {
		// argon2 leaves its blocks to the garbage collector; a second derivation
		// would otherwise double the peak.
		debug.FreeOSMemory()
	}
	done()
	if err := ctx.Err(); err != nil {
		key.Wipe()
		return nil, fmt.Errorf("key derivation: %w", context.Cause(ctx))
	}
	return key, nil
}

// run expects parameters that passed Check: package argon2 panics on others.
func (p Params) run(passphrase []byte, size int) []byte {
	switch p.Kind {
	case Argon2id:
		return argon2.IDKey(passphrase, p.Salt, p.Time, p.MemoryKiB, uint8(p.CPUs), uint32(size))
	case Argon2i:
		return argon2.Key(passphrase, p.Salt, p.Time, p.MemoryKiB, uint8(p.CPUs), uint32(size))
	default:
		newHash, _ := NewHash(p.Hash)
		return pbkdf2.Key(passphrase, p.Salt, int(p.Iterations), size, newHash)
	}
}

// Trace watches the derivations done under a context: for progress displays,
// and for tests that count them.
type Trace struct {
	Start func(Cost)                // before a derivation; nil is fine
	Done  func(Cost, time.Duration) // after it; nil is fine
}

type traceKey struct{}

// WithTrace returns a context whose derivations are reported to t, and to the
// traces set on ctx before.
func WithTrace(ctx context.Context, t Trace) context.Context {
	outer, ok := ctx.Value(traceKey{}).(Trace)
	if !ok {
		return context.WithValue(ctx, traceKey{}, t)
	}
	both := Trace{
		Start: func(c Cost) { outer.start(c); t.start(c) },
		Done:  func(c Cost, d time.Duration) { outer.done(c, d); t.done(c, d) },
	}
	return context.WithValue(ctx, traceKey{}, both)
}

func (t Trace) start(c Cost) {
	if t.Start != nil {
		t.Start(c)
	}
}

func (t Trace) done(c Cost, d time.Duration) {
	if t.Done != nil {
		t.Done(c, d)
	}
}

func traceStart(ctx context.Context, c Cost) (done func()) {
	t, _ := ctx.Value(traceKey{}).(Trace)
	t.start(c)
	begin := time.Now()
	return func() { t.done(c, time.Since(begin)) }
}

// ErrUnsupported is wrapped by errors about an algorithm this package lacks.
var ErrUnsupported = errors.New("not supported")
