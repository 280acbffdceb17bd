package kdf_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

const mib = 1 << 10 // in KiB

// server is a machine of the nominal speed.
var server = kdf.Machine{CPUs: 8, TotalKiB: 32 << 20, AvailableKiB: 16 << 20, LaneKiB: 800 * mib, Iterations: 4e6}

func with(change func(m *kdf.Machine)) kdf.Machine {
	m := server
	change(&m)
	return m
}

func TestTargetCost(t *testing.T) {
	for _, tt := range []struct {
		name    string
		target  kdf.Target
		machine kdf.Machine
		want    kdf.Cost
	}{
		{"defaults", kdf.Target{}, server, argon2(kdf.Argon2id, 4, 1024*mib, 4)},
		{"a faster machine gives the same", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = 9000 * mib }), argon2(kdf.Argon2id, 4, 1024*mib, 4)},
		{"just the nominal speed", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = 512 * mib }), argon2(kdf.Argon2id, 4, 1024*mib, 4)},
		{"just below it", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = 512*mib - 1 }), argon2(kdf.Argon2id, 4, 512*mib, 4)},
		{"just above the next step", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = 257 * mib }), argon2(kdf.Argon2id, 4, 512*mib, 4)},
		{"one processor", kdf.Target{}, with(func(m *kdf.Machine) { m.CPUs = 1 }), argon2(kdf.Argon2id, 4, 256*mib, 1)},
		{"two processors", kdf.Target{}, with(func(m *kdf.Machine) { m.CPUs = 2 }), argon2(kdf.Argon2id, 4, 512*mib, 2)},
		{"no processors known", kdf.Target{}, with(func(m *kdf.Machine) { m.CPUs = 0 }), argon2(kdf.Argon2id, 4, 256*mib, 1)},
		{"little memory: more passes", kdf.Target{}, with(func(m *kdf.Machine) { m.AvailableKiB = 512 * mib }), argon2(kdf.Argon2id, 16, 256*mib, 4)},
		{"a small machine: a quarter of it", kdf.Target{}, with(func(m *kdf.Machine) { m.TotalKiB = 2000 * mib }), argon2(kdf.Argon2id, 16, 256*mib, 4)},
		{"odd memory: a power of two", kdf.Target{}, with(func(m *kdf.Machine) { m.AvailableKiB = 1000 * mib }), argon2(kdf.Argon2id, 16, 256*mib, 4)},
		{"no memory", kdf.Target{}, with(func(m *kdf.Machine) { m.AvailableKiB = 0 }), argon2(kdf.Argon2id, 131072, 32, 4)},
		{"a cap", kdf.Target{MaxMemoryKiB: 64 * mib}, server, argon2(kdf.Argon2id, 64, 64*mib, 4)},
		{"an odd cap", kdf.Target{MaxMemoryKiB: 100 * mib}, server, argon2(kdf.Argon2id, 64, 64*mib, 4)},
		{"one lane asked for", kdf.Target{MaxCPUs: 1}, server, argon2(kdf.Argon2id, 4, 256*mib, 1)},
		{"argon2i", kdf.Target{Kind: kdf.Argon2i}, server, argon2(kdf.Argon2i, 4, 1024*mib, 4)},
		{"a tenth of a second", kdf.Target{Time: 100 * time.Millisecond}, server, argon2(kdf.Argon2id, 6, 32*mib, 4)},
		{"a minute", kdf.Target{Time: time.Minute}, server, argon2(kdf.Argon2id, 64, 1024*mib, 4)},
		{"a minute with no cap", kdf.Target{Time: time.Minute, MaxMemoryKiB: math.MaxUint32, MaxCPUs: 4}, with(func(m *kdf.Machine) { m.AvailableKiB, m.TotalKiB = 1<<40, 1<<40 }), argon2(kdf.Argon2id, 16, 4096*mib, 4)},
		{"a negative time is the default", kdf.Target{Time: -time.Second}, server, argon2(kdf.Argon2id, 4, 1024*mib, 4)},
		{"a machine that stands still", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = 0 }), argon2(kdf.Argon2id, 4, 32, 4)},
		{"a speed that is no number", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = math.NaN() }), argon2(kdf.Argon2id, 4, 32, 4)},
		{"an endless speed", kdf.Target{}, with(func(m *kdf.Machine) { m.LaneKiB = math.Inf(1) }), argon2(kdf.Argon2id, 4, 1024*mib, 4)},

		{"pbkdf2", kdf.Target{Kind: kdf.PBKDF2}, server, pbkdf2("sha256", 4<<20)},
		{"pbkdf2 on a slow machine", kdf.Target{Kind: kdf.PBKDF2}, with(func(m *kdf.Machine) { m.Iterations = 1 << 20 }), pbkdf2("sha256", 2<<20)},
		{"pbkdf2 in no time", kdf.Target{Kind: kdf.PBKDF2, Time: 1}, server, pbkdf2("sha256", 1000)},
		{"pbkdf2 in a year", kdf.Target{Kind: kdf.PBKDF2, Time: 365 * 24 * time.Hour, Hash: "sha512"}, server, pbkdf2("sha512", 64<<20)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for range 3 {
				got, err := tt.target.Cost(tt.machine)
				if err != nil || got != tt.want {
					t.Fatalf("got %v, %v; want %v", got, err, tt.want)
				}
			}
		})
	}
	for _, target := range []kdf.Target{{Kind: "scrypt"}, {Kind: kdf.PBKDF2, Hash: "md5"}} {
		if c, err := target.Cost(server); !errors.Is(err, kdf.ErrUnsupported) || c != (kdf.Cost{}) {
			t.Errorf("%+v: %v, %v", target, c, err)
		}
		if _, err := kdf.Calibrate(t.Context(), target); !errors.Is(err, kdf.ErrUnsupported) {
			t.Errorf("calibrate %+v: %v", target, err)
		}
	}
}

