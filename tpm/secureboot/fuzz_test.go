package secureboot_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/tpm/secureboot"
)

// fuzzSeeds are SecureBoot, SetupMode, DeployedMode and shim's variable.
func fuzzSeeds() map[string][4]string {
	return map[string][4]string{
		"enforced":  {on, off, off, off},
		"deployed":  {on, off, on, off},
		"off":       {off, on, off, off},
		"shim":      {on, off, off, on},
		"stored":    {"\x07\x00\x00\x00\x01", off, off, off},
		"malformed": {on + "\x00", off, off, off},
	}
}

func readSeed(t testing.TB, s [4]string) (*secureboot.State, error) {
	return secureboot.Read(firmware(t, vars{
		"SecureBoot" + global: s[0], "SetupMode" + global: s[1], "DeployedMode" + global: s[2], "MokSBStateRT" + shim: s[3],
	}))
}

// TestFuzzSeeds: the seeds reach what they are for.
func TestFuzzSeeds(t *testing.T) {
	t.Parallel()
	enforced, refused := 0, 0
	for _, s := range fuzzSeeds() {
		state, err := readSeed(t, s)
		switch {
		case err != nil:
			refused++
		case state.Enforced():
			enforced++
		}
	}
	if enforced != 2 || refused != 1 {
		t.Errorf("%d enforced, %d refused", enforced, refused)
	}
}

func FuzzRead(f *testing.F) {
	for _, s := range fuzzSeeds() {
		f.Add(s[0], s[1], s[2], s[3])
	}
	f.Fuzz(func(t *testing.T, secure, setup, deployed, shimOff string) {
		s, err := readSeed(t, [4]string{secure, setup, deployed, shimOff})
		if err != nil {
			return
		}
		if s.String() == "" {
			t.Error("no words")
		}
		if s.Enforced() && (len(secure) != 5 || secure[0]&1 != 0 || secure[4] != 1 || setup[4] != 0) {
			t.Errorf("%q with setup %q counts as enforced", secure, setup)
		}
	})
}
