package interop_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// inReencryption checks that a volume in the middle of a reencryption is read
// and neither unlocked nor changed.
func (d *disk) inReencryption(pass string) {
	d.Helper()
	d.sameDocument("in reencryption")
	h := d.header()
	if !slices.ContainsFunc(h.Trust(kdf.Limits{}), func(r *luks.Refusal) bool { return r.Code == luks.Reencryption && r.Level == luks.Untrusted }) {
		d.Errorf("refusals %v, want %s", h.Trust(kdf.Limits{}), luks.Reencryption)
	}
	if _, err := d.unlock(pass, -1); !errors.Is(err, luks.Reencryption) {
		d.Errorf("unlock: %v, want %s", err, luks.Reencryption)
	}
	before := d.headerBytes()
	if _, err := h.Commit(luks.SetPriority(0, luks.PriorityPrefer)); !errors.Is(err, luks.Reencryption) {
		d.Errorf("a change: %v, want %s", err, luks.Reencryption)
	}
	if !bytes.Equal(before, d.headerBytes()) {
		d.Error("a refused change wrote to the header")
	}
}

func TestReencrypt(t *testing.T) {
	t.Run("encrypting plain data", func(t *testing.T) {
		d := blank(t, plain(), 48<<20)
		args := []string{"reencrypt", "--encrypt", "--init-only", "--type", "luks2", "--reduce-device-size", "32M", "--key-file", keyFile(t, "alpha")}
		cryptsetup(t, append(append(args, d.shape.costFlags()...), d.path)...)
		d.inReencryption("alpha")
		cryptsetup(t, "reencrypt", "--resume-only", "--force-offline-reencrypt", "--key-file", keyFile(t, "alpha"), d.path)
		d.born("alpha")
		d.accepted("encrypted")
		d.replaceHere(0, "bravo")
		d.opens("encrypted")
	})
	t.Run("a new volume key for our volume", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		d.addHere(1, "bravo")
		old, planned := d.key, d.header()
		cryptsetup(t, "reencrypt", "--init-only", "--force-offline-reencrypt", "--key-slot", "0",
			"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", keyFile(t, "alpha"), d.path)
		d.inReencryption("alpha")
		cryptsetup(t, "reencrypt", "--resume-only", "--force-offline-reencrypt", "--key-file", keyFile(t, "alpha"), d.path)

		delete(d.keys, 1) // given up by cryptsetup, which did not know its passphrase
		left := slots(d.header())
		if len(left) != 1 {
			t.Fatalf("keyslots %v are left, want one", left)
		}
		d.keys = map[int]string{left[0]: "alpha"}
		d.key = d.keyHere("alpha", -1)
		if bytes.Equal(old, d.key) {
			t.Error("the volume key is still the old one")
		}
		d.accepted("reencrypted")
		d.sameKey("reencrypted", left[0])
		if _, err := planned.Commit(luks.SetToken(0, []byte(`{"type":"x","keyslots":[]}`))); !errors.Is(err, luks.ErrConflict) {
			t.Errorf("a change planned before: %v, want %v", err, luks.ErrConflict)
		}
		d.replaceHere(left[0], "charlie")
		d.opens("reencrypted and changed")
	})
	t.Run("decrypting", func(t *testing.T) {
		d := ours(t, plain(), "alpha")
		header := d.path + ".header"
		r := try(t, "reencrypt", "--decrypt", "--init-only", "--force-offline-reencrypt", "--header", header, "--key-file", keyFile(t, "alpha"), d.path)
		if r.code != 0 {
			t.Fatalf("reencrypt --decrypt: %s", r.out)
		}
		(&disk{t, header, d.shape, nil, nil}).inReencryption("alpha")
	})
}
