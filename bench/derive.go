package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// derive runs one derivation in this process and prints how long it took. It
// gets a process of its own for each sample: a second derivation would find the
// heap of the first, and a child's peak memory is never below what its parent
// had used when it was started.
func derive(ctx context.Context, text string) error {
	var c cost
	if _, err := fmt.Sscanf(text, "%d,%d,%d", &c.passes, &c.kib, &c.lanes); err != nil {
		return fmt.Errorf("-derive %q is not PASSES,KIB,LANES: %w", text, err)
	}
	params := c.kdf().Salted()
	passphrase := secret.Copy([]byte("benchmark"))
	defer passphrase.Wipe()
	begin := time.Now()
	key, err := params.Derive(ctx, passphrase, 64, kdf.Limits{})
	took := time.Since(begin)
	if err != nil {
		return err
	}
	key.Wipe()
	fmt.Println(took.Nanoseconds())
	return nil
}

// cost is an argon2id cost, for both sides.
type cost struct {
	passes, kib, lanes uint32
}

func (c cost) kdf() kdf.Cost {
	return kdf.Cost{Kind: kdf.Argon2id, Time: c.passes, MemoryKiB: c.kib, CPUs: c.lanes}
}

// String gives the cost as the cases name it: "64 MiB, 2 lanes".
func (c cost) String() string {
	memory := fmt.Sprintf("%d MiB", c.kib>>10)
	if c.kib == 1<<20 {
		memory = "1 GiB"
	}
	if c.lanes == 1 {
		return memory + ", 1 lane"
	}
	return fmt.Sprintf("%s, %d lanes", memory, c.lanes)
}

// flags are the flags that force the cost, the same for both tools.
func (c cost) flags() []string {
	return []string{
		"--pbkdf", "argon2id", "--pbkdf-memory", fmt.Sprint(c.kib),
		"--pbkdf-force-iterations", fmt.Sprint(c.passes), "--pbkdf-parallel", fmt.Sprint(c.lanes),
	}
}
