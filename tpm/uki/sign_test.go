package uki_test

import (
	"bytes"
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
	"github.com/cryptctl/cryptctl/tpm/uki"
)

var bothBanks = []pcr.Bank{pcr.SHA256, pcr.SHA384}

// judgedSignatures are what systemd-measure 252 signed for judged, and its key.
func judgedSignatures(t testing.TB, bank string) (sigs uki.Signatures, public []byte) {
	t.Helper()
	text, err := os.ReadFile("testdata/systemd-measure-" + bank + ".json")
	if err != nil {
		t.Fatal(err)
	}
	if sigs, err = uki.ParseSignatures(text); err != nil {
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
	key, err := uki.ParsePublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	if err := theirs.Verify(key, p); err != nil {
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
	if err := theirs.Verify(key, p); err == nil || !strings.Contains(err.Error(), "signed with sha384") {
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
	again, err := uki.ParseSignatures(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sigs, again); d != "" {
		t.Error(d)
	}
	if err := again.Verify(public, p); err != nil {
		t.Error(err)
	}
	again["sha384"][1].Signature[9] ^= 1
	if err := again.Verify(public, p); err == nil || !strings.Contains(err.Error(), `sha384 after "enter-initrd:leave-initrd:enter-machined": the signature`) {
		t.Error(err)
	}
	if err := sigs.Verify(&rsaKeys()[1].PublicKey, p); !errors.Is(err, uki.ErrOtherKey) {
		t.Error(err)
	}
	if err := sigs.Verify(public, &uki.Prediction{}); err == nil {
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

// TestSelect: an entry, or the reason why there is none.
func TestSelect(t *testing.T) {
	t.Parallel()
	policy, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	key, stranger := bytes.Repeat([]byte{3}, 32), bytes.Repeat([]byte{4}, 32)
	s := uki.Signatures{"sha256": {
		{PCRs: []int{11}, Fingerprint: stranger, Policy: policy},
		{PCRs: []int{11}, Fingerprint: key, Policy: other},
		{PCRs: []int{12, 11}, Fingerprint: key, Policy: policy, Ref: "two"},
		{PCRs: []int{11}, Fingerprint: key, Policy: policy, Ref: "named"},
		{PCRs: []int{11}, Fingerprint: key, Policy: policy},
	}}
	tests := []struct {
		name        string
		bank        pcr.Bank
		pcrs        []int
		ref         string
		key, policy []byte
		want        int
		err         error
	}{
		{"found", pcr.SHA256, []int{11}, "", key, policy, 4, nil},
		{"another policy", pcr.SHA256, []int{11}, "", key, other, 1, nil},
		{"by its name", pcr.SHA256, []int{11}, "named", key, policy, 3, nil},
		{"more PCRs in any order", pcr.SHA256, []int{11, 12}, "two", key, policy, 2, nil},
		{"no bank", pcr.SHA384, []int{11}, "", key, policy, 0, uki.ErrNoBank},
		{"no such PCRs", pcr.SHA256, []int{7}, "", key, policy, 0, uki.ErrNoBank},
		{"no such key", pcr.SHA256, []int{11}, "", other, policy, 0, uki.ErrOtherKey},
		{"no such policy", pcr.SHA256, []int{11}, "", key, key, 0, uki.ErrOtherPolicy},
		{"policy of another key", pcr.SHA256, []int{11}, "", stranger, other, 0, uki.ErrOtherPolicy},
	}
	for _, test := range tests {
		e, err := s.Select(test.bank, test.pcrs, test.ref, test.key, test.policy)
		if !errors.Is(err, test.err) || (err == nil) != (e == &s["sha256"][test.want]) {
			t.Errorf("%s: %v, %v", test.name, e, err)
		}
	}
}

func TestVerifyRef(t *testing.T) {
	t.Parallel()
	key := rsaKeys()[0]
	policy := bytes.Repeat([]byte{1}, 32)
	message := pcr.SHA256.Sum(append(bytes.Clone(policy), pcr.SHA256.Sum([]byte("name"))...))
	signature, err := rsa.SignPKCS1v15(nil, key, pcr.SHA256.Hash(), message)
	if err != nil {
		t.Fatal(err)
	}
	e := uki.Entry{PCRs: []int{11}, Fingerprint: uki.Fingerprint(&key.PublicKey), Ref: "name", Policy: policy, Signature: signature}
	if err := e.Verify(&key.PublicKey); err != nil {
		t.Error(err)
	}
	if e.Ref = ""; e.Verify(&key.PublicKey) == nil {
		t.Error("a signature with a name counts without it")
	}
}

func TestParseSignatures(t *testing.T) {
	t.Parallel()
	hash, sig := strings.Repeat("00", 32), strings.Repeat("AAAA", 86)[:344]
	entry := func(pcrs, pkfp, pol, sig string) string {
		return fmt.Sprintf(`{"sha256":[{"pcrs":%s,"pkfp":%q,"pol":%q,"sig":%q}]}`, pcrs, pkfp, pol, sig)
	}
	for _, text := range []string{"{}", entry("[11]", hash, hash, sig), `{"sm3":[{"pcrs":[99]}]}`, `{"sha256":[],"future":null}`} {
		if s, err := uki.ParseSignatures([]byte(text)); err != nil || s == nil {
			t.Errorf("%.40s: %v", text, err)
		}
	}
	for want, text := range map[string]string{
		"null":                        "null",
		"invalid character":           `{"sha256":[}`,
		"cannot unmarshal":            `{"sha256":5}`,
		"0 PCRs":                      entry("[]", hash, hash, sig),
		"PCR 24":                      entry("[24]", hash, hash, sig),
		"PCR -1":                      entry("[-1]", hash, hash, sig),
		"PCR 11, which is there":      entry("[11,11]", hash, hash, sig),
		"(pkfp) has 31 bytes":         entry("[11]", hash[2:], hash, sig),
		"(pol) has 33 bytes":          entry("[11]", hash, hash+"00", sig),
		"(sig) has 3 bytes":           entry("[11]", hash, hash, "AAAA"),
		"odd length":                  entry("[11]", hash[1:], hash, sig),
		"illegal base64":              entry("[11]", hash, hash, "%%%"),
		"more than 1048576 bytes":     strings.Repeat(" ", 1<<20+1),
		`1025 entries of the bank "x`: `{"x":[{}` + strings.Repeat(",{}", 1024) + "]}",
	} {
		if s, err := uki.ParseSignatures([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", s, err, want)
		}
	}
}

func FuzzParseSignatures(f *testing.F) {
	text, err := os.ReadFile("testdata/systemd-measure-sha256.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"sha256":[],"sm3":[{"pcrs":[99],"ref":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := uki.ParseSignatures(text)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > 1<<20 {
			return
		}
		if _, err := uki.ParseSignatures(again); err != nil {
			t.Fatalf("what was read is not read again: %v", err)
		}
	})
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
	if err := found.Verify(key, predict(t, s, uki.Options{Stub: 257})); err != nil {
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
		want := fmt.Sprintf("RSA key %x", uki.Fingerprint(&key.PublicKey))
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
	long, err := rsa.GenerateKey(rand.Reader, 2049)
	if err != nil {
		t.Fatal(err)
	}
	if k, err := uki.ReadKey(keyFile(t, long, 0o600)); err != nil || len(k.Warnings) != 1 || !strings.Contains(k.Warnings[0], "2049 bits") {
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
	if key, err := uki.ParsePublicKey(read("PUBLIC KEY", good)); err != nil || !key.Equal(good) {
		t.Error(key, err)
	}
	for want, text := range map[string][]byte{
		"1024 bits":            read("PUBLIC KEY", &short.PublicKey),
		"not an RSA key":       read("PUBLIC KEY", &curve.PublicKey),
		"BEGIN PUBLIC KEY":     read("CERTIFICATE", good),
		"more than 65536":      make([]byte, 70000),
		"the public key: asn1": []byte("-----BEGIN PUBLIC KEY-----\nMAA=\n-----END PUBLIC KEY-----\n"),
	} {
		if key, err := uki.ParsePublicKey(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", key, err, want)
		}
	}
}
