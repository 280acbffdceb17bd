package interop_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// accepted checks that both sides take the header, see the same document and
// the expected keyslots in it, and that cryptsetup finds nothing to repair.
func (d *disk) accepted(what string) {
	d.Helper()
	h := d.header()
	if r := h.Trust(kdf.Limits{}); len(r) > 0 {
		d.Fatalf("%s: we refuse it: %v", what, r)
	}
	for _, c := range h.Copies() {
		if c.State != luks.CopyGood {
			d.Fatalf("%s: the %s copy is %s: %v", what, c.Name, c.State, c.Err)
		}
	}
	d.sameDocument(what)
	want := slices.Sorted(maps.Keys(d.keys))
	if got := slots(h); !slices.Equal(got, want) {
		d.Fatalf("%s: keyslots %v, want %v", what, got, want)
	}
}

func slots(h *luks.Header) (ids []int) {
	for _, k := range h.Keyslots() {
		ids = append(ids, k.ID)
	}
	slices.Sort(ids)
	return ids
}

// sameDocument checks that luksDump accepts the header, that it does not write to
// the image, as it does when it finds something to repair, and that its document
// is ours.
func (d *disk) sameDocument(what string) {
	d.Helper()
	before := d.headerBytes()
	r := try(d, "luksDump", "--dump-json-metadata", d.path)
	if r.code != 0 {
		d.Fatalf("%s: luksDump: exit %d\n%s", what, r.code, r.out)
	}
	if !bytes.Equal(before, d.headerBytes()) {
		d.Fatalf("%s: cryptsetup repaired the header", what)
	}
	h := d.header()
	if there, here := parse(d, []byte(r.out)), parse(d, h.JSON()); !reflect.DeepEqual(there, here) {
		d.Fatalf("%s: two documents\ncryptsetup: %v\nwe:         %v", what, there, here)
	}
}

// headerBytes returns both header copies.
func (d *disk) headerBytes() []byte {
	d.Helper()
	f := d.open()
	p := make([]byte, 2*d.header().MetadataSize())
	if _, err := f.ReadAt(p, 0); err != nil {
		d.Fatal(err)
	}
	return p
}

func parse(t testing.TB, text []byte) (doc any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	if err := dec.Decode(&doc); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, text)
	}
	return doc
}

// sameKey checks that a slot gives the disk's volume key on both sides.
func (d *disk) sameKey(what string, slot int) {
	d.Helper()
	if here := d.keyHere(d.keys[slot], slot); !bytes.Equal(here, d.key) {
		d.Fatalf("%s: we get another volume key", what)
	}
	if there := d.keyThere(d.keys[slot]); !bytes.Equal(there, d.key) {
		d.Fatalf("%s: cryptsetup gets another volume key", what)
	}
}

// keyHere returns the volume key that our engine finds.
func (d *disk) keyHere(pass string, slot int) []byte {
	d.Helper()
	key, err := d.unlock(pass, slot)
	if err != nil {
		d.Fatalf("we cannot unlock slot %d: %v", slot, err)
	}
	defer key.Wipe()
	return bytes.Clone(key.Bytes().Bytes())
}

// keyThere returns the volume key that cryptsetup finds.
func (d *disk) keyThere(pass string) []byte {
	d.Helper()
	out := filepath.Join(d.TempDir(), "volume-key")
	cryptsetup(d, "luksDump", "--dump-volume-key", "--volume-key-file", out, "--key-file", keyFile(d, pass), d.path)
	key, err := os.ReadFile(out)
	if err != nil {
		d.Fatal(err)
	}
	return key
}

// opensHere reports whether our engine opens a slot, or any with -1.
func (d *disk) opensHere(pass string, slot int) bool {
	d.Helper()
	key, err := d.unlock(pass, slot)
	if err != nil {
		if !errors.Is(err, luks.ErrWrongPassphrase) {
			d.Fatalf("we cannot unlock: %v", err)
		}
		return false
	}
	key.Wipe()
	return true
}

// opensThere reports whether cryptsetup opens a slot, or any with -1.
func (d *disk) opensThere(pass string, slot int, flags ...string) bool {
	d.Helper()
	args := append([]string{"open", "--test-passphrase", "--key-file", keyFile(d, pass), d.path}, flags...)
	if slot >= 0 {
		args = append(args, "--key-slot", strconv.Itoa(slot))
	}
	switch r := try(d, args...); r.code {
	case 0:
		return true
	case 1, 2: // no such slot, wrong passphrase
		return false
	default:
		d.Fatalf("cryptsetup open: exit %d\n%s", r.code, r.out)
		return false
	}
}

// opens checks that every slot opens with its passphrase on both sides, and with
// no other.
func (d *disk) opens(what string) {
	d.Helper()
	if r := try(d, "isLuks", "--type", "luks2", d.path); r.code != 0 {
		d.Fatalf("%s: isLuks: exit %d\n%s", what, r.code, r.out)
	}
	for slot, pass := range d.keys {
		if !d.opensHere(pass, slot) || !d.opensThere(pass, slot) {
			d.Fatalf("%s: slot %d does not open on both sides", what, slot)
		}
	}
	if d.opensHere("none of them", -1) || d.opensThere("none of them", -1) {
		d.Fatalf("%s: a wrong passphrase opens", what)
	}
}
