package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// costFlags say what a new slot with a passphrase costs, under cryptsetup's names.
type costFlags struct {
	kind, hash                   string
	memory, iterations, parallel uint32
	iterTime                     uint32
}

// defaultCost is the cost without flags: calibrated to this machine.
func defaultCost() costFlags { return costFlags{kind: "argon2id", hash: "sha256", iterTime: 2000} }

func (c *costFlags) flags(cmd *cobra.Command) {
	*c = defaultCost()
	f := cmd.Flags()
	f.StringVar(&c.kind, "pbkdf", c.kind, "key derivation `NAME` of new slots: argon2id, argon2i or pbkdf2")
	f.StringVar(&c.hash, "hash", c.hash, "hash `NAME` of pbkdf2")
	f.Uint32Var(&c.memory, "pbkdf-memory", 0, "memory of argon2 in `KiB` (default: fits --iter-time, at most 1 GiB and half of what is available)")
	f.Uint32Var(&c.iterations, "pbkdf-force-iterations", 0, "`COUNT` of passes of argon2 or iterations of pbkdf2, instead of fitting --iter-time")
	f.Uint32Var(&c.parallel, "pbkdf-parallel", 0, "`COUNT` of lanes of argon2 (default: the processors, at most 4)")
	f.Uint32Var(&c.iterTime, "iter-time", c.iterTime, "how long one passphrase attempt should take on this machine, in `ms`")
}

// forced reports whether everything was given outright.
func (c *costFlags) forced() bool {
	return kdf.Kind(c.kind).MemoryHard() && c.memory != 0 && c.iterations != 0 && c.parallel != 0
}

// cost calibrates, then puts in place what was given outright.
func (c *costFlags) cost(ctx context.Context) (kdf.Cost, error) {
	cost := kdf.Cost{Kind: kdf.Kind(c.kind)}
	if !c.forced() {
		var err error
		if cost, err = kdf.Calibrate(ctx, kdf.Target{
			Kind: kdf.Kind(c.kind), Hash: c.hash, Time: time.Duration(c.iterTime) * time.Millisecond,
			MaxMemoryKiB: c.memory, MaxCPUs: c.parallel,
		}); err != nil {
			return cost, usageError("--pbkdf: %w", err)
		}
	}
	if cost.Kind == kdf.PBKDF2 {
		if c.iterations != 0 {
			cost.Iterations = c.iterations
		}
	} else {
		if c.parallel != 0 {
			cost.CPUs = c.parallel
		}
		if c.memory != 0 {
			cost.MemoryKiB = c.memory
		}
		if c.iterations != 0 {
			cost.Time = c.iterations
		}
	}
	if err := cost.Check(); err != nil {
		return cost, usageError("cost of the key derivation: %w", err)
	}
	return cost, nil
}
