package uki_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

var bothBanks = []pcr.Bank{pcr.SHA256, pcr.SHA384}

// judgedSignatures are what systemd-measure 252 signed for judged, and its key.
func judgedSignatures(t testing.TB, bank string) (sigs pcrsig.Signatures, public []byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/systemd-measure-" + bank + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if sigs, err = pcrsig.Parse(text); err != nil {
		t.Fatal(err)
	}
	if public, err = os.ReadFile("testdata/systemd-measure.pem"); err != nil {
		t.Fatal(err)
	}
	return sigs, public
}

// TestJudged: what systemd-measure signed verifies, for our prediction of the
// same sections. Our own is the same, byte for byte, but for key and signature.
func TestJudged(t *testing.T) {
	t.Parallel()
	paths := []pcr.Path{{"enter-initrd"}, {"enter-initrd", "leave-initrd"}}
	p := predict(t, files(t, judged()...), uki.Options{Stub: 252, Paths: paths})
	theirs, public := judgedSignatures(t, "sha256")
	key, err := pcrsig.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(theirs, key); err != nil {
		t.Error(err)
	}
	ours, err := readKey(t, rsaKeys()[0]).Sign(p)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ours["sha256"] {
		ours["sha256"][i].Fingerprint, ours["sha256"][i].Signature = theirs["sha256"][i].Fingerprint, theirs["sha256"][i].Signature
	}
	text, err := ours.Encode()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/systemd-measure-sha256.json")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(text)); d != "" {
		t.Error(d)
	}
	// This version signs entries of other banks with the bank's own hash.
	theirs, _ = judgedSignatures(t, "sha384")
	p = predict(t, files(t, judged()...), uki.Options{Stub: 252, Paths: paths, Banks: []pcr.Bank{pcr.SHA384}})
	if err := p.Verify(theirs, key); err == nil || !strings.Contains(err.Error(), "signed with sha384") {
		t.Error(err)
	}
}

// TestSign: two banks, two paths, verified with Go's crypto alone.
func TestSign(t *testing.T) {
	t.Parallel()
	p := predict(t, files(t, judged()...), uki.Options{Stub: 257, Banks: bothBanks, Paths: []pcr.Path{{"enter-initrd"}, pcr.TalosPath()}})
	k := readKey(t, rsaKeys()[0])
	sigs, err := k.Sign(p)
	if err != nil {
		t.Fatal(err)
	}
	text, err := sigs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var raw map[string][]struct {
		PCRs           []int
		Pkfp, Pol, Sig string
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	public := &rsaKeys()[0].PublicKey
	print := hex.EncodeToString(pcr.SHA256.Sum(x509.MarshalPKCS1PublicKey(public)))
	for i, v := range p.Values {
		e := raw[v.Bank.String()][i%2]
		if e.Pkfp != print || e.Pol != hex.EncodeToString(v.Policy) || !cmp.Equal(e.PCRs, []int{11}) {
			t.Errorf("%s: %v", v.String(), e)
		}
		var signature []byte
		if err := json.Unmarshal([]byte(`"`+e.Sig+`"`), &signature); err != nil {
			t.Fatal(err)
		}
		if err := rsa.VerifyPKCS1v15(public, pcr.SHA256.Hash(), pcr.SHA256.Sum(v.Policy), signature); err != nil {
			t.Errorf("%s: %v", v.String(), err)
		}
	}
	again, err := pcrsig.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sigs, again); d != "" {
		t.Error(d)
	}
	if err := p.Verify(again, public); err != nil {
		t.Error(err)
	}
	again["sha384"][1].Signature[9] ^= 1
	if err := p.Verify(again, public); err == nil || !strings.Contains(err.Error(), `sha384 after "enter-initrd:leave-initrd:enter-machined": the signature`) {
		t.Error(err)
	}
	if err := p.Verify(sigs, &rsaKeys()[1].PublicKey); !errors.Is(err, pcrsig.ErrOtherKey) {
		t.Error(err)
	}
	if err := (&uki.Prediction{}).Verify(sigs, public); err == nil {
		t.Error("nothing was verified")
	}
	old := predict(t, files(t, judged()...), uki.Options{Stub: 257, Banks: []pcr.Bank{pcr.SHA1}})
	if _, err := k.Sign(old); err == nil || !strings.Contains(err.Error(), "SHA-1") {
		t.Error(err)
	}
	if _, err := k.Sign(&uki.Prediction{}); err == nil {
		t.Error("nothing was signed")
	}
}