func machines() *rapid.Generator[kdf.Machine] {
	return rapid.Custom(func(t *rapid.T) kdf.Machine {
		return kdf.Machine{
			CPUs:         rapid.IntRange(-1, 512).Draw(t, "CPUs"),
			TotalKiB:     rapid.Uint64Range(0, 1<<32).Draw(t, "total"),
			AvailableKiB: rapid.Uint64Range(0, 1<<32).Draw(t, "available"),
			LaneKiB:      rapid.Float64Range(0, 1<<24).Draw(t, "lane"),
			Iterations:   rapid.Float64Range(0, 1<<28).Draw(t, "iterations"),
		}
	})
}

func targets() *rapid.Generator[kdf.Target] {
	return rapid.Custom(func(t *rapid.T) kdf.Target {
		return kdf.Target{
			Kind:         rapid.SampledFrom([]kdf.Kind{"", kdf.Argon2id, kdf.Argon2i, kdf.PBKDF2}).Draw(t, "kind"),
			Time:         time.Duration(rapid.Int64Range(-1, int64(time.Hour)).Draw(t, "time")),
			MaxMemoryKiB: rapid.Uint32Range(0, 1<<24).Draw(t, "memory"),
			MaxCPUs:      rapid.Uint32Range(0, 512).Draw(t, "lanes"),
		}
	})
}

// TestTargetCaps: whatever the machine and the wish, the cost can be used, and
// passes no cap but that of the least there is.
func TestTargetCaps(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		target, machine := targets().Draw(r, "target"), machines().Draw(r, "machine")
		c, err := target.Cost(machine)
		if err != nil {
			r.Fatal(err)
		}
		if err := c.Check(); err != nil {
			r.Fatal(err)
		}
		if !c.Kind.MemoryHard() {
			return
		}
		memory, least := c.MemoryKiB, max(32, 8*c.CPUs)
		if power := memory&(memory-1) == 0; !power && memory != least {
			r.Fatalf("%d KiB is no power of two", memory)
		}
		if memory > least && (uint64(memory) > machine.AvailableKiB/2 || target.MaxMemoryKiB > 0 && memory > target.MaxMemoryKiB) {
			r.Fatalf("%d KiB, of %d available and at most %d", memory, machine.AvailableKiB, target.MaxMemoryKiB)
		}
		if most := max(1, min(machine.CPUs, 255)); int(c.CPUs) > most || target.MaxCPUs > 0 && c.CPUs > target.MaxCPUs {
			r.Fatalf("%d lanes on %d processors, at most %d", c.CPUs, machine.CPUs, target.MaxCPUs)
		}
	})
}

// TestTargetMonotone: more time or a faster machine never makes a key cheaper to
// guess.
func TestTargetMonotone(t *testing.T) {
	work := func(c kdf.Cost) uint64 {
		if c.Kind.MemoryHard() {
			return uint64(c.Time) * uint64(c.MemoryKiB)
		}
		return uint64(c.Iterations)
	}
	rapid.Check(t, func(r *rapid.T) {
		target, machine := targets().Draw(r, "target"), machines().Draw(r, "machine")
		target.Time = max(1, target.Time)
		more, faster := target, machine
		more.Time += time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(r, "more time"))
		faster.LaneKiB *= rapid.Float64Range(1, 4).Draw(r, "faster")
		faster.Iterations *= rapid.Float64Range(1, 4).Draw(r, "faster")
		base, err0 := target.Cost(machine)
		longer, err1 := more.Cost(machine)
		quicker, err2 := target.Cost(faster)
		if err := errors.Join(err0, err1, err2); err != nil {
			r.Fatal(err)
		}
		for name, c := range map[string]kdf.Cost{"more time": longer, "a faster machine": quicker} {
			if work(c) < work(base) || c.MemoryKiB < base.MemoryKiB {
				r.Fatalf("%s: %v, was %v", name, c, base)
			}
		}
	})
}

// TestTargetSteps: noise of a benchmark does not change the cost until it is as
// large as the distance to the next step, a factor of two.
func TestTargetSteps(t *testing.T) {
	seen := map[kdf.Cost]bool{}
	for speed := 100.0 * mib; speed < 2000*mib; speed *= 1.01 {
		c, err := kdf.Target{}.Cost(with(func(m *kdf.Machine) { m.LaneKiB = speed }))
		if err != nil {
			t.Fatal(err)
		}
		seen[c] = true
	}
	if len(seen) != 4 { // below 128, 256 and 512 MiB a second, and above
		t.Errorf("%d costs from 100 to 2000 MiB a second: %v", len(seen), seen)
	}
}

func TestCalibrate(t *testing.T) {
	for _, target := range []kdf.Target{{}, {Kind: kdf.PBKDF2}, {MaxMemoryKiB: 1024, MaxCPUs: 1}} {
		begin := time.Now()
		c, err := kdf.Calibrate(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Check(); err != nil {
			t.Errorf("%v: %v", c, err)
		}
		if target.MaxMemoryKiB > 0 && (c.MemoryKiB > target.MaxMemoryKiB || c.CPUs != 1) {
			t.Errorf("%v is above %+v", c, target)
		}
		t.Logf("%v after %v", c, time.Since(begin))
	}
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := kdf.Calibrate(ctx, kdf.Target{}); !errors.Is(err, why) {
		t.Errorf("cancelled: %v", err)
	}
}
