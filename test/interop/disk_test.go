package interop_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

// disk is an image that both sides work on, with the passphrases that must open
// its keyslots.
type disk struct {
	testing.TB
	path  string
	shape shape
	keys  map[int]string
	key   []byte // the volume key
}

// diskSize leaves 2 MiB for data behind the default header.
const diskSize = 18 << 20

// blank makes an empty image.
func blank(t testing.TB, s shape, size int64) *disk {
	t.Helper()
	d := &disk{t, filepath.Join(t.TempDir(), "disk.img"), s, map[int]string{}, nil}
	if err := os.WriteFile(d.path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(d.path, size); err != nil {
		t.Fatal(err)
	}
	return d
}

// theirs makes a volume with cryptsetup, with keyslot 0.
func theirs(t testing.TB, s shape, pass string, flags ...string) *disk {
	t.Helper()
	d := blank(t, s, diskSize)
	args := append([]string{
		"luksFormat", "--type", "luks2", "--key-file", keyFile(t, pass), "--cipher", "aes-xts-plain64",
		"--key-size", strconv.Itoa(s.keyBits), "--sector-size", strconv.Itoa(s.sector),
		"--luks2-metadata-size", strconv.FormatInt(s.metadata, 10),
	}, s.costFlags()...)
	cryptsetup(t, append(append(args, flags...), d.path)...)
	d.born(pass)
	return d
}

// ours makes a volume with our engine, with keyslot 0.
func ours(t testing.TB, s shape, pass string) *disk {
	t.Helper()
	d := blank(t, s, diskSize)
	key := luks.NewVolumeKey(s.keyBits / 8)
	defer key.Wipe()
	opts := luks.FormatOptions{SectorSize: s.sector, MetadataSize: s.metadata}
	if _, err := luks.Format(d.open(), key, opts, luks.AddKeyslot(0, d.seal(key, pass), nil)); err != nil {
		t.Fatal(err)
	}
	d.born(pass)
	return d
}

// born notes the first keyslot and the volume key.
func (d *disk) born(pass string) {
	d.Helper()
	d.keys[0] = pass
	d.key = d.keyHere(pass, 0)
}

// copy returns a copy of the image, with the same keys.
func (d *disk) copy(t testing.TB) *disk {
	t.Helper()
	c := blank(t, d.shape, 0)
	if err := exec.Command("cp", "--sparse=always", d.path, c.path).Run(); err != nil {
		t.Fatal(err)
	}
	maps.Copy(c.keys, d.keys)
	c.key = d.key
	return c
}

// open opens the image for our engine until the test ends.
func (d *disk) open() *luks.File {
	d.Helper()
	f, err := luks.OpenFile(d.path, luks.ReadWrite)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { f.Close() })
	return f
}

// header reads the header with our engine.
func (d *disk) header() *luks.Header {
	d.Helper()
	h, err := luks.Read(d.open())
	if err != nil {
		d.Fatalf("we cannot read it: %v", err)
	}
	return h
}

// unlock opens one slot with our engine, or any with -1.
func (d *disk) unlock(pass string, slot int) (*luks.VolumeKey, error) {
	d.Helper()
	var opts luks.UnlockOptions
	if slot >= 0 {
		opts.Slots = []int{slot}
	}
	return d.header().Unlock(context.Background(), secret.Copy([]byte(pass)), opts)
}

// seal seals a volume key under a passphrase at the disk's cost.
func (d *disk) seal(key *luks.VolumeKey, pass string) *luks.SealedKey {
	d.Helper()
	sealed, err := key.Seal(context.Background(), secret.Copy([]byte(pass)), d.shape.cost())
	if err != nil {
		d.Fatal(err)
	}
	return sealed
}

