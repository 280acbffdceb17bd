package kms_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
)

// talosToken is a token as Talos writes it for the 60 bytes 0, 1, ... 59 (go-blockdevice's
// encryption/luks, Token.Bytes).
const talosToken = `{"UserData":{"sealedData":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7"},"type":"sideroKMS","keyslots":[]}`

func talosBlob() []byte {
	b := make([]byte, 60)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestToken(t *testing.T) {
	if got := string(kms.EncodeToken(talosBlob())); got != talosToken || len(got) != 143 {
		t.Errorf("encoded to %d bytes:\n%s, must be\n%s", len(got), got, talosToken)
	}
	for _, raw := range tokenSeeds() {
		if got, err := kms.ReadToken(json.RawMessage(raw)); err != nil || !bytes.Equal(got, talosBlob()) {
			t.Errorf("%s reads as %x, %v", raw, got, err)
		}
	}
}

// tokenSeeds are forms of the same token.
func tokenSeeds() []string {
	blob := strings.Split(talosToken, `"`)[5]
	return []string{
		talosToken,
		`{"type":"sideroKMS","keyslots":[],"UserData":{"sealedData":"` + blob + `"}}`,
		`{"type":"sideroKMS","keyslots":["7"],"UserData":{"sealedData":"` + blob + `","n":12345678901234567890},"added":[1]}`,
		"\n{ \"keyslots\" : [] ,\t\"type\":\"sideroKMS\",\"UserData\":{\"sealedData\":\"" + blob + "\"} }\n",
	}
}

func TestReadTokenRefuses(t *testing.T) {
	for _, test := range []struct{ name, raw, text string }{
		{"empty", "", "the token: "},
		{"null", "null", "type is"},
		{"another type", strings.Replace(talosToken, "sideroKMS", "talos-tpm2", 1), `"talos-tpm2"`},
		{"no data", `{"type":"sideroKMS","keyslots":[]}`, "0 bytes"},
		{"data on the top", `{"type":"sideroKMS","keyslots":["0"],"sealedData":"AAEC"}`, "0 bytes"},
		{"not base64", `{"type":"sideroKMS","UserData":{"sealedData":"!"}}`, "the token: "},
		{"not a text", `{"type":"sideroKMS","UserData":{"sealedData":[300]}}`, "the token: "},
		{"more behind it", talosToken + "{}", "the token: "},
		{"too much data", string(kms.EncodeToken(make([]byte, 2049))), "2049 bytes"},
		{"too long", talosToken + strings.Repeat(" ", 64<<10), "more than 65536"},
	} {
		if got, err := kms.ReadToken(json.RawMessage(test.raw)); err == nil || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %x, %v, must be about %q", test.name, got, err, test.text)
		}
	}
	if _, err := kms.ReadToken(kms.EncodeToken(make([]byte, 2048))); err != nil {
		t.Errorf("2048 bytes: %v", err)
	}
	p := provider(t, nil, "grpc://"+dead(t)) // is not asked
	if _, err := p.Recover(t.Context(), keys.Request{}, nil); keys.Class(err) != keys.ErrMalformed {
		t.Errorf("without a token: %v", err)
	}
}

// FuzzReadToken: what is read keeps its bytes in a token of ours, and nothing
// beyond the limit is read.
func FuzzReadToken(f *testing.F) {
	for _, raw := range tokenSeeds() {
		f.Add([]byte(raw))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		sealed, err := kms.ReadToken(raw)
		if err != nil {
			if len(sealed) != 0 {
				t.Error("data beside an error")
			}
			return
		}
		if len(sealed) == 0 || len(sealed) > 2048 || len(raw) > 64<<10 {
			t.Errorf("%d bytes of a token of %d", len(sealed), len(raw))
		}
		again, err := kms.ReadToken(kms.EncodeToken(sealed))
		if err != nil || !bytes.Equal(again, sealed) {
			t.Errorf("again: %x, %v; was %x", again, err, sealed)
		}
	})
}
