package pcrsig_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
)

// TestSelect: an entry, or the reason why there is none.
func TestSelect(t *testing.T) {
	t.Parallel()
	policy, other := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)
	key, stranger := bytes.Repeat([]byte{3}, 32), bytes.Repeat([]byte{4}, 32)
	s := pcrsig.Signatures{"sha256": {
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
		{"no bank", pcr.SHA384, []int{11}, "", key, policy, 0, pcrsig.ErrNoBank},
		{"no such PCRs", pcr.SHA256, []int{7}, "", key, policy, 0, pcrsig.ErrNoBank},
		{"no such key", pcr.SHA256, []int{11}, "", other, policy, 0, pcrsig.ErrOtherKey},
		{"no such policy", pcr.SHA256, []int{11}, "", key, key, 0, pcrsig.ErrOtherPolicy},
		{"policy of another key", pcr.SHA256, []int{11}, "", stranger, other, 0, pcrsig.ErrOtherPolicy},
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
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	policy := bytes.Repeat([]byte{1}, 32)
	message := pcr.SHA256.Sum(append(bytes.Clone(policy), pcr.SHA256.Sum([]byte("name"))...))
	signature, err := rsa.SignPKCS1v15(nil, key, pcr.SHA256.Hash(), message)
	if err != nil {
		t.Fatal(err)
	}
	e := pcrsig.Entry{PCRs: []int{11}, Fingerprint: pcrsig.Fingerprint(&key.PublicKey), Ref: "name", Policy: policy, Signature: signature}
	if err := e.Verify(&key.PublicKey); err != nil {
		t.Error(err)
	}
	if e.Ref = ""; e.Verify(&key.PublicKey) == nil {
		t.Error("a signature with a name counts without it")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	hash, sig := strings.Repeat("00", 32), strings.Repeat("AAAA", 86)[:344]
	entry := func(pcrs, pkfp, pol, sig string) string {
		return fmt.Sprintf(`{"sha256":[{"pcrs":%s,"pkfp":%q,"pol":%q,"sig":%q}]}`, pcrs, pkfp, pol, sig)
	}
	for _, text := range []string{"{}", entry("[11]", hash, hash, sig), `{"sm3":[{"pcrs":[99]}]}`, `{"sha256":[],"future":null}`} {
		if s, err := pcrsig.Parse([]byte(text)); err != nil || s == nil {
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
		if s, err := pcrsig.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v, want %s", s, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile("../uki/testdata/systemd-measure-sha256.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"sha256":[],"sm3":[{"pcrs":[99],"ref":"x"}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := pcrsig.Parse(text)
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
		if _, err := pcrsig.Parse(again); err != nil {
			t.Fatalf("what was read is not read again: %v", err)
		}
	})
}
