package tpm

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// testPlan seals to a PCR and a PIN.
func testPlan(auth []byte) plan {
	return plan{
		policy: Policy{PCRs: []int{7}, PIN: len(auth) > 0}, value: secret.Random(keySize),
		pin: pinKey{auth: secret.Copy(auth)}, templates: []string{"tcg-ecc"}, wantEK: true,
	}
}

// TestSealedKeyOnTheBus: neither the key that is sealed, which never leaves this
// package, nor the auth value is seen on the bus, in a seal and an unseal.
func TestSealedKeyOnTheBus(t *testing.T) {
	t.Parallel()
	r := &tpmtest.Recorder{TPM: tpmtest.Start(t)}
	tpmtest.Extend(t, r, 7, "x")
	auths := map[string][]byte{
		"no PIN": nil, "PIN": bytes.Repeat([]byte("auth"), 8),
		"zeros inside and at the end": append(append(bytes.Repeat([]byte{7}, 9), 0, 0), append(bytes.Repeat([]byte{9}, 9), 0, 0)...),
	}
	for name, auth := range auths {
		p := testPlan(auth)
		l := &link{context.Background(), r}
		s, err := seal(l, p)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := s.unseal(l, p.pin.auth)
		if err != nil || !got.Equal(p.value) {
			t.Fatalf("%s: unseal: %v", name, err)
		}
		if r.Shows(p.value.Bytes()) || r.Shows(auth) {
			t.Errorf("%s: a secret crossed the bus in the clear", name)
		}
	}
	if r.Count() < 40 {
		t.Errorf("recorded are only %d commands", r.Count())
	}
}

// TestRecorderSeesPlain: without sessions the same secret is on the bus, so that
// the test above can fail.
func TestRecorderSeesPlain(t *testing.T) {
	t.Parallel()
	r := &tpmtest.Recorder{TPM: tpmtest.Start(t)}
	l := &link{context.Background(), r}
	parent, err := sealingKey(l, "tcg-ecc")
	if err != nil {
		t.Fatal(err)
	}
	value := secret.Random(keySize)
	_, err = tpm2.Create{
		ParentHandle: parent.auth(tpm2.PasswordAuth(nil)),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: value.Bytes()}),
		}},
		InPublic: tpm2.New2B(objectPublic(make([]byte, 32), false)),
	}.Execute(l)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Shows(value.Bytes()) {
		t.Error("the recorder does not see a secret that is sent in the clear")
	}
}

// TestDigests compares policies with what TPM 2.0 Part 3 gives, computed by hand
// from its text, and the PCR of a policy with its order.
func TestDigests(t *testing.T) {
	t.Parallel()
	values := PCRs{7: bytes.Repeat([]byte{7}, 32), 0: bytes.Repeat([]byte{1}, 32)}
	a, err := conditions{bank: bankSHA256, pcrs: []int{0, 7}}.digest(values)
	if err != nil {
		t.Fatal(err)
	}
	// SHA-256(32 zeros | 0000017f | 00000001 000b 03 810000 | SHA-256(PCR 0 | PCR 7))
	if got, want := hex.EncodeToString(a), "602e9003e5ba08a09f344390481809ec8b6b69e5199590aa46057e554213a4ba"; got != want {
		t.Errorf("PolicyPCR: %s, want %s", got, want)
	}
	b, err := conditions{pin: true}.digest(nil)
	if err != nil {
		t.Fatal(err)
	}
	// SHA-256(32 zeros | 0000016b): in many documents, such as the TCG's EK profile
	if got, want := hex.EncodeToString(b), "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e"; got != want {
		t.Errorf("PolicyAuthValue: %s, want %s", got, want)
	}
	key := &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(1)), E: 65537}
	name, err := keyName(key, false)
	if err != nil {
		t.Fatal(err)
	}
	// PolicyAuthorize: SHA-256(SHA-256(32 zeros | 0000016a | Name of the key) | no reference)
	first := sha256.Sum256(append(append(make([]byte, 32), 0, 0, 1, 0x6a), name.Buffer...))
	want := sha256.Sum256(first[:])
	c, err := conditions{key: key, signed: []int{11}, bank: bankSHA256}.digest(nil)
	if err != nil || !bytes.Equal(c, want[:]) {
		t.Errorf("PolicyAuthorize: %x, want %x, %v", c, want, err)
	}
	other, err := keyName(key, true)
	if err != nil || bytes.Equal(other.Buffer, name.Buffer) {
		t.Errorf("both forms of the exponent give the same Name: %v", err)
	}
}

