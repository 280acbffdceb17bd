package interop_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/siderolabs/go-blockdevice/v2/encryption"
	talosluks "github.com/siderolabs/go-blockdevice/v2/encryption/luks"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// talos is what Talos uses for its volumes, at a cost for tests.
func talos(t testing.TB) *talosluks.LUKS {
	t.Helper()
	// The provider finds cryptsetup in PATH.
	t.Setenv("PATH", filepath.Dir(program(t, "cryptsetup"))+string(filepath.ListSeparator)+os.Getenv("PATH"))
	return talosluks.New(talosluks.AESXTSPlain64Cipher, talosluks.WithPBKDFMemory(32), talosluks.WithPBKDFForceIterations(4))
}

// kmsToken is what Talos stores for a KMS key (its keys.KMSToken).
type kmsToken = talosluks.Token[*struct {
	SealedData []byte `json:"sealedData"`
}]

func newKMSToken(sealed string) *kmsToken {
	token := &kmsToken{Type: "sideroKMS"}
	token.UserData = &struct {
		SealedData []byte `json:"sealedData"`
	}{[]byte(sealed)}
	return token
}

// talosAccepts checks the disk as Talos does on every boot. The provider's
// header validation is not exported and its Open needs device-mapper; ReadKeyslots
// runs the same readHeader and so the same rules. What Open does then, without
// the mapping, is to open by a copy of the header area.
func (d *disk) talosAccepts(provider *talosluks.LUKS, what string) {
	d.Helper()
	read, err := provider.ReadKeyslots(d.path)
	if err != nil {
		d.Fatalf("%s: Talos refuses the header: %v", what, err)
	}
	var ids []string
	for id := range read.Keyslots {
		ids = append(ids, id)
	}
	if want := slots(d.header()); len(ids) != len(want) {
		d.Errorf("%s: Talos sees keyslots %v, want %v", what, ids, want)
	}
	area := make([]byte, d.header().Segments()[0].Offset)
	if _, err := d.open().ReadAt(area, 0); err != nil {
		d.Fatal(err)
	}
	header := keyFile(d, string(area))
	slot, pass := d.anyKey()
	if r := try(d, "open", "--test-passphrase", "--header", header, "--key-slot", fmt.Sprint(slot), "--key-file", keyFile(d, pass), d.path); r.code != 0 {
		d.Errorf("%s: by a copy of the header: %s", what, r.out)
	}
	for slot, pass := range d.keys {
		if ok, err := provider.CheckKey(d.Context(), d.path, encryption.NewKey(slot, []byte(pass))); !ok || err != nil {
			d.Errorf("%s: Talos' key for slot %d: %v %v", what, slot, ok, err)
		}
		if ok, err := provider.CheckKey(d.Context(), d.path, encryption.NewKey(slot, []byte("none of them"))); ok || err != nil {
			d.Errorf("%s: Talos, a wrong key for slot %d: %v %v", what, slot, ok, err)
		}
	}
}

// TestTalosOurs: Talos works on a volume that we made.
func TestTalosOurs(t *testing.T) {
	provider, ctx := talos(t), context.Background()
	for _, metadata := range []int64{16 << 10, 64 << 10, 1 << 20} {
		t.Run(fmt.Sprintf("metadata %dk", metadata>>10), func(t *testing.T) {
			s := plain()
			s.metadata = metadata
			d := ours(t, s, "alpha")
			d.talosAccepts(provider, "we formatted")

			note := json.RawMessage(`{"type":"cryptctl","keyslots":[],"version":1,"slots":{"0":"c2VjcmV0"}}`)
			d.commit(luks.SetToken(31, note), luks.AddKeyslot(1, d.sealNew("bra\nvo\x00"), nil))
			d.keys[1] = "bra\nvo\x00"
			d.talosAccepts(provider, "we added a slot and our token")

			if err := provider.AddKey(ctx, d.path, encryption.NewKey(0, []byte("alpha")), encryption.NewKey(2, []byte("char\nlie"))); err != nil {
				t.Fatal(err)
			}
			d.changed("Talos added", 2, "char\nlie")

			// One token of theirs, at the slot's id, as Talos does it.
			if err := provider.SetToken(ctx, d.path, 2, newKMSToken("sealed\xff")); err != nil {
				t.Fatal(err)
			}
			d.accepted("Talos set a token")
			var got kmsToken
			if err := provider.ReadToken(ctx, d.path, 2, &got); err != nil || string(got.UserData.SealedData) != "sealed\xff" {
				t.Fatalf("Talos reads its token as %+v, %v", got, err)
			}

			// Ours beside it survives theirs, theirs survives our changes.
			d.replaceHere(0, "delta")
			d.talosAccepts(provider, "we replaced a slot")
			if err := provider.ReadToken(ctx, d.path, 2, &got); err != nil || string(got.UserData.SealedData) != "sealed\xff" {
				t.Errorf("after our change Talos reads its token as %+v, %v", got, err)
			}
			if token, ok := d.header().Token(31); !ok || string(token.JSON) != string(note) {
				t.Errorf("after their changes our token is %s", token.JSON)
			}

			// RemoveKey takes the slot and its token.
			if err := provider.RemoveKey(ctx, d.path, 2, encryption.NewKey(0, []byte("delta"))); err != nil {
				t.Fatal(err)
			}
			d.changed("Talos removed", 2, "")
			if _, there := d.header().Token(2); there {
				t.Error("Talos removed a slot and left its token")
			}
			if err := provider.RemoveKey(ctx, d.path, 1, encryption.NewKey(0, []byte("delta"))); err != nil {
				t.Fatal(err)
			}
			d.changed("Talos removed a slot of ours", 1, "")
			if err := provider.ReadToken(ctx, d.path, 2, &got); !errors.Is(err, encryption.ErrTokenNotFound) {
				t.Errorf("a token that is gone: %v", err)
			}
			d.talosAccepts(provider, "at the end")
		})
	}
}

