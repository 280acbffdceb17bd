package interop_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks1"
	"github.com/cryptctl/cryptctl/secret"
)

// TestLUKS1Unlock: cryptsetup makes LUKS1 volumes, and the keys that it finds in
// them are those that we find.
func TestLUKS1Unlock(t *testing.T) {
	for _, c := range []struct{ hash, bits string }{
		{"sha256", "512"}, {"sha256", "256"}, {"sha1", "256"}, {"sha512", "512"}, {"sha3-256", "512"},
	} {
		t.Run(c.hash+" "+c.bits, func(t *testing.T) {
			d := blank(t, plain(), diskSize)
			cheap := []string{"--pbkdf-force-iterations", "1000"}
			cryptsetup(t, append([]string{
				"luksFormat", "--type", "luks1", "--hash", c.hash, "--key-size", c.bits,
				"--cipher", "aes-xts-plain64", "--key-file", keyFile(t, "alpha"), d.path,
			}, cheap...)...)
			cryptsetup(t, append([]string{"luksAddKey", "--key-slot", "5", "--key-file", keyFile(t, "alpha"), d.path, keyFile(t, "bravo")}, cheap...)...)
			there := filepath.Join(t.TempDir(), "key")
			cryptsetup(t, "luksDump", "-q", "--dump-volume-key", "--volume-key-file", there, "--key-file", keyFile(t, "alpha"), d.path)
			want, err := os.ReadFile(there)
			if err != nil {
				t.Fatal(err)
			}

			h, err := luks1.Read(d.open())
			if err != nil {
				t.Fatal(err)
			}
			if uuid := cryptsetup(t, "luksUUID", d.path); h.UUID()+"\n" != uuid || h.KeySize() != len(want) || h.Hash() != c.hash || len(h.Slots()) != 2 {
				t.Errorf("we read volume %s with %s, a key of %d bytes and the slots %+v", h.UUID(), h.Hash(), h.KeySize(), h.Slots())
			}
			for word, slot := range map[string]int{"alpha": 0, "bravo": 5} {
				key, err := h.Unlock(t.Context(), secret.Copy([]byte(word)), kdf.Limits{})
				if err != nil {
					t.Fatal(err)
				}
				if key.Slot() != slot || !bytes.Equal(key.Bytes().Bytes(), want) {
					t.Errorf("slot %d opens with another key than cryptsetup's, or is not %d", key.Slot(), slot)
				}
				key.Wipe()
			}
			if _, err := h.Unlock(t.Context(), secret.Copy([]byte("charlie")), kdf.Limits{}); !errors.Is(err, luks.ErrWrongPassphrase) {
				t.Errorf("another passphrase: %v", err)
			}
		})
	}
}