// TestMoved: TPM and program disagree about PCRs that change all the time. It ends.
func TestMoved(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	tpmtest.Extend(t, m, 7, "x")
	p := testPlan(nil)
	s, err := seal(&link{context.Background(), m}, p)
	if err != nil {
		t.Fatal(err)
	}
	unsealed := 0
	busy := func(times int) *tpmtest.Liar {
		unsealed = 0
		return &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
			if tpmtest.Code(command) == tpm2.TPMCCUnseal {
				if unsealed++; unsealed <= times {
					tpmtest.Extend(t, m, 8, "any PCR counts, but for 16")
				}
			}
			return honest()
		}}
	}
	got, err := s.unseal(&link{context.Background(), busy(3)}, nil)
	if err != nil || !got.Equal(p.value) || unsealed != 4 {
		t.Errorf("after %d attempts: %v", unsealed, err)
	}
	if _, err := s.unseal(&link{context.Background(), busy(1 << 30)}, nil); ReasonOf(err) != Faulty || unsealed != rounds {
		t.Errorf("after %d attempts: %v", unsealed, err)
	}
}

// TestReadBoot takes the first folder that has a file, and none for none.
func TestReadBoot(t *testing.T) {
	t.Parallel()
	first, second := t.TempDir(), t.TempDir()
	write := func(folder, name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := readBoot(first, second); err != nil || b.PublicKey != nil || b.Signatures != nil {
		t.Errorf("no files: %v, %v", b, err)
	}
	write(second, "tpm2-pcr-public-key.pem", "key")
	write(second, "tpm2-pcr-signature.json", "old")
	write(first, "tpm2-pcr-signature.json", "new")
	if b, err := readBoot(first, second); err != nil || string(b.PublicKey) != "key" || string(b.Signatures) != "new" {
		t.Errorf("read %q and %q: %v", b.PublicKey, b.Signatures, err)
	}
	write(first, "tpm2-pcr-public-key.pem", strings.Repeat("x", maxBootFile+1))
	if _, err := readBoot(first); err == nil {
		t.Error("a key of more than 1 MiB is read")
	}
}

// TestProve: a seal that gives back other bytes does not count.
func TestProve(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	tpmtest.Extend(t, m, 7, "x")
	l := &link{context.Background(), m}
	p := testPlan(nil)
	s, err := seal(l, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.prove(l, p); err != nil {
		t.Fatal(err)
	}
	p.value = secret.Random(keySize)
	if err := s.prove(l, p); ReasonOf(err) != Faulty || !strings.Contains(err.Error(), "other bytes") {
		t.Errorf("another value than was sealed: %v", err)
	}
	s.object.Private[20] ^= 1
	if err := s.prove(l, p); ReasonOf(err) != Faulty {
		t.Errorf("an object that the TPM does not take back: %v", err)
	}
	if _, err := s.unseal(l, nil); ReasonOf(err) != Damaged {
		t.Errorf("the same, of a token: %v", err)
	}
}

// TestEventLogDefault: only the machine's own TPM has the machine's log.
func TestEventLogDefault(t *testing.T) {
	t.Parallel()
	for spec, own := range map[string]bool{"": true, "/dev/tpmrm1": true, "swtpm:/run/swtpm.sock": false} {
		d, err := Dial(spec)
		if err != nil {
			t.Fatal(err)
		}
		if got := logged(t, d); got != own {
			t.Errorf("%q: the machine's log %v, want %v", spec, got, own)
		}
	}
	if !logged(t, nil) || logged(t, NewDevice(nil)) {
		t.Error("the default TPM has no log, or one of the caller's has the machine's")
	}
}

func logged(t *testing.T, d *Device) bool {
	p, err := New(Options{Device: d, Policy: Policy{PCRs: []int{7}}})
	if err != nil {
		t.Fatal(err)
	}
	return p.opts.EventLog != nil
}
