package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
)

// sealFixture is what is sealed in one TPM, and what a boot image would bring.
type sealFixture struct {
	tpm        *softTPM
	dir        string
	publicKey  string // files
	signatures string
	policy     string // that is signed, and its signature, in the TPM's own form
	signature  string
	token      string // ours
	secret     string // what peers seal
}

func (f *sealFixture) path(name string) string { return filepath.Join(f.dir, name) }

// sealFor signs the present PCR 11, and seals a key of ours to that and to PCR 7.
func (b *bench) sealFor(ctx context.Context, t *softTPM) (*sealFixture, error) {
	f := &sealFixture{tpm: t, dir: t.dir}
	f.publicKey, f.signatures = f.path("public.pem"), f.path("signatures.json")
	f.policy, f.signature = f.path("policy"), f.path("policy.sig")
	f.token, f.secret = f.path("token.json"), f.path("secret")
	if err := f.sign(ctx); err != nil {
		return nil, err
	}
	if err := os.WriteFile(f.secret, []byte("32 bytes that the benchmark seals"[:32]), 0o600); err != nil {
		return nil, err
	}
	seal := command(b.cryptctl, "tpm", "seal", "--tpm", ours(t.socket()), "--pcrs", "7", "--signed",
		"--public-key", f.publicKey, "--signatures", f.signatures, "--key-file", f.secret, "-o", f.token)
	_, err := seal.run(ctx)
	return f, err
}

// sign writes the files of a boot image.
func (f *sealFixture) sign(ctx context.Context) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return err
	}
	dev, err := tpm.Dial(ours(f.tpm.socket()))
	if err != nil {
		return err
	}
	now, err := dev.ReadPCRs(ctx, "sha256", 11)
	if err != nil {
		return err
	}
	e := pcrsig.Entry{PCRs: []int{11}, Fingerprint: pcrsig.Fingerprint(&key.PublicKey)}
	if e.Policy, err = pcr.Policy(pcr.SHA256, now); err != nil {
		return err
	}
	sum := e.Message()
	if e.Signature, err = rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]); err != nil {
		return err
	}
	text, err := pcrsig.Signatures{"sha256": {e}}.Encode()
	return errors.Join(err,
		os.WriteFile(f.publicKey, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600),
		os.WriteFile(f.signatures, text, 0o600),
		os.WriteFile(f.policy, e.Policy, 0o600),
		os.WriteFile(f.signature, e.Signature, 0o600))
}

// unseal is ours.
func (b *bench) unseal(f *sealFixture, socket string) side {
	s := command(b.cryptctl, "tpm", "unseal", "--tpm", ours(socket), "--public-key", f.publicKey, "--signatures", f.signatures, "--json-file", f.token)
	s.before = f.tpm.flushAll
	return s
}

// gives runs a peer once, and sees that what it unseals is what was sealed.
func (f *sealFixture) gives(ctx context.Context, p unsealPeer, out string) error {
	if _, err := p.peer(f.tpm.socket()).run(ctx); err != nil {
		return err
	}
	want, err := os.ReadFile(f.secret)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(out)
	if err == nil && !bytes.Equal(got, want) {
		err = errors.New("it gives other bytes than were sealed")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	return nil
}
