package interop_test

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"

	peer "github.com/anatol/luks.go"

	"github.com/cryptctl/cryptctl/luks"
)

// luksGo opens the image with anatol/luks.go.
func (d *disk) luksGo() peer.Device {
	d.Helper()
	dev, err := peer.Open(d.path)
	if err != nil {
		d.Fatalf("luks.go: %v", err)
	}
	d.Cleanup(func() { dev.Close() })
	return dev
}

// unsealed checks that luks.go gets the disk's volume key from every slot. It
// keeps the key to itself, but gives HMACs under it.
func (d *disk) unsealed(what string) {
	d.Helper()
	dev, message := d.luksGo(), []byte("the same key?")
	mac := hmac.New(sha256.New, d.key)
	mac.Write(message)
	want := mac.Sum(nil)
	for slot, pass := range d.keys {
		v, err := dev.UnsealVolume(slot, []byte(pass))
		if err != nil {
			d.Fatalf("%s: luks.go, slot %d: %v", what, slot, err)
		}
		if got, err := v.HMAC(crypto.SHA256, message); err != nil || !bytes.Equal(got, want) {
			d.Errorf("%s: luks.go gets another volume key from slot %d (%v)", what, slot, err)
		}
		s := d.header().Segments()[0]
		if v.StorageEncryption != s.Encryption || v.StorageOffset != uint64(s.Offset) || v.StorageSectorSize != uint64(s.SectorSize) || v.UUID != d.header().UUID() {
			d.Errorf("%s: luks.go sees another volume: %s at %d, sectors of %d, %s", what, v.StorageEncryption, v.StorageOffset, v.StorageSectorSize, v.UUID)
		}
		if _, err := dev.UnsealVolume(slot, []byte("none of them")); !errors.Is(err, peer.ErrPassphraseDoesNotMatch) {
			d.Errorf("%s: luks.go, a wrong passphrase for slot %d: %v", what, slot, err)
		}
	}
}

func TestLuksGo(t *testing.T) {
	for _, s := range shapes() {
		if s.metadata != 64<<10 {
			continue // luks.go reads the size and no more
		}
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			d := ours(t, s, "alpha")
			d.unsealed("we formatted")
			d.commit(luks.AddKeyslot(5, d.sealNew("bravo"), nil), luks.ReplaceKeyslot(0, d.sealNew("charlie"), nil))
			d.keys[5], d.keys[0] = "bravo", "charlie"
			d.unsealed("we added and replaced")
		})
	}
	t.Run("32 slots with tokens", func(t *testing.T) {
		d := ours(t, plain(), "pass 0")
		changes := []luks.Change{luks.SetPriority(0, luks.PriorityIgnore)}
		for id := 1; id < luks.MaxSlots; id++ {
			d.keys[id] = fmt.Sprintf("pass %d", id)
			token := fmt.Sprintf(`{"type":"cryptctl","keyslots":["%d"],"n":%d}`, id, id)
			changes = append(changes, luks.AddKeyslot(id, d.sealNew(d.keys[id]), json.RawMessage(token)))
		}
		changes = append(changes, luks.SetPriority(9, luks.PriorityPrefer), luks.SetFlags("allow-discards", "no-read-workqueue"))
		d.commit(changes...)
		d.unsealed("32 slots")

		dev := d.luksGo()
		tokens, err := dev.Tokens()
		if err != nil || len(tokens) != 31 {
			t.Errorf("luks.go sees %d tokens: %v", len(tokens), err)
		}
		for _, token := range tokens {
			if !slices.Equal(token.Slots, []int{token.ID}) || token.Type != "cryptctl" {
				t.Errorf("luks.go sees token %d as %q for %v", token.ID, token.Type, token.Slots)
			}
		}
		if order := dev.Slots(); len(order) != 31 || order[0] != 9 || slices.Contains(order, 0) {
			t.Errorf("luks.go would try %v, want 9 first and never the ignored 0", order)
		}
		if got := dev.FlagsGet(); !slices.Equal(got, []string{"allow-discards", "no-read-workqueue"}) {
			t.Errorf("luks.go sees the flags %v", got)
		}
	})
	t.Run("detached", func(t *testing.T) {
		data, d := blank(t, plain(), 4<<20), blank(t, plain(), diskSize)
		key := luks.NewVolumeKey(64)
		if _, err := luks.Format(d.open(), key, luks.FormatOptions{Detached: true}, luks.AddKeyslot(0, d.seal(key, "alpha"), nil)); err != nil {
			t.Fatal(err)
		}
		dev, err := peer.OpenWithHeader(data.path, d.path)
		if err != nil {
			t.Fatal(err)
		}
		defer dev.Close()
		v, err := dev.UnsealVolume(0, []byte("alpha"))
		if err != nil {
			t.Fatal(err)
		}
		if v.StorageOffset != 0 || v.StorageSize != 4<<20 {
			t.Errorf("luks.go sees %d bytes of data at %d", v.StorageSize, v.StorageOffset)
		}
	})
}
