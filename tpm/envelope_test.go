package tpm

import (
	"testing"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// TestPINEnvelope: what the TPM holds does not open an envelope that has a PIN.
func TestPINEnvelope(t *testing.T) {
	t.Parallel()
	stretch := newPIN()
	right, err := ownPIN(t.Context(), secret.Copy([]byte("1234")), *stretch)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := ownPIN(t.Context(), secret.Copy([]byte("1235")), *stretch)
	if err != nil {
		t.Fatal(err)
	}
	if right.auth.Len() != pinSize || right.envelope.Len() != pinSize || right.auth.Equal(right.envelope) || right.auth.Equal(wrong.auth) {
		t.Error("a PIN does not become two keys of its own")
	}
	kek, ad := secret.Random(keySize), []byte("ad")
	box, err := closeEnvelope(kek, right.envelope, ad, Opened{Passphrase: secret.Random(44), Identity: "id"})
	if err != nil {
		t.Fatal(err)
	}
	if o, err := openEnvelope(kek, right.envelope, ad, box); err != nil || o.Passphrase.Len() != 44 || o.Identity != "id" {
		t.Errorf("the right PIN: %v", err)
	}
	for name, other := range map[string]*secret.Bytes{"none": nil, "the TPM's half": right.auth, "of another PIN": wrong.envelope} {
		if _, err := openEnvelope(kek, other, ad, box); ReasonOf(err) != OtherSlot {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*token.OwnPIN){
		"2 TiB":        func(p *token.OwnPIN) { p.MemoryKiB = 1 << 31 },
		"257 MiB":      func(p *token.OwnPIN) { p.MemoryKiB = 257 << 10 },
		"a year":       func(p *token.OwnPIN) { p.Time = 1<<32 - 1 },
		"one pass":     func(p *token.OwnPIN) { p.Time = 1 },
		"3 passes":     func(p *token.OwnPIN) { p.Time = 3 },
		"8 KiB":        func(p *token.OwnPIN) { p.MemoryKiB = 8 },
		"almost 64MiB": func(p *token.OwnPIN) { p.MemoryKiB-- },
	} {
		other := *stretch
		change(&other)
		if _, err := ownPIN(t.Context(), secret.Copy([]byte("1234")), other); ReasonOf(err) != Damaged {
			t.Errorf("a token that asks for %s: %v", name, err)
		}
	}
	for n := range len(box) { // cut off anywhere
		if _, err := openEnvelope(kek, right.envelope, ad, box[:n]); ReasonOf(err) != OtherSlot && ReasonOf(err) != Damaged {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}
