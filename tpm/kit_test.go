package tpm_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// booted is a TPM after a boot: firmware, Secure Boot and an image are measured.
func booted(t testing.TB) *tpmtest.Machine {
	t.Helper()
	m := tpmtest.Start(t)
	measure(t, m)
	return m
}

// measure is what each genuine boot measures.
func measure(t testing.TB, m transport.TPM) {
	t.Helper()
	for _, pcr := range []int{0, 4, 7, 11} {
		tpmtest.Extend(t, m, pcr, fmt.Sprintf("genuine %d", pcr))
	}
}

func request() keys.Request {
	return keys.Request{UUID: "6f8a7f0e-0e0c-4c39-a3e4-2f1c1a1d0001", Volume: "STATE", Slot: 3}
}

// pin asks nobody.
func pin(text string) func(context.Context) (*secret.Bytes, error) {
	return func(context.Context) (*secret.Bytes, error) { return secret.Copy([]byte(text)), nil }
}

func newProvider(t testing.TB, open func() (transport.TPMCloser, error), opts tpm.Options) *tpm.Provider {
	t.Helper()
	opts.Device = tpm.NewDevice(open)
	p, err := tpm.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func enroll(t testing.TB, p *tpm.Provider) (*secret.Bytes, json.RawMessage) {
	t.Helper()
	passphrase, token, err := p.Enroll(context.Background(), request())
	if err != nil {
		t.Fatalf("Enroll: %v", err)
	}
	t.Cleanup(passphrase.Wipe)
	return passphrase, token
}

// opens demands that the token gives the passphrase.
func opens(t testing.TB, p *tpm.Provider, token json.RawMessage, want *secret.Bytes) {
	t.Helper()
	got, err := p.Recover(context.Background(), request(), token)
	if err != nil {
		t.Fatalf("Recover: %v", err)
	}
	defer got.Wipe()
	if !got.Equal(want) {
		t.Fatal("Recover gives another passphrase than Enroll")
	}
}

// refuses demands an error of a reason, and returns it.
func refuses(t testing.TB, p *tpm.Provider, token json.RawMessage, want tpm.Reason) *tpm.Error {
	t.Helper()
	got, err := p.Recover(context.Background(), request(), token)
	got.Wipe()
	if tpm.ReasonOf(err) != want {
		t.Fatalf("Recover: %v, must be %q", err, want)
	}
	return asError(t, err)
}

// signer signs PCR policies.
type signer struct{ key *rsa.PrivateKey }

var signers = sync.OnceValue(func() [2]signer {
	var two [2]signer
	for i := range two {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			panic(err)
		}
		two[i] = signer{key}
	}
	return two
})

func (s signer) pem(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// sign signs what PCR 11 is now, as systemd-measure writes it.
func (s signer) sign(t testing.TB, open func() (transport.TPMCloser, error)) tpm.Boot {
	t.Helper()
	now, err := tpm.NewDevice(open).ReadPCRs(context.Background(), "sha256", 11)
	if err != nil {
		t.Fatal(err)
	}
	file, err := tpmtest.SignPCR11(s.key, now[11])
	if err != nil {
		t.Fatal(err)
	}
	return tpm.Boot{PublicKey: s.pem(t), Signatures: file}
}

func bootOf(b tpm.Boot) func() (tpm.Boot, error) {
	return func() (tpm.Boot, error) { return b, nil }
}
