package kdf_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

func TestCheck(t *testing.T) {
	const big = 1<<32 - 1
	salt := make([]byte, 32)
	tests := []struct {
		name   string
		cost   kdf.Cost
		salt   []byte
		limits kdf.Limits
		err    error  // nil: nonsense, unless text is empty
		text   string // empty: fine
	}{
		{name: "argon2id", cost: argon2(kdf.Argon2id, 4, 1<<20, 4), salt: salt},
		{name: "argon2i", cost: argon2(kdf.Argon2i, 4, 1<<20, 4), salt: salt},
		{name: "light", cost: kdf.Light(), salt: salt},
		{name: "pbkdf2", cost: pbkdf2("sha256", 1000), salt: salt},
		{name: "pbkdf2 with 1 iteration", cost: pbkdf2("sha512", 1), salt: salt[:1]},

		{name: "memory at the limit", cost: argon2(kdf.Argon2id, 4, 4<<20, 4), salt: salt},
		{name: "memory above it", cost: argon2(kdf.Argon2id, 4, 4<<20+1, 4), salt: salt, err: kdf.ErrTooCostly, text: "argon2id with 4194305 KiB of memory: more than the limit of 4096 MiB"},
		{name: "all memory there is", cost: argon2(kdf.Argon2id, 1, big, 1), salt: salt, err: kdf.ErrTooCostly, text: "4294967295 KiB of memory"},
		{name: "work at the limit", cost: argon2(kdf.Argon2id, 16, 4<<20, 4), salt: salt},
		{name: "work above it", cost: argon2(kdf.Argon2id, 17, 4<<20, 4), salt: salt, err: kdf.ErrTooCostly, text: "argon2id with 17 passes over 4096 MiB: more than the limit of 65536 MiB in all"},
		{name: "time without an end", cost: argon2(kdf.Argon2i, big, 32, 1), salt: salt, err: kdf.ErrTooCostly, text: "argon2i with 4294967295 passes over 32 KiB: more than the limit"},
		{name: "work that does not fit 32 bits", cost: argon2(kdf.Argon2id, 1<<16, 1<<16, 1), salt: salt, err: kdf.ErrTooCostly, text: "65536 passes over 64 MiB"},
		{name: "iterations at the limit", cost: pbkdf2("sha256", 64<<20), salt: salt},
		{name: "iterations above it", cost: pbkdf2("sha256", 64<<20+1), salt: salt, err: kdf.ErrTooCostly, text: "pbkdf2 with 67108865 iterations: more than the limit of 67108864"},
		{name: "iterations of -5", cost: pbkdf2("sha256", big-4), salt: salt, err: kdf.ErrTooCostly, text: "4294967291 iterations"},

		{name: "caller's memory, at", cost: argon2(kdf.Argon2id, 4, 64<<10, 4), salt: salt, limits: kdf.Limits{MaxMemoryKiB: 64 << 10}},
		{name: "caller's memory, above", cost: argon2(kdf.Argon2id, 4, 64<<10+1, 4), salt: salt, limits: kdf.Limits{MaxMemoryKiB: 64 << 10}, err: kdf.ErrTooCostly, text: "65537 KiB of memory: more than the limit of 64 MiB"},
		{name: "caller's work, at", cost: argon2(kdf.Argon2id, 4, 1000, 4), salt: salt, limits: kdf.Limits{MaxWorkKiB: 4000}},
		{name: "caller's work, above", cost: argon2(kdf.Argon2id, 4, 1000, 4), salt: salt, limits: kdf.Limits{MaxWorkKiB: 3999}, err: kdf.ErrTooCostly, text: "more than the limit of 3999 KiB in all"},
		{name: "caller's iterations", cost: pbkdf2("sha256", 1001), salt: salt, limits: kdf.Limits{MaxIterations: 1000}, err: kdf.ErrTooCostly, text: "more than the limit of 1000"},
		{name: "larger limits of the caller", cost: argon2(kdf.Argon2id, 17, 8<<20, 4), salt: salt, limits: kdf.Limits{MaxMemoryKiB: 16 << 20, MaxWorkKiB: 1 << 40}},

		{name: "0 passes", cost: argon2(kdf.Argon2id, 0, 32, 1), salt: salt, text: "argon2id with 0 passes"},
		{name: "0 lanes", cost: argon2(kdf.Argon2id, 4, 32, 0), salt: salt, text: "argon2id with 0 lanes, must be 1 to 255"},
		{name: "255 lanes", cost: argon2(kdf.Argon2id, 4, 2040, 255), salt: salt},
		{name: "256 lanes", cost: argon2(kdf.Argon2id, 4, 1<<20, 256), salt: salt, text: "argon2id with 256 lanes, must be 1 to 255"},
		{name: "2^32-1 lanes", cost: argon2(kdf.Argon2id, 4, big, big), salt: salt, text: "4294967295 lanes"},
		{name: "8 KiB", cost: argon2(kdf.Argon2id, 1, 8, 1), salt: salt},
		{name: "7 KiB", cost: argon2(kdf.Argon2id, 1, 7, 1), salt: salt, text: "argon2id with 7 KiB for 1 lanes, needs at least 8 KiB each"},
		{name: "8 KiB for two lanes", cost: argon2(kdf.Argon2id, 1, 15, 2), salt: salt, text: "needs at least 8 KiB each"},
		{name: "no memory", cost: argon2(kdf.Argon2id, 1, 0, 1), salt: salt, text: "argon2id with 0 KiB"},
		{name: "0 iterations", cost: pbkdf2("sha256", 0), salt: salt, text: "pbkdf2 with 0 iterations"},
		{name: "salt of 8 bytes", cost: kdf.Light(), salt: salt[:8]},
		{name: "salt of 7 bytes", cost: kdf.Light(), salt: salt[:7], text: "argon2id salt has 7 bytes, needs at least 8"},
		{name: "no salt", cost: pbkdf2("sha256", 1000), text: "pbkdf2 without a salt"},
		{name: "salt of 64 bytes", cost: kdf.Light(), salt: make([]byte, 64)},
		{name: "salt of 65 bytes", cost: pbkdf2("sha256", 1000), salt: make([]byte, 65), text: "pbkdf2 salt has 65 bytes, at most 64 make sense"},

		{name: "unknown hash", cost: pbkdf2("md5", 1000), salt: salt, err: kdf.ErrUnsupported, text: `pbkdf2: hash "md5": not supported`},
		{name: "unknown kind", cost: kdf.Cost{Kind: "scrypt"}, salt: salt, err: kdf.ErrUnsupported, text: `key derivation "scrypt": not supported`},
		{name: "no kind", salt: salt, err: kdf.ErrUnsupported, text: `key derivation "": not supported`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.limits.MaxMemoryKiB == 0 {
				tt.limits.MaxMemoryKiB = 4 << 20 // the default is less on a small machine
			}
			err := kdf.Params{Cost: tt.cost, Salt: tt.salt}.Check(tt.limits)
			if tt.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got %v, want %q", err, tt.text)
			}
			for _, class := range []error{kdf.ErrTooCostly, kdf.ErrUnsupported} {
				if errors.Is(err, class) != (tt.err == class) {
					t.Errorf("%v: is it %q: %v", err, class, errors.Is(err, class))
				}
			}
		})
	}
}

