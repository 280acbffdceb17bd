package kdf

import (
	"context"
	"fmt"
	"math/bits"
	"runtime"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/pbkdf2"
)

// Light is the cost for secrets that carry 256 random bits, where stretching
// adds nothing: the smallest Argon2id that cryptsetup makes (and so accepts) and
// that Talos, which refuses pbkdf2, opens.
func Light() Cost {
	return Cost{Kind: Argon2id, Time: minPasses, MemoryKiB: minMemoryKiB, CPUs: 1}
}

// Smallest costs that cryptsetup lets a user choose (lib/internal.h and
// utils_pbkdf.c of cryptsetup 2.6: MIN_MEMORY, MIN_TIME, MIN_ITERATIONS).
const (
	minPasses     = 4
	minMemoryKiB  = 32
	minIterations = 1000
)

// Target is what trying one passphrase shall cost on this machine. The zero
// value gives cryptsetup's defaults.
type Target struct {
	Kind         Kind          // default Argon2id
	Hash         string        // for PBKDF2; default "sha256"
	Time         time.Duration // default 2 s
	MaxMemoryKiB uint32        // default 1 GiB
	MaxCPUs      uint32        // default 4
}

func (t Target) orDefault() Target {
	if t.Kind == "" {
		t.Kind = Argon2id
	}
	if t.Hash == "" {
		t.Hash = "sha256"
	}
	if t.Time <= 0 {
		t.Time = 2 * time.Second
	}
	if t.MaxMemoryKiB == 0 {
		t.MaxMemoryKiB = 1 << 20
	}
	if t.MaxCPUs == 0 {
		t.MaxCPUs = 4
	}
	return t
}

// Machine is what a calibration knows of a computer.
type Machine struct {
	CPUs         int
	TotalKiB     uint64  // memory that the machine, or our control group, has
	AvailableKiB uint64  // memory that a process could get now
	LaneKiB      float64 // Argon2: KiB filled per second by one lane
	Iterations   float64 // PBKDF2: iterations per second
}

// Nominal speeds. A machine at least this fast is taken to be exactly this
// fast, one that is slower is rounded down to the next power of two below. So
// noise must be as large as the distance to the next step, a factor of two, to
// change a cost; a benchmark taken at face value gives another cost each time
// (cryptsetup 2.6.1 chose 290 MB to 1 GiB on one and the same machine).
// Servers of the last ten years fill 700 to 1,300 MiB and do 2 to 6 million
// iterations of HMAC-SHA-256 a second.
const (
	nominalLaneKiB    = 512 << 10
	nominalIterations = 2 << 20
)

// Cost returns what fits the target on that machine. It is a pure function:
// Argon2 memory is a power of two, at most a quarter of the machine's, so that it
// does not depend on what happens to run, and in any case at most half of what is
// available; where a cap binds, more passes fill the time.
func (t Target) Cost(m Machine) (Cost, error) {
	t = t.orDefault()
	switch t.Kind {
	case PBKDF2:
		if _, err := NewHash(t.Hash); err != nil {
			return Cost{}, fmt.Errorf("pbkdf2: %w", err)
		}
		n := stepDown(m.Iterations, nominalIterations) * t.Time.Seconds()
		return Cost{Kind: PBKDF2, Hash: t.Hash, Iterations: uint32(min(max(n, minIterations), defaultMaxIterations))}, nil
	case Argon2id, Argon2i:
		lanes := uint32(max(1, min(m.CPUs, int(min(t.MaxCPUs, maxArgon2CPUs)))))
		work := stepDown(m.LaneKiB, nominalLaneKiB) * float64(lanes) * t.Time.Seconds()
		memory := min(uint64(work/minPasses), uint64(t.MaxMemoryKiB), m.TotalKiB/4, m.AvailableKiB/2, defaultMaxMemoryKiB)
		memory = max(powerBelow(memory), minMemoryKiB, uint64(minArgon2KiBPerCPU*lanes))
		passes := min(max(uint64(work)/memory, minPasses), defaultMaxWorkKiB/memory)
		return Cost{Kind: t.Kind, Time: uint32(passes), MemoryKiB: uint32(memory), CPUs: lanes}, nil
	}
	return Cost{}, fmt.Errorf("key derivation %q: %w", t.Kind, ErrUnsupported)
}

// stepDown rounds a measured speed down to nominal divided by a power of two.
func stepDown(measured, nominal float64) float64 {
	for step := nominal; step > 1; step /= 2 {
		if measured >= step {
			return step
		}
	}
	return 1
}

func powerBelow(n uint64) uint64 {
	if n == 0 {
		return 0
	}
	return 1 << (bits.Len64(n) - 1)
}

// Calibrate measures this machine for under a tenth of a second and returns the
// cost that fits the target.
func Calibrate(ctx context.Context, t Target) (Cost, error) {
	has := memory()
	m := Machine{CPUs: runtime.NumCPU(), TotalKiB: has.total, AvailableKiB: has.available}
	best := func(work float64, f func()) float64 {
		speed := 0.0
		for range 3 {
			begin := time.Now()
			f()
			speed = max(speed, work/time.Since(begin).Seconds())
		}
		return speed
	}
	if t.orDefault().Kind == PBKDF2 {
		const n = 1 << 14
		newHash, err := NewHash(t.orDefault().Hash)
		if err != nil {
			return Cost{}, fmt.Errorf("pbkdf2: %w", err)
		}
		m.Iterations = best(n, func() { pbkdf2.Key(make([]byte, 16), make([]byte, 16), n, 32, newHash) })
	} else {
		const size = 8 << 10
		m.LaneKiB = best(2*size, func() { argon2.IDKey(make([]byte, 16), make([]byte, 16), 2, size, 1, 32) })
	}
	if err := ctx.Err(); err != nil {
		return Cost{}, fmt.Errorf("calibrate: %w", context.Cause(ctx))
	}
	return t.Cost(m)
}

// Check says why a cost cannot be used for a new slot: besides nonsense, costs
// that the default limits would refuse to open, and those below the least that
// cryptsetup makes.
func (c Cost) Check() error {
	if err := c.check(Limits{}.OrDefault(), SaltSize); err != nil {
		return err
	}
	switch {
	case c.Kind == PBKDF2 && c.Iterations < minIterations:
		return fmt.Errorf("pbkdf2 with %d iterations, must be at least %d", c.Iterations, minIterations)
	case c.Kind.MemoryHard() && (c.Time < minPasses || c.MemoryKiB < minMemoryKiB):
		return fmt.Errorf("%s, must be at least %d passes over %s", c, minPasses, kib(minMemoryKiB))
	}
	return nil
}
