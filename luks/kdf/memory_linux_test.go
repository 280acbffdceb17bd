package kdf_test

import (
	"context"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// childVariable makes the test binary derive that many times and exit.
const childVariable = "KDF_TEST_DERIVATIONS"

func TestMain(m *testing.M) {
	if n, err := strconv.Atoi(os.Getenv(childVariable)); err == nil {
		deriveInChild(n)
		return
	}
	os.Exit(m.Run())
}

func deriveInChild(n int) {
	for range n {
		key, err := argon2(kdf.Argon2id, 1, 128*mib, 2).Salted().Derive(context.Background(), word, 64, kdf.Limits{})
		if err != nil {
			panic(err)
		}
		key.Wipe()
	}
}

// TestPeakMemory: adding a key takes two derivations, unlocking and sealing. The
// second must not need memory of its own beside what the first left behind.
func TestPeakMemory(t *testing.T) {
	peak := func(derivations int) int64 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childVariable+"="+strconv.Itoa(derivations))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss // KiB
	}
	none, once, thrice := peak(0), peak(1), peak(3)
	t.Logf("peak of no derivation %d MiB, of one %d MiB, of three %d MiB", none>>10, once>>10, thrice>>10)
	if once < none+100*mib {
		t.Errorf("one derivation takes %d KiB, none %d: nothing was measured", once, none)
	}
	if float64(thrice) > 1.2*float64(once) {
		t.Errorf("three derivations take %d KiB, one %d: more than 1.2 times as much", thrice, once)
	}
}
