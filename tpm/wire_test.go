package tpm_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

func zeros(text string) (inside, end bool) {
	sum := sha256.Sum256([]byte(text))
	at := bytes.IndexByte(sum[:], 0)
	return at >= 0 && at < len(sum)-1, sum[len(sum)-1] == 0
}

// TestNothingOnTheBus records all exchanges of all policies: no window of 8 bytes
// of a passphrase, of what it is made from or of a PIN is among them.
func TestNothingOnTheBus(t *testing.T) {
	t.Parallel()
	const secretPIN = "a rather long PIN"
	for name, opts := range combinations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &tpmtest.Recorder{TPM: booted(t)}
			opts.Boot, opts.PIN = bootOf(signers()[0].sign(t, r.Open)), pin(secretPIN)
			p := newProvider(t, r.Open, opts)
			passphrase, token := enroll(t, p)
			opens(t, p, token, passphrase)
			if r.Count() < 10 {
				t.Fatalf("recorded are only %d commands", r.Count())
			}
			raw, err := base64.StdEncoding.DecodeString(string(passphrase.Bytes()))
			if err != nil || len(raw) != 32 {
				t.Fatalf("the passphrase is not the base64 of 32 bytes: %v", err)
			}
			hash := sha256.Sum256([]byte(secretPIN))
			for _, secret := range [][]byte{passphrase.Bytes(), raw, []byte(secretPIN), hash[:]} {
				if r.Shows(secret) {
					t.Errorf("part of a secret of %d bytes crossed the bus in the clear", len(secret))
				}
			}
		})
	}
}

// resend answers each command with a wish to resend, some times.
func resend(times int, code tpm2.TPMRC) func(int, []byte, func() ([]byte, error)) ([]byte, error) {
	asked := map[string]int{}
	return func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
		if asked[string(command)]++; asked[string(command)] <= times {
			return tpmtest.Failed(code), nil
		}
		return honest()
	}
}

// TestResend: what a TPM wants once more it gets, the same bytes, a bounded
// number of times, and not beyond the context.
func TestResend(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}}
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting} {
		l := &tpmtest.Liar{TPM: m, Answer: resend(2, code)}
		p := newProvider(t, l.Open, opts)
		passphrase, token := enroll(t, p)
		opens(t, p, token, passphrase)
	}
	l := &tpmtest.Liar{TPM: m, Answer: resend(1<<30, tpm2.TPMRCRetry)}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, _, err := newProvider(t, l.Open, opts).Enroll(ctx, request()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a TPM that is never ready: %v", err)
	}
	if d := time.Since(begin); d > time.Second {
		t.Errorf("ended %s after a limit of 50 ms", d)
	}
}

// TestContextEndsBetweenCommands: work that is left behind flushes what it
// loaded, and the next request finds a TPM with all its room.
func TestContextEndsBetweenCommands(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}}
	_, token := enroll(t, newProvider(t, m.Open, opts))
	r := &tpmtest.Recorder{TPM: m}
	got, err := newProvider(t, r.Open, opts).Recover(t.Context(), request(), token)
	if err != nil {
		t.Fatal(err)
	}
	got.Wipe()
	for at := range r.Count() {
		ctx, cancel := context.WithCancel(t.Context())
		l := &tpmtest.Liar{TPM: m, Answer: func(n int, _ []byte, honest func() ([]byte, error)) ([]byte, error) {
			if n == at {
				cancel()
			}
			return honest()
		}}
		dev := tpm.NewDevice(l.Open)
		p, err := tpm.New(tpm.Options{Device: dev, Policy: opts.Policy})
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Recover(ctx, request(), token)
		if err != nil && !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("ended at command %d: %v", at, err)
		}
		got.Wipe()
		if _, err := dev.Status(t.Context()); err != nil { // waits for its turn
			t.Fatal(err)
		}
		if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
			t.Fatalf("ended at command %d: loaded are still %x", at, loaded)
		}
	}
}

// lies are what can become of one answer.
func lies() map[string]func(command, answer []byte, earlier [][]byte) ([]byte, error) {
	type lie = func(command, answer []byte, earlier [][]byte) ([]byte, error)
	all := map[string]lie{
		"nothing":   func(_, _ []byte, _ [][]byte) ([]byte, error) { return nil, nil },
		"an error":  func(_, _ []byte, _ [][]byte) ([]byte, error) { return nil, errors.New("the bus is dead") },
		"early end": func(_, a []byte, _ [][]byte) ([]byte, error) { return a[:len(a)/2], nil },
		"early end, said so": func(_, a []byte, _ [][]byte) ([]byte, error) {
			return sized(a[:10+(len(a)-10)/2]), nil
		},
		"header only":       func(_, a []byte, _ [][]byte) ([]byte, error) { return sized(a[:10]), nil },
		"success and ones":  func(_, a []byte, _ [][]byte) ([]byte, error) { return filled(a, 0xff), nil },
		"success and zeros": func(_, a []byte, _ [][]byte) ([]byte, error) { return filled(a, 0), nil },
		"more than it says": func(_, a []byte, _ [][]byte) ([]byte, error) { return append(bytes.Clone(a), a...), nil },
		"giant": func(_, a []byte, _ [][]byte) ([]byte, error) {
			return sized(append(bytes.Clone(a), make([]byte, 1<<20)...)), nil
		},
		"as long as possible": func(_, a []byte, _ [][]byte) ([]byte, error) {
			return sized(append(bytes.Clone(a), make([]byte, 4096-len(a))...)), nil
		},
		"another's answer": func(_, a []byte, earlier [][]byte) ([]byte, error) {
			if len(earlier) == 0 {
				return a, nil
			}
			return earlier[len(earlier)-1], nil
		},
	}
	for _, code := range []tpm2.TPMRC{
		tpm2.TPMRCFailure, tpm2.TPMRCAuthFail, tpm2.TPMRCPolicyFail, tpm2.TPMRCLockout, tpm2.TPMRCObjectMemory, tpm2.TPMRCPCRChanged, tpm2.TPMRCIntegrity, 0xffffffff,
	} {
		all[fmt.Sprintf("fails with %#x", uint32(code))] = func(_, _ []byte, _ [][]byte) ([]byte, error) { return tpmtest.Failed(code), nil }
	}
	for _, at := range []int{10, 14, 16, 20, 24, 40, 60} {
		all[fmt.Sprintf("bit of byte %d", at)] = func(_, a []byte, _ [][]byte) ([]byte, error) { return flipped(a, at), nil }
	}
	all["bit of the last byte"] = func(_, a []byte, _ [][]byte) ([]byte, error) { return flipped(a, len(a)-1), nil }
	return all
}