func TestDefaultLimits(t *testing.T) {
	l := kdf.Limits{}.OrDefault()
	if l.MaxMemoryKiB == 0 || l.MaxMemoryKiB > 4<<20 || l.MaxWorkKiB != 64<<20 || l.MaxIterations != 64<<20 {
		t.Errorf("defaults %+v", l)
	}
	own := kdf.Limits{MaxMemoryKiB: 1, MaxWorkKiB: 2, MaxIterations: 3}
	if own.OrDefault() != own {
		t.Errorf("%+v became %+v", own, own.OrDefault())
	}
	if err := argon2(kdf.Argon2id, 1, 4<<20+1, 1).Salted().Check(kdf.Limits{}); !errors.Is(err, kdf.ErrTooCostly) {
		t.Errorf("more than 4 GiB: %v", err)
	}
}

// TestCostCheck: what a new slot may cost. What passes can be opened again under
// the default limits, and by cryptsetup.
func TestCostCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		cost kdf.Cost
		text string
	}{
		{"light", kdf.Light(), ""},
		{"pbkdf2", pbkdf2("sha256", 1000), ""},
		{"999 iterations", pbkdf2("sha256", 999), "pbkdf2 with 999 iterations, must be at least 1000"},
		{"3 passes", argon2(kdf.Argon2id, 3, 1024, 1), "argon2id, 3 passes over 1 MiB, 1 lanes, must be at least 4 passes over 32 KiB"},
		{"31 KiB", argon2(kdf.Argon2i, 4, 31, 1), "must be at least 4 passes over 32 KiB"},
		{"too costly", argon2(kdf.Argon2id, 4, 8<<20, 1), "8192 MiB of memory: more than the limit"},
		{"nonsense", argon2(kdf.Argon2id, 4, 64, 0), "0 lanes"},
		{"unknown", kdf.Cost{Kind: "x"}, "not supported"},
	} {
		if err := tt.cost.Check(); (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.text)
		}
	}
}

func TestCostString(t *testing.T) {
	for want, cost := range map[string]kdf.Cost{
		"argon2id, 4 passes over 512 MiB, 2 lanes": argon2(kdf.Argon2id, 4, 512<<10, 2),
		"argon2i, 4 passes over 1000 KiB, 1 lanes": argon2(kdf.Argon2i, 4, 1000, 1),
		"argon2id, 4 passes over 32 KiB, 1 lanes":  kdf.Light(),
		"pbkdf2-sha512, 1000 iterations":           pbkdf2("sha512", 1000),
	} {
		if got := cost.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