// TestTalosTheirs: we work on a volume that Talos made.
func TestTalosTheirs(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		t.Run(fmt.Sprint(sector), func(t *testing.T) {
			talos(t)
			provider := talosluks.New(talosluks.AESXTSPlain64Cipher, talosluks.WithPBKDFMemory(32),
				talosluks.WithPBKDFForceIterations(4), talosluks.WithBlockSize(uint64(sector)))
			ctx := context.Background()
			d := blank(t, plain(), diskSize)
			if err := provider.Encrypt(ctx, d.path, encryption.NewKey(0, []byte("al\npha"))); err != nil {
				t.Fatal(err)
			}
			d.born("al\npha")
			d.accepted("Talos formatted")
			if got := d.header().Segments()[0].SectorSize; got != sector {
				t.Errorf("the sector size is %d", got)
			}
			if err := provider.SetToken(ctx, d.path, 0, newKMSToken("sealed")); err != nil {
				t.Fatal(err)
			}
			if token, ok := d.header().Token(0); !ok || token.Type != "sideroKMS" || len(token.Keyslots) != 0 || !strings.Contains(string(token.JSON), `"sealedData":"c2VhbGVk"`) {
				t.Errorf("we read its token as %s", token.JSON)
			}
			// A key and its token change together, which Talos cannot do.
			d.commit(luks.ReplaceKeyslot(0, d.sealNew("bravo"), json.RawMessage(`{"type":"sideroKMS","keyslots":[],"UserData":{"sealedData":"bmV3"}}`)))
			d.changed("we replaced", 0, "bravo")
			var got kmsToken
			if err := provider.ReadToken(ctx, d.path, 0, &got); err != nil || string(got.UserData.SealedData) != "new" {
				t.Errorf("Talos reads the new token as %+v, %v", got, err)
			}
			if err := provider.RemoveToken(ctx, d.path, 0); err != nil {
				t.Fatal(err)
			}
			d.accepted("Talos removed the token")
			d.addHere(1, "charlie")
			d.removeHere(0)
			d.talosAccepts(provider, "we changed it")
		})
	}
}

// TestTalosRules: the rules that a volume must keep to stay readable for Talos
// are Talos' own, and are stated here as it states them.
func TestTalosRules(t *testing.T) {
	provider := talos(t)
	for _, c := range []struct {
		name   string
		change func(d *disk)
		refuse string // "" if Talos accepts it
	}{
		{"argon2i keyslot", func(d *disk) { d.shape.kind = kdf.Argon2i; d.addHere(1, "bravo") }, ""},
		{"persistent flags", func(d *disk) { d.commit(luks.SetFlags("allow-discards")) }, ""},
		{"our note in the config", func(d *disk) { d.commit(luks.SetConfig("cryptctl", json.RawMessage(`{"v":1}`))) }, ""},
		{"priorities", func(d *disk) { d.commit(luks.SetPriority(0, luks.PriorityPrefer)) }, ""},
		{"pbkdf2 keyslot", func(d *disk) { d.shape.kind = kdf.PBKDF2; d.addHere(1, "bravo") }, "unexpected KDF type"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ours(t, plain(), "alpha")
			c.change(d)
			_, err := provider.ReadKeyslots(d.path)
			if (err == nil) != (c.refuse == "") || err != nil && !strings.Contains(err.Error(), c.refuse) {
				t.Errorf("Talos says %v, want %q", err, c.refuse)
			}
		})
	}
	t.Run("32 slots", func(t *testing.T) {
		d := ours(t, plain(), "pass 0")
		var changes []luks.Change
		for id := 1; id < luks.MaxSlots; id++ {
			changes = append(changes, luks.AddKeyslot(id, d.sealNew(fmt.Sprintf("pass %d", id)), nil))
		}
		d.commit(changes...)
		d.keys = map[int]string{0: "pass 0", 31: "pass 31"}
		d.talosAccepts(provider, "32 slots")
		if got := slots(d.header()); !slices.Contains(got, 31) {
			t.Errorf("keyslots %v", got)
		}
	})
}