func sized(a []byte) []byte {
	a = bytes.Clone(a)
	binary.BigEndian.PutUint32(a[2:], uint32(len(a)))
	return a
}

func filled(a []byte, b byte) []byte {
	return sized(append(bytes.Clone(a[:10]), bytes.Repeat([]byte{b}, len(a)-10)...))
}

func flipped(a []byte, at int) []byte {
	a = bytes.Clone(a)
	if at < len(a) {
		a[at] ^= 4
	}
	return a
}

// TestLies puts every lie in the place of every answer, of an unseal and of a
// seal: the outcome is an error of this package, or the right passphrase, where
// the answer did not matter. Never another one, a panic or a hang.
func TestLies(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, Boot: bootOf(signers()[0].sign(t, m.Open))}
	passphrase, token := enroll(t, newProvider(t, m.Open, opts))
	refused, passed := 0, 0
	for name, lie := range lies() {
		for at := 0; ; at++ {
			sent, earlier := 0, [][]byte(nil)
			l := &tpmtest.Liar{TPM: m, Answer: func(n int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
				sent = n
				answer, err := honest()
				if n == at && err == nil && tpmtest.Code(command) != tpm2.TPMCCFlushContext {
					return lie(command, answer, earlier)
				}
				earlier = append(earlier, answer)
				return answer, err
			}}
			got, err := newProvider(t, l.Open, opts).Recover(t.Context(), request(), token)
			switch {
			case err != nil && tpm.ReasonOf(err) == "":
				t.Errorf("%s at command %d: an error without a reason: %v", name, at, err)
			case err != nil && got.Len() > 0:
				t.Errorf("%s at command %d: a passphrase beside an error", name, at)
			case err == nil && !got.Equal(passphrase):
				t.Errorf("%s at command %d: another passphrase", name, at)
			case err == nil:
				passed++
			default:
				refused++
			}
			got.Wipe()
			tpmtest.Flush(t, m) // a liar hid the handle
			if sent < at {
				break // there are no more commands
			}
		}
	}
	if refused < 200 {
		t.Errorf("only %d lies were refused, %d did not matter: the test does not lie where it counts", refused, passed)
	}
	t.Logf("%d lies refused, %d did not matter", refused, passed)
}

// TestLiesAtSeal: a seal that was lied to fails, or its token opens.
func TestLiesAtSeal(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}}
	honest := newProvider(t, m.Open, opts)
	for name, lie := range lies() {
		for at := 0; ; at++ {
			sent, earlier := 0, [][]byte(nil)
			l := &tpmtest.Liar{TPM: m, Answer: func(n int, command []byte, ask func() ([]byte, error)) ([]byte, error) {
				sent = n
				answer, err := ask()
				if n == at && err == nil && tpmtest.Code(command) != tpm2.TPMCCFlushContext {
					return lie(command, answer, earlier)
				}
				earlier = append(earlier, answer)
				return answer, err
			}}
			passphrase, token, err := newProvider(t, l.Open, opts).Enroll(t.Context(), request())
			tpmtest.Flush(t, m) // a liar hid the handle
			if err != nil && tpm.ReasonOf(err) == "" {
				t.Errorf("%s at command %d: an error without a reason: %v", name, at, err)
			}
			if err == nil {
				opens(t, honest, token, passphrase)
			}
			passphrase.Wipe()
			if sent < at {
				break
			}
		}
	}
}

// TestAnotherStorageKey: a man in the middle who offers his own key in the place
// of the pinned one gets no session salted to it.
func TestAnotherStorageKey(t *testing.T) {
	t.Parallel()
	m, foe := booted(t), booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}}
	_, token := enroll(t, newProvider(t, m.Open, opts))
	var salted int
	l := &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
		switch tpmtest.Code(command) {
		case tpm2.TPMCCCreatePrimary, tpm2.TPMCCReadPublic, tpm2.TPMCCFlushContext:
			return foe.Send(command)
		case tpm2.TPMCCStartAuthSession:
			salted++
		}
		return honest()
	}}
	refuses(t, newProvider(t, l.Open, opts), token, tpm.OtherTPM)
	if salted != 0 {
		t.Error("a session was started with a key that is not the pinned one")
	}
}