// sealNew seals the disk's own volume key, which one of its passphrases opens.
func (d *disk) sealNew(pass string) *luks.SealedKey {
	d.Helper()
	_, known := d.anyKey()
	key, err := d.unlock(known, -1)
	if err != nil {
		d.Fatalf("we cannot unlock it: %v", err)
	}
	d.Cleanup(key.Wipe)
	return d.seal(key, pass)
}

// anyKey returns the keyslot with the lowest id.
func (d *disk) anyKey() (slot int, pass string) {
	d.Helper()
	if len(d.keys) == 0 {
		d.Fatal("the disk has no key left")
	}
	slot = slices.Min(slices.Collect(maps.Keys(d.keys)))
	return slot, d.keys[slot]
}

// commit changes the header with our engine.
func (d *disk) commit(changes ...luks.Change) *luks.Header {
	d.Helper()
	h, err := d.header().Commit(changes...)
	if err != nil {
		d.Fatalf("we cannot change it: %v", err)
	}
	return h
}

// addHere and the six methods after it make one change with one of the tools and
// let both judge what came of it.
func (d *disk) addHere(slot int, pass string) {
	d.Helper()
	d.commit(luks.AddKeyslot(slot, d.sealNew(pass), nil))
	d.changed("we added", slot, pass)
}

func (d *disk) addThere(slot int, pass string) {
	d.Helper()
	_, known := d.anyKey()
	cryptsetup(d, append([]string{
		"luksAddKey", "--key-file", keyFile(d, known), "--key-slot", strconv.Itoa(slot), d.path, keyFile(d, pass),
	}, d.shape.costFlags()...)...)
	d.changed("cryptsetup added", slot, pass)
}

func (d *disk) replaceHere(slot int, pass string) {
	d.Helper()
	d.commit(luks.ReplaceKeyslot(slot, d.sealNew(pass), nil))
	d.changed("we replaced", slot, pass)
}

// changeThere uses luksChangeKey, with its --key-slot or without.
func (d *disk) changeThere(slot int, pass string, named bool) {
	d.Helper()
	args := append([]string{"luksChangeKey", "--key-file", keyFile(d, d.keys[slot]), d.path, keyFile(d, pass)}, d.shape.costFlags()...)
	if named {
		args = append(args, "--key-slot", strconv.Itoa(slot))
	}
	cryptsetup(d, args...)
	d.changed("cryptsetup changed", slot, pass)
}

func (d *disk) removeHere(slot int) {
	d.Helper()
	d.commit(luks.RemoveKeyslot(slot))
	d.changed("we removed", slot, "")
}

// removeThere uses luksRemoveKey, which finds the slot by its passphrase.
func (d *disk) removeThere(slot int) {
	d.Helper()
	cryptsetup(d, "luksRemoveKey", "--key-file", keyFile(d, d.keys[slot]), d.path)
	d.changed("cryptsetup removed", slot, "")
}

// killThere uses luksKillSlot with the passphrase of another slot.
func (d *disk) killThere(slot int) {
	d.Helper()
	rest := *d
	rest.keys = maps.Clone(d.keys)
	delete(rest.keys, slot)
	_, pass := rest.anyKey()
	cryptsetup(d, "luksKillSlot", "--key-file", keyFile(d, pass), d.path, strconv.Itoa(slot))
	d.changed("cryptsetup killed", slot, "")
}

// changed notes what a slot's passphrase is now, "" for none, and checks that the
// header is accepted, the new passphrase opens on both sides and the old one on
// neither.
func (d *disk) changed(what string, slot int, pass string) {
	d.Helper()
	old := d.keys[slot]
	d.keys[slot] = pass
	if pass == "" {
		delete(d.keys, slot)
	}
	what = fmt.Sprintf("%s slot %d", what, slot)
	d.accepted(what)
	if pass != "" {
		d.sameKey(what, slot)
	}
	if old != "" && pass != "" && (d.opensHere(old, slot) || d.opensThere(old, slot)) {
		d.Fatalf("%s: the old passphrase still opens", what)
	}
}
