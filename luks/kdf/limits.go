package kdf

import (
	"errors"
	"fmt"
)

// Limits bounds what a header may make us spend on one derivation. Without it,
// an argon2 time of 2^32-1 keeps a boot busy for years and two TiB of memory
// kill the machine. The zero value gives the defaults.
type Limits struct {
	// MaxMemoryKiB bounds Argon2 memory. Default 4 GiB, the most that
	// cryptsetup accepts when it makes a slot, or all that the machine has.
	MaxMemoryKiB uint32
	// MaxWorkKiB bounds passes times memory, since a small memory with a large
	// time hangs just as well. Default 64 GiB: sixteen times cryptsetup's usual
	// 4 passes over 1 GiB, about a minute of work.
	MaxWorkKiB uint64
	// MaxIterations bounds PBKDF2. Default 64 million: half a minute with
	// SHA-256, some minutes with the slowest hash.
	MaxIterations uint32
}

const (
	defaultMaxMemoryKiB  = 4 << 20
	defaultMaxWorkKiB    = 64 << 20
	defaultMaxIterations = 64 << 20
)

// OrDefault returns the limits with each default in place of a zero. Whoever
// checks many parameters calls it once: the default for memory asks the system.
func (l Limits) OrDefault() Limits {
	if l.MaxMemoryKiB == 0 {
		l.MaxMemoryKiB = uint32(min(defaultMaxMemoryKiB, memory().total))
	}
	if l.MaxWorkKiB == 0 {
		l.MaxWorkKiB = defaultMaxWorkKiB
	}
	if l.MaxIterations == 0 {
		l.MaxIterations = defaultMaxIterations
	}
	return l
}

// ErrTooCostly is wrapped by errors about costs above the limits.
var ErrTooCostly = errors.New("more than the limit")

// Bounds of the algorithms themselves.
const (
	minArgon2Salt      = 8   // RFC 9106, section 3.1
	minArgon2KiBPerCPU = 8   // RFC 9106, section 3.1
	maxArgon2CPUs      = 255 // package argon2 counts lanes in a byte
	maxSalt            = 64  // the largest a LUKS2 tool writes is 32
)

// Check says why the parameters cannot or may not be used: errors.Is tells
// [ErrTooCostly] and [ErrUnsupported] apart from nonsense.
func (p Params) Check(limits Limits) error {
	if len(p.Salt) > maxSalt {
		return fmt.Errorf("%s salt has %d bytes, at most %d make sense", p.Kind, len(p.Salt), maxSalt)
	}
	return p.Cost.check(limits.OrDefault(), len(p.Salt))
}

func (c Cost) check(l Limits, salt int) error {
	switch c.Kind {
	case Argon2id, Argon2i:
		return c.checkArgon2(l, salt)
	case PBKDF2:
		if _, err := NewHash(c.Hash); err != nil {
			return fmt.Errorf("pbkdf2: %w", err)
		}
		switch {
		case c.Iterations == 0:
			return errors.New("pbkdf2 with 0 iterations")
		case c.Iterations > l.MaxIterations:
			return fmt.Errorf("pbkdf2 with %d iterations: %w of %d", c.Iterations, ErrTooCostly, l.MaxIterations)
		case salt == 0:
			return errors.New("pbkdf2 without a salt")
		}
		return nil
	}
	return fmt.Errorf("key derivation %q: %w", c.Kind, ErrUnsupported)
}

func (c Cost) checkArgon2(l Limits, salt int) error {
	switch {
	case c.Time == 0:
		return fmt.Errorf("%s with 0 passes", c.Kind)
	case c.CPUs == 0 || c.CPUs > maxArgon2CPUs:
		return fmt.Errorf("%s with %d lanes, must be 1 to %d", c.Kind, c.CPUs, maxArgon2CPUs)
	case uint64(c.MemoryKiB) < minArgon2KiBPerCPU*uint64(c.CPUs):
		return fmt.Errorf("%s with %d KiB for %d lanes, needs at least %d KiB each", c.Kind, c.MemoryKiB, c.CPUs, minArgon2KiBPerCPU)
	case salt < minArgon2Salt:
		return fmt.Errorf("%s salt has %d bytes, needs at least %d", c.Kind, salt, minArgon2Salt)
	case c.MemoryKiB > l.MaxMemoryKiB:
		return fmt.Errorf("%s with %s of memory: %w of %s", c.Kind, kib(uint64(c.MemoryKiB)), ErrTooCostly, kib(uint64(l.MaxMemoryKiB)))
	case uint64(c.Time)*uint64(c.MemoryKiB) > l.MaxWorkKiB:
		return fmt.Errorf("%s with %d passes over %s: %w of %s in all", c.Kind, c.Time, kib(uint64(c.MemoryKiB)), ErrTooCostly, kib(l.MaxWorkKiB))
	}
	return nil
}
