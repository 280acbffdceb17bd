package tpm

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// theirs seals by hand, as another program would: no check of the policy, and
// any storage root key.
func theirs(t *testing.T, m *tpmtest.Machine, c conditions, auth []byte, template string) (sealed, *secret.Bytes) {
	t.Helper()
	l := &link{context.Background(), m}
	now, err := readPCRs(l, c.bank, c.reads())
	if err != nil {
		t.Fatal(err)
	}
	s := sealed{conditions: c}
	if s.digest, err = c.digest(c.literal(now)); err != nil {
		t.Fatal(err)
	}
	p := plan{policy: Policy{PIN: c.pin}, value: secret.Random(keySize), pin: pinKey{auth: secret.Copy(auth)}, templates: []string{template}}
	if err := s.create(l, p); err != nil {
		t.Fatal(err)
	}
	return s, p.value
}

func compatMachine(t *testing.T) (*tpmtest.Machine, *rsa.PrivateKey, func() (Boot, error)) {
	t.Helper()
	m := tpmtest.Start(t)
	tpmtest.Extend(t, m, 7, "keys")
	tpmtest.Extend(t, m, 11, "image")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := conditions{key: &key.PublicKey, signed: []int{11}, bank: bankSHA256}
	now, err := readPCRs(&link{context.Background(), m}, bankSHA256, []int{11})
	if err != nil {
		t.Fatal(err)
	}
	policy, err := c.approved(now)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(policy)
	signature, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	file, err := pcrsig.Signatures{bankSHA256: {{PCRs: []int{11}, Fingerprint: pcrsig.Fingerprint(c.key), Policy: policy, Signature: signature}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	boot := Boot{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), file}
	return m, key, func() (Boot, error) { return boot, nil }
}

func reader(t *testing.T, m *tpmtest.Machine, boot func() (Boot, error)) *Provider {
	t.Helper()
	p, err := New(Options{
		Device: NewDevice(m.Open), Policy: Policy{PCRs: []int{7}}, Boot: boot,
		PIN: func(context.Context) (*secret.Bytes, error) { return secret.Copy([]byte("1234")), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func gives(t *testing.T, p *Provider, raw json.RawMessage, value *secret.Bytes) {
	t.Helper()
	got, err := p.Recover(t.Context(), keys.Request{}, raw)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Wipe()
	if string(got.Bytes()) != base64.StdEncoding.EncodeToString(value.Bytes()) {
		t.Error("another passphrase than the base64 of what is sealed")
	}
}

// TestTalosTokens opens what Talos wrote since 1.12, and before, when tokens said
// pcrs [11] and meant a signed PCR 11 and PCR 7.
func TestTalosTokens(t *testing.T) {
	t.Parallel()
	m, key, boot := compatMachine(t)
	p := reader(t, m, boot)
	c := conditions{key: &key.PublicKey, signed: []int{11}, bank: bankSHA256, pcrs: []int{7}}
	s, value := theirs(t, m, c, nil, talosTemplate)
	now := token.Talos{Slot: 1, Sealed: s.object, KeyName: s.parentName, Digest: s.digest, PCRs: []int{7}, Signed: []int{11}}
	raw, err := now.Encode()
	if err != nil {
		t.Fatal(err)
	}
	gives(t, p, raw, value)
	old := strings.NewReplacer(`"pcrs":[7],"pubkey_pcrs":[11]`, `"pcrs":[11]`, `"encryption_version":"1",`, "").Replace(string(raw))
	gives(t, p, json.RawMessage(old), value)
	twice := strings.Replace(string(raw), `"pcrs":[7]`, `"pcrs":[7,7]`, 1) // which Talos seals and cannot open
	gives(t, p, json.RawMessage(twice), value)

	foe := reader(t, m, func() (Boot, error) { return Boot{}, nil })
	if _, err := foe.Recover(t.Context(), keys.Request{}, raw); ReasonOf(err) != SignatureMissing {
		t.Errorf("an image without a signature: %v", err)
	}
}

// TestSystemdTokens opens the variants that versions of systemd write: with the
// storage root key of 254 and later, both forms of the public key, no bank, the
// SHA-1 bank, and the PIN with and without a salt.
func TestSystemdTokens(t *testing.T) {
	t.Parallel()
	m, key, boot := compatMachine(t)
	files, _ := boot()
	p := reader(t, m, boot)
	salt := []byte("0123456789abcdef0123456789abcdef")
	plain := systemdPIN(secret.Copy([]byte("1234")), nil)
	salted := systemdPIN(secret.Copy([]byte("1234")), salt)
	literal := conditions{bank: bankSHA256, pcrs: []int{7}}
	signed := conditions{key: &key.PublicKey, signed: []int{11}, bank: bankSHA256}
	short := signed
	short.shortExponent = true
	pinned := conditions{bank: bankSHA256, pcrs: []int{7}, pin: true}
	for _, test := range []struct {
		name     string
		c        conditions
		auth     []byte
		template string
		change   func(*token.Systemd, sealed)
	}{
		{"252", literal, nil, "systemd-ecc-da", nil},
		{"RSA", literal, nil, "systemd-rsa-da", func(s *token.Systemd, _ sealed) { s.Alg = "rsa" }},
		{"before 250, no bank", literal, nil, "systemd-ecc-da", func(s *token.Systemd, _ sealed) { s.Bank = "" }},
		{"no bank, SHA-1", conditions{bank: "sha1", pcrs: []int{7}}, nil, "systemd-ecc-da", func(s *token.Systemd, _ sealed) { s.Bank = "" }},
		{"SHA-384", conditions{bank: "sha384", pcrs: []int{7, 4}}, nil, "systemd-ecc-da", nil},
		{"254, storage root key named", literal, nil, "systemd-ecc", nameParent},
		{"signed", signed, nil, "systemd-ecc", nameParent},
		{"signed, short exponent", short, nil, "systemd-ecc", nameParent},
		{"PIN of 252", pinned, plain.auth.Bytes(), "systemd-ecc-da", nil},
		{"PIN with a salt", pinned, salted.auth.Bytes(), "systemd-ecc", func(s *token.Systemd, from sealed) { s.Salt = salt; nameParent(s, from) }},
	} {
		s, value := theirs(t, m, test.c, test.auth, test.template)
		tok := token.Systemd{Slot: 1, Sealed: s.object, PCRs: test.c.pcrs, Bank: test.c.bank, Alg: "ecc", Digest: s.digest, PIN: test.c.pin, Signed: test.c.signed}
		if test.c.key != nil {
			tok.Key = files.PublicKey
		}
		if test.change != nil {
			test.change(&tok, s)
		}
		t.Run(test.name, func(t *testing.T) {
			bank := tok.Bank
			if bank == "" {
				tok.Bank = "sha256"
			}
			raw, err := tok.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if bank == "" {
				raw = json.RawMessage(strings.Replace(string(raw), `"tpm2-pcr-bank":"sha256",`, "", 1))
			}
			gives(t, p, raw, value)
		})
	}
	if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
		t.Errorf("loaded are still %x", loaded)
	}
}

func nameParent(s *token.Systemd, from sealed) {
	s.ParentName, s.ParentPublic = from.parentName, from.parentPublic
}

// TestSystemdOtherTPM: an old token does not name its storage root key, and the
// error still says what is wrong.
func TestSystemdOtherTPM(t *testing.T) {
	t.Parallel()
	m, _, boot := compatMachine(t)
	s, _ := theirs(t, m, conditions{bank: bankSHA256, pcrs: []int{7}}, nil, "systemd-ecc-da")
	raw, err := token.Systemd{Slot: 1, Sealed: s.object, PCRs: []int{7}, Bank: bankSHA256, Alg: "ecc", Digest: s.digest}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	other, _, _ := compatMachine(t)
	if _, err := reader(t, other, boot).Recover(t.Context(), keys.Request{}, raw); ReasonOf(err) != OtherTPM {
		t.Errorf("another TPM: %v", err)
	}
}

// TestSystemdPIN holds the auth value to what systemd makes of a PIN.
func TestSystemdPIN(t *testing.T) {
	t.Parallel()
	got := systemdPIN(secret.Copy([]byte("1234")), nil)
	if want := "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4"; hex.EncodeToString(got.auth.Bytes()) != want { // printf 1234 | sha256sum
		t.Errorf("without a salt: %x, want %s", got.auth.Bytes(), want)
	}
	got = systemdPIN(secret.Copy([]byte("1234")), []byte(strings.Repeat("s", 32)))
	// Python: sha256(b64encode(pbkdf2_hmac("sha256", b"1234", b"s"*32, 10000)))
	if want := "f87446d68763326751d1df85aeb4bf126b1646e9837056327cb0a48d0c710aad"; hex.EncodeToString(got.auth.Bytes()) != want {
		t.Errorf("with a salt: %x, want %s", got.auth.Bytes(), want)
	}
}
