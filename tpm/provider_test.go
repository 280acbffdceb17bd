package tpm_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestProvider runs the suite that every provider passes, for each format.
func TestProvider(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]tpm.Options{
		"own":     {Policy: tpm.Policy{PCRs: []int{7}}},
		"PIN":     {Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}, PIN: true}, PIN: pin("geheim 1234")},
		"talos":   {Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7}, Signed: true}},
		"systemd": {Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := booted(t)
			tpmtest.MaxTries(t, m, 10_000) // damaged tokens are wrong PINs to a TPM
			opts.Boot = bootOf(signers()[0].sign(t, m.Open))
			never := make(chan struct{})
			t.Cleanup(func() { close(never) })
			silent := &tpmtest.Liar{TPM: m, Answer: func(int, []byte, func() ([]byte, error)) ([]byte, error) {
				<-never
				return nil, errors.New("ended")
			}}
			absent := func() (transport.TPMCloser, error) { return nil, os.ErrNotExist }
			failing := &tpmtest.Liar{TPM: m, Answer: func(int, []byte, func() ([]byte, error)) ([]byte, error) {
				return tpmtest.Failed(tpm2.TPMRCFailure), nil
			}}
			keystest.Provider(t, func() keys.Provider { return newProvider(t, m.Open, opts) }, keystest.Options{
				Tokens: tpm.Tokens(), Random: true, Bound: opts.Format == "", Waits: true,
				Silent: func() keys.Provider { return newProvider(t, silent.Open, opts) },
				Failing: []keystest.Failing{
					{Name: "no TPM", New: func() keys.Provider { return newProvider(t, absent, opts) }, Class: keys.ErrUnavailable},
					{Name: "broken TPM", New: func() keys.Provider { return newProvider(t, failing.Open, opts) }, Class: keys.ErrUnavailable},
				},
				Secrets: []string{"geheim 1234"},
			})
			if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
				t.Errorf("loaded are still %x", loaded)
			}
		})
	}
}

// TestNoTPM: the reason is named, and what was tried.
func TestNoTPM(t *testing.T) {
	t.Parallel()
	p := newProvider(t, func() (transport.TPMCloser, error) { return nil, os.ErrPermission }, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}})
	if _, _, err := p.Enroll(t.Context(), request()); tpm.ReasonOf(err) != tpm.NoTPM || !errors.Is(err, os.ErrPermission) {
		t.Errorf("a TPM that cannot be opened: %v", err)
	}
}

// TestLockout: wrong PINs are counted down, the TPM locks itself, and that is
// told apart from a wrong PIN. A key without a PIN goes on opening.
func TestLockout(t *testing.T) {
	t.Parallel()
	m := booted(t)
	right := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PIN: true}, PIN: pin("1234")})
	wrong := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PIN: true}, PIN: pin("4321")})
	free := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}})
	passphrase, token := enroll(t, right)
	freePassphrase, freeToken := enroll(t, free)
	opens(t, right, token, passphrase)
	status, err := tpm.NewDevice(m.Open).Status(t.Context())
	if err != nil || status.TriesLeft() < 1 || status.TriesLeft() > 100 {
		t.Fatalf("status %+v: %v", status, err)
	}
	for left := status.TriesLeft() - 1; left > 0; left-- {
		if e := refuses(t, wrong, token, tpm.PINWrong); e.TriesLeft != left {
			t.Fatalf("%v: %d tries left, must be %d", e, e.TriesLeft, left)
		}
	}
	for range 3 {
		if e := refuses(t, wrong, token, tpm.LockedOut); !errors.Is(e, keys.ErrUnavailable) {
			t.Error(e)
		}
	}
	refuses(t, right, token, tpm.LockedOut)
	opens(t, free, freeToken, freePassphrase)
	if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
		t.Errorf("loaded are still %x", loaded)
	}
}

// TestThousandRounds: nothing is left behind, where no resource manager clears
// up: a TPM has room for three objects.
func TestThousandRounds(t *testing.T) {
	t.Parallel()
	rounds := 1000
	if testing.Short() {
		rounds = 20
	}
	m := booted(t)
	boot := signers()[0].sign(t, m.Open)
	p := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, Boot: bootOf(boot)})
	for i := range rounds {
		passphrase, token, err := p.Enroll(t.Context(), request())
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		opens(t, p, token, passphrase)
		passphrase.Wipe()
	}
	if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
		t.Errorf("after %d rounds are loaded %x", rounds, loaded)
	}
}

// TestZerosInPIN: SHA-256 of one PIN in eight has a zero byte inside or at the
// end, where TPMs and go-tpm cut auth values.
func TestZerosInPIN(t *testing.T) {
	t.Parallel()
	m := booted(t)
	for i, found := 0, 0; found < 4; i++ {
		text := fmt.Sprintf("pin %d", i)
		inside, end := zeros(text)
		if !inside && !end || end && found == 0 {
			continue
		}
		found++
		opts := tpm.Options{Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}, PIN: true}, PIN: pin(text)}
		passphrase, token := enroll(t, newProvider(t, m.Open, opts))
		opens(t, newProvider(t, m.Open, opts), token, passphrase)
	}
}

// TestFormat: a provider that is printed shows what it is, and nothing else.
func TestFormat(t *testing.T) {
	t.Parallel()
	p := newProvider(t, nil, tpm.Options{Policy: tpm.Policy{PIN: true}, PIN: pin("1234")})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(verb, p); got != "tpm.Provider(cryptctl)" {
			t.Errorf("%s prints %s", verb, got)
		}
	}
}