// TestImageKeys: what an image holds of keys and signatures.
func TestImageKeys(t *testing.T) {
	t.Parallel()
	k, stranger := readKey(t, rsaKeys()[0]), readKey(t, rsaKeys()[1])
	public, err := k.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	linux, pkey := part{name: ".linux", data: "kernel"}, part{name: ".pcrpkey", data: string(public)}
	s := sections(t, read(t, peFile(linux, pkey)), 0)
	p := predict(t, s, uki.Options{Stub: 257})
	sigs, err := k.Sign(p)
	if err != nil {
		t.Fatal(err)
	}
	text, err := sigs.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// With the signatures in the image, padded, its value stays what it is.
	s = sections(t, read(t, peFile(linux, pkey, part{name: ".pcrsig", data: string(text), memory: len(text) + 100})), 0)
	found, err := s.Signatures()
	if err != nil {
		t.Fatal(err)
	}
	key, err := s.PolicyKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := predict(t, s, uki.Options{Stub: 257}).Verify(found, key); err != nil {
		t.Error(err)
	}
	if err := s.CheckKey(k.Public()); err != nil {
		t.Error(err)
	}
	if err := s.CheckKey(stranger.Public()); !errors.Is(err, uki.ErrPolicyKey) {
		t.Error(err)
	}
	bare := sections(t, read(t, peFile(linux)), 0)
	if err := bare.CheckKey(stranger.Public()); err != nil {
		t.Error(err)
	}
	if _, err := bare.Signatures(); !errors.Is(err, uki.ErrNoSection) {
		t.Error(err)
	}
	for _, bad := range []part{{name: ".pcrpkey", data: "text"}, {name: ".pcrpkey", data: strings.Repeat("x", 70000)}} {
		if err := sections(t, read(t, peFile(linux, bad)), 0).CheckKey(k.Public()); err == nil || !strings.Contains(err.Error(), ".pcrpkey") {
			t.Error(err)
		}
	}
	if _, err := sections(t, read(t, peFile(linux, part{name: ".pcrsig", data: "{"})), 0).Signatures(); err == nil || !strings.Contains(err.Error(), ".pcrsig") {
		t.Error(err)
	}
}

// TestReadKey: forms, permissions, and what is refused without a word of the key.
func TestReadKey(t *testing.T) {
	t.Parallel()
	key := rsaKeys()[0]
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{keyFile(t, key, 0o600), keyFile(t, key, 0o400), pemFile(t, "PRIVATE KEY", pkcs8, 0o600)} {
		k, err := uki.ReadKey(path)
		if err != nil || len(k.Warnings) != 0 || !k.Public().Equal(&key.PublicKey) {
			t.Fatal(k, err)
		}
		want := fmt.Sprintf("RSA key %x", pcrsig.Fingerprint(&key.PublicKey))
		for _, form := range []string{"%v", "%s", "%+v", "%#v"} {
			if got := fmt.Sprintf(form, k); got != want {
				t.Errorf("%s prints %s", form, got)
			}
		}
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620} {
		if k, err := uki.ReadKey(keyFile(t, key, mode)); err != nil || len(k.Warnings) != 1 || !strings.Contains(k.Warnings[0], "chmod 600") {
			t.Errorf("%o: %v, %v", mode, k, err)
		}
	}
	odd, err := rsa.GenerateKey(rand.Reader, 2049)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := uki.ReadKey(keyFile(t, odd, 0o600)); err == nil || !strings.Contains(err.Error(), "whole bytes") {
		t.Error(k, err) // no TPM loads it
	}
	long, err := rsa.GenerateKey(rand.Reader, 2056)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := uki.ReadKey(keyFile(t, long, 0o600)); err != nil || len(k.Warnings) != 1 || !strings.Contains(k.Warnings[0], "2056 bits") {
		t.Error(k, err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, 65<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, path := range map[string]string{
		"1024 bits":               keyFile(t, short, 0o600),
		"not an RSA key":          pemFile(t, "PRIVATE KEY", ec, 0o600),
		"it is encrypted":         pemFile(t, "ENCRYPTED PRIVATE KEY", pkcs8, 0o600),
		`it holds a "CERTIFICATE`: pemFile(t, "CERTIFICATE", pkcs8, 0o600),
		"no valid PKCS #8":        pemFile(t, "PRIVATE KEY", pkcs8[:500], 0o600),
		"no valid PKCS #1":        pemFile(t, "RSA PRIVATE KEY", pkcs8, 0o600),
		"not a PEM file":          os.DevNull,
		"more than 65536 bytes":   big,
		"no such file":            filepath.Join(t.TempDir(), "none"),
	} {
		if k, err := uki.ReadKey(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", k, err, want)
		}
	}
}

func TestParsePublicKey(t *testing.T) {
	t.Parallel()
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	read := func(kind string, key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(pemFile(t, kind, der, 0o600))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := &rsaKeys()[0].PublicKey
	if key, err := pcrsig.ParsePublicKey(read("PUBLIC KEY", good)); err != nil || !key.Equal(good) {
		t.Error(key, err)
	}
	for want, text := range map[string][]byte{
		"1024 bits":            read("PUBLIC KEY", &short.PublicKey),
		"not an RSA key":       read("PUBLIC KEY", &curve.PublicKey),
		"BEGIN PUBLIC KEY":     read("CERTIFICATE", good),
		"more than 65536":      make([]byte, 70000),
		"the public key: asn1": []byte("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"),
	} {
		if key, err := pcrsig.ParsePublicKey(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", key, err, want)
		}
	}
}
