package interop_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/token"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// tpmPIN is not secret: systemd's tools take it from the environment only.
const tpmPIN = "1234 fünf"

// withTPM is a TPM after a boot, that systemd's tools can use too.
func withTPM(t *testing.T) *tpmtest.Machine {
	t.Helper()
	m := tpmtest.StartShared(t)
	for _, pcr := range []int{4, 7, 11} {
		tpmtest.Extend(t, m, pcr, "genuine")
	}
	return m
}

// cryptenroll has systemd-cryptenroll add a slot that the TPM opens.
func (d *disk) cryptenroll(m *tpmtest.Machine, pass string, args ...string) {
	d.Helper()
	m.Lend(func(path string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, program(d, "systemd-cryptenroll"), append(args, "--tpm2-device=swtpm:path="+path, d.path)...)
		cmd.Env = append(os.Environ(), "PASSWORD="+pass, "NEWPIN="+tpmPIN)
		if out, err := cmd.CombinedOutput(); err != nil {
			d.Fatalf("systemd-cryptenroll %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	})
	tpmtest.Flush(d, m) // it leaves a session behind
}

// pcrSigner writes the files of a boot image: the key, and the signature over
// the present PCR 11.
func pcrSigner(t *testing.T, m *tpmtest.Machine) (keyPath string, boot tpm.Boot) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	now, err := tpm.NewDevice(m.Open).ReadPCRs(t.Context(), "sha256", 11)
	if err != nil {
		t.Fatal(err)
	}
	boot.PublicKey = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	boot.Signatures, err = tpmtest.SignPCR11(key, now[11])
	if err != nil {
		t.Fatal(err)
	}
	keyPath = filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyPath, boot.PublicKey, 0o600); err != nil {
		t.Fatal(err)
	}
	return keyPath, boot
}

// theTPM is our provider of TPM keys.
func theTPM(t *testing.T, m *tpmtest.Machine, policy tpm.Policy, boot tpm.Boot) *tpm.Provider {
	t.Helper()
	p, err := tpm.New(tpm.Options{
		Device: tpm.NewDevice(m.Open), Format: tpm.Systemd, Policy: policy,
		Boot: func() (tpm.Boot, error) { return boot, nil },
		PIN:  func(context.Context) (*secret.Bytes, error) { return secret.Copy([]byte(tpmPIN)), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sealedPolicies are what systemd-cryptenroll and our provider seal to.
func sealedPolicies(keyPath string) map[string]struct {
	policy tpm.Policy
	args   []string
} {
	signed := []string{"--tpm2-public-key=" + keyPath, "--tpm2-public-key-pcrs=11"}
	return map[string]struct {
		policy tpm.Policy
		args   []string
	}{
		"PCR 7":   {tpm.Policy{PCRs: []int{7}}, []string{"--tpm2-pcrs=7"}},
		"PCR 4+7": {tpm.Policy{PCRs: []int{7, 4}}, []string{"--tpm2-pcrs=7+4"}},
		"PIN":     {tpm.Policy{PCRs: []int{7}, PIN: true}, []string{"--tpm2-pcrs=7", "--tpm2-with-pin=yes"}},
		"signed":  {tpm.Policy{PCRs: []int{7}, Signed: true}, append([]string{"--tpm2-pcrs=7"}, signed...)},
		"all":     {tpm.Policy{PCRs: []int{4, 7}, Signed: true, PIN: true}, append([]string{"--tpm2-pcrs=4+7", "--tpm2-with-pin=yes"}, signed...)},
	}
}

// TestCryptenroll: a slot that systemd-cryptenroll made opens with what our
// provider gets from its token, and our token has the very members of its.
func TestCryptenroll(t *testing.T) {
	m := withTPM(t)
	keyPath, boot := pcrSigner(t, m)
	for name, test := range sealedPolicies(keyPath) {
		t.Run(name, func(t *testing.T) {
			d := theirs(t, plain(), "alpha")
			d.cryptenroll(m, "alpha", test.args...)
			raw := d.systemdToken()
			p := theTPM(t, m, test.policy, boot)
			passphrase, err := p.Recover(t.Context(), keys.Request{}, raw)
			if err != nil {
				t.Fatal(err)
			}
			defer passphrase.Wipe()
			if !d.opensThere(string(passphrase.Bytes()), 1) {
				t.Error("cryptsetup does not open slot 1 with what we recovered")
			}
			mine, ours, err := p.Enroll(t.Context(), keys.Request{Slot: 1})
			if err != nil {
				t.Fatal(err)
			}
			mine.Wipe()
			a, err := token.ReadSystemd(raw)
			if err != nil {
				t.Fatal(err)
			}
			b, err := token.ReadSystemd(ours)
			if err != nil {
				t.Fatal(err)
			}
			// A salt of later versions aside, the policy is the same to the bit.
			if !bytes.Equal(a.Digest, b.Digest) {
				t.Errorf("policy digest %x, systemd has %x", b.Digest, a.Digest)
			}
			if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
				t.Errorf("loaded are still %x", loaded)
			}
		})
	}
	d := theirs(t, plain(), "alpha")
	d.cryptenroll(m, "alpha", "--tpm2-pcrs=7")
	tpmtest.Extend(t, m, 7, "other keys")
	p := theTPM(t, m, tpm.Policy{PCRs: []int{7}}, boot)
	if _, err := p.Recover(t.Context(), keys.Request{}, d.systemdToken()); tpm.ReasonOf(err) != tpm.PCRChanged {
		t.Errorf("after PCR 7 changed: %v", err)
	}
}

// systemdToken returns the header's token of systemd.
func (d *disk) systemdToken() json.RawMessage {
	d.Helper()
	for _, tok := range d.header().Tokens() {
		if tok.Type == token.TypeSystemd {
			return tok.JSON
		}
	}
	d.Fatal("the header has no token of systemd")
	return nil
}

// TestCryptsetupOpensOurs: systemd-cryptsetup unseals what our provider sealed
// for it, and goes on to the slot. Without device-mapper it ends there.
func TestCryptsetupOpensOurs(t *testing.T) {
	m := withTPM(t)
	keyPath, boot := pcrSigner(t, m)
	signatures := filepath.Join(t.TempDir(), "signatures.json")
	if err := os.WriteFile(signatures, boot.Signatures, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range sealedPolicies(keyPath) {
		t.Run(name, func(t *testing.T) {
			passphrase, raw, err := theTPM(t, m, test.policy, boot).Enroll(t.Context(), keys.Request{Slot: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer passphrase.Wipe()
			d := theirs(t, plain(), "alpha")
			d.keys[1] = string(passphrase.Bytes())
			d.commit(luks.AddKeyslot(1, d.sealNew(d.keys[1]), raw))
			d.accepted("a slot with a token for systemd")
			out := d.systemdCryptsetup(m, "tpm2-signature="+signatures)
			for _, want := range []string{"Automatically discovered security TPM2 token", "Completed TPM2 key unsealing", "[keyslot 1] using passphrase"} {
				if !strings.Contains(out, want) {
					t.Errorf("systemd-cryptsetup does not say %q:\n%s", want, out)
				}
			}
			tpmtest.Extend(t, m, 8, "does not matter")
		})
	}
	d := theirs(t, plain(), "alpha")
	if out := d.systemdCryptsetup(m, "tpm2-signature="+signatures); strings.Contains(out, "Completed TPM2 key unsealing") {
		t.Error("systemd-cryptsetup unseals what has no token: the test cannot fail")
	}
}

// systemdCryptsetup has systemd open the volume with a TPM, and returns what it
// logs.
func (d *disk) systemdCryptsetup(m *tpmtest.Machine, options string) (out string) {
	d.Helper()
	const name = "cryptctl-interop"
	m.Lend(func(path string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, systemdProgram, "attach", name, d.path, "-", "headless=true,"+options+",tpm2-device=swtpm:path="+path)
		cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=debug", "SYSTEMD_LOG_TARGET=console", "PIN="+tpmPIN)
		text, err := cmd.CombinedOutput()
		if out = string(text); err == nil { // there is a device-mapper, and now a mapping
			if text, err := exec.CommandContext(ctx, systemdProgram, "detach", name).CombinedOutput(); err != nil {
				d.Errorf("detach %s: %v\n%s", name, err, text)
			}
		}
	})
	tpmtest.Flush(d, m)
	return out
}

// systemdProgram is not in anyone's PATH.
const systemdProgram = "/lib/systemd/systemd-cryptsetup"
