package keys_test

import (
	"encoding/json"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
)

// TestOrphanedToken: another tool's token at a managed slot's id must not make
// the slot foreign, or a key that was revoked would go on opening the volume.
func TestOrphanedToken(t *testing.T) {
	d := format(t, static(0, "zero"), static(1, "revoked"))
	h := read(t, d)
	h, err := h.Commit(luks.SetToken(1, json.RawMessage(`{"type":"other-tool","keyslots":[]}`)))
	if err != nil {
		t.Fatal(err)
	}
	r := reconcile(t, d, keys.Options{}, static(0, "zero"))
	wantOutcome(t, r, "0 kept, 1 removed")
	if _, there := read(t, d).Keyslot(1); there {
		t.Error("the revoked slot is there")
	}
	_ = h
}

// TestTokensGoWithTheirSlot: one that names the slot alone would stay behind as
// nobody's, at the id of another slot.
func TestTokensGoWithTheirSlot(t *testing.T) {
	d := format(t, static(0, "zero"), static(2, "two"))
	h := read(t, d)
	h, err := h.Commit(
		luks.SetToken(1, json.RawMessage(`{"type":"other-tool","keyslots":["2"]}`)),
		luks.SetToken(3, json.RawMessage(`{"type":"other-tool","keyslots":["0","2"]}`)))
	if err != nil {
		t.Fatal(err)
	}
	if h, err = h.Commit(keys.RemoveSlot(h, 2)...); err != nil {
		t.Fatal(err)
	}
	if _, there := h.Token(1); there {
		t.Error("the token of the slot alone is still there")
	}
	if token, there := h.Token(3); !there || len(token.Keyslots) != 1 {
		t.Errorf("the token of two slots: %v, %v", token.Keyslots, there)
	}
}
