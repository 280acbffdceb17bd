package tpm_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestCheapPIN: a token that was changed so that the PIN costs nothing to guess
// has nobody asked for it, and nothing that the PIN made on the bus.
func TestCheapPIN(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}, PIN: true}, PIN: pin("1234")}
	passphrase, token := enroll(t, newProvider(t, m.Open, opts))
	opens(t, newProvider(t, m.Open, opts), token, passphrase)
	const honest = `"time":4,"memory":65536`
	if !strings.Contains(string(token), honest) {
		t.Fatalf("no %s in %s", honest, token)
	}
	opts.PIN = func(context.Context) (*secret.Bytes, error) {
		t.Error("the PIN is asked for")
		return nil, errors.New("no")
	}
	r := &tpmtest.Recorder{TPM: m}
	p := newProvider(t, r.Open, opts)
	for _, cheap := range []string{`"time":1,"memory":8`, `"time":4,"memory":65535`, `"time":3,"memory":65536`} {
		changed := json.RawMessage(strings.Replace(string(token), honest, cheap, 1))
		refuses(t, p, changed, tpm.Damaged)
		if err := p.Fits(t.Context(), changed); tpm.ReasonOf(err) != tpm.Damaged {
			t.Errorf("Fits: %v", err)
		}
	}
	if r.Count() > 0 {
		t.Errorf("the TPM was asked %d times", r.Count())
	}
}

// TestLimit: a TPM that is too slow is given up, and a person who types a PIN has
// all the time that the context has.
func TestLimit(t *testing.T) {
	t.Parallel()
	m := booted(t)
	dev := tpm.NewDevice(m.Open)
	dev.Limit = 2 * time.Second
	opts := tpm.Options{Device: dev, Policy: tpm.Policy{PIN: true}, PIN: pin("1234")}
	slow := opts
	slow.PIN = func(ctx context.Context) (*secret.Bytes, error) {
		select {
		case <-time.After(dev.Limit + 100*time.Millisecond):
			return opts.PIN(ctx)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	p, err := tpm.New(slow)
	if err != nil {
		t.Fatal(err)
	}
	passphrase, token := enroll(t, p)
	opens(t, p, token, passphrase)

	never := make(chan struct{})
	t.Cleanup(func() { close(never) })
	silent := &tpmtest.Liar{TPM: m, Answer: func(int, []byte, func() ([]byte, error)) ([]byte, error) {
		<-never
		return nil, errors.New("ended")
	}}
	dev = tpm.NewDevice(silent.Open)
	dev.Limit = 20 * time.Millisecond
	for range 2 { // the second waits for its turn
		if _, err := dev.Status(t.Context()); tpm.ReasonOf(err) != tpm.Faulty || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a TPM that does not answer: %v", err)
		}
	}
}
