//go:build vm

package vm_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// talosMeta is how Talos 1.11 to 1.13 writes tag 9.
const talosMeta = `{"EncryptionProvider":"luks2","EncryptionKeys":[` +
	`{"KeySlot":0,"KeyStatic":null,"KeyNodeID":{},"KeyKMS":null,"KeyTPM":null,"KeyLockToSTATE":null},` +
	`{"KeySlot":1,"KeyStatic":{"KeyData":"state word"},"KeyNodeID":null,"KeyKMS":null,"KeyTPM":null,"KeyLockToSTATE":null}],` +
	`"EncryptionCipher":"aes-xts-plain64","EncryptionKeySize":0,"EncryptionBlockSize":0,"EncryptionPerfOptions":null,"EncryptionAllowDiscards":null}`

// TestTalosDisk boots a disk that is laid out and keyed as Talos does it, changes
// its keys, and holds the headers against the rules that Talos reads them by.
func TestTalosDisk(t *testing.T) {
	t.Parallel()
	d := newNodeDisk(t)
	config := machineConfig{state: keySet{0: byNodeID, 1: "state word"}, ephemeral: keySet{0: byNodeID, 1: "ephemeral word"}}
	g := boot(t, machine.Config{Disks: []*machine.Disk{d.Disk}})
	g.asTalos(t, "/dev/vda2", "STATE", "state word", "/tmp/config.yaml", []byte(config.String()))
	g.asTalos(t, "/dev/vda3", "EPHEMERAL", "ephemeral word", "", nil)
	g.PowerOff()
	d.setTags(t, map[meta.Tag]string{9: talosMeta, meta.UserReserved1: "not ours"})
	for _, label := range []string{"STATE", "EPHEMERAL"} {
		d.acceptable(t, label, []int{0, 1}) // else this tests nothing
	}

	n := bootNode(t, d.Disk, node.Running)
	for _, v := range n.open(t, false, "STATE", "EPHEMERAL").Volumes {
		if len(v.Slots) != 2 {
			t.Errorf("%s: slots %+v", v.Name, v.Slots)
		}
		for _, s := range v.Slots {
			if s.Outcome != keys.Kept {
				t.Errorf("%s, slot %d: %s (%s)", v.Name, s.Slot, s.Outcome, s.Reason)
			}
		}
	}
	n.kept(t, "/var/file")
	if got := d.tag(t, 9); got != talosMeta {
		t.Errorf("nothing changed, and tag 9 did:\n%s", got)
	}
	config.state[1], config.ephemeral = "another state word", keySet{0: byNodeID, 2: "another ephemeral word"}
	n.configure(t, config, node.Auto)
	n.open(t, false, "STATE", "EPHEMERAL")
	n.PowerOff()

	d.openWith(t, "STATE", config.state, "state word")
	d.openWith(t, "EPHEMERAL", config.ephemeral, "ephemeral word")
	d.acceptable(t, "STATE", []int{0, 1})
	d.acceptable(t, "EPHEMERAL", []int{0, 2})
	if got, want := d.tag(t, 9), strings.Replace(talosMeta, "state word", "another state word", 1); !sameText(got, want) {
		t.Errorf("tag 9 is\n%s\nwant\n%s", got, want)
	}
	if got := d.tag(t, meta.UserReserved1); got != "not ours" {
		t.Errorf("a value that is not ours is %q now", got)
	}
}

// sameText compares JSON but for what may be written as null or as 512.
func sameText(got, want string) bool {
	for _, text := range []*string{&got, &want} {
		*text = strings.NewReplacer(`"EncryptionKeySize":512`, `"EncryptionKeySize":0`, `"EncryptionPerfOptions":[]`, `"EncryptionPerfOptions":null`,
			`"EncryptionAllowDiscards":false`, `"EncryptionAllowDiscards":null`, `"KeyLockToSTATE":false`, `"KeyLockToSTATE":null`).Replace(*text)
	}
	return got == want
}

// asTalos makes a volume by the commands that Talos runs, cheap costs aside, with
// a file system and a file in it.
func (g *guest) asTalos(t *testing.T, device, label, word, file string, content []byte) {
	t.Helper()
	cost := []string{"--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "1"}
	id := nodeUUID + label
	format := []string{
		"cryptsetup", "luksFormat", "-q", "--type", "luks2", "--key-file=-", fmt.Sprintf("--keyfile-size=%d", len(id)),
		"-c", "aes-xts-plain64", device, "--key-slot=0", "--key-size=512",
	}
	g.feed(t, id, append(format, cost...)...)
	add := []string{
		"cryptsetup", "luksAddKey", "-q", device, "--key-file=-", fmt.Sprintf("--keyfile-size=%d", len(id)),
		"--new-keyfile=-", fmt.Sprintf("--new-keyfile-size=%d", len(word)), "--key-size=512", "--key-slot=1",
	}
	g.feed(t, id+word, append(add, cost...)...)
	mapped := "/dev/mapper/luks2-" + label
	g.feed(t, id, "cryptsetup", "luksOpen", device, "luks2-"+label, "--key-file=-", "--key-slot=0")
	g.run(t, "mkfs.ext4", "-q", mapped)
	mnt := wire.Mount{Source: mapped, Target: "/mnt/" + label, Type: "ext4"}
	g.do(t, "mount", mnt, nil)
	if file == "" {
		g.put(t, mnt.Target+"/file")
	} else {
		g.do(t, "write", wire.File{Path: mnt.Target + "/config.yaml", Content: content}, nil)
	}
	g.do(t, "unmount", mnt, nil)
	g.run(t, "cryptsetup", "luksClose", "luks2-"+label)
}

// talosHeader is what Talos looks at in a header (go-blockdevice v2.0.32,
// encryption/luks/header.go).
type talosHeader struct {
	Keyslots map[string]struct {
		Type string
		Area struct{ Encryption string }
		KDF  struct{ Type string }
	}
	Segments map[string]struct {
		Type, Encryption string
		Flags            []string
	}
	Tokens map[string]struct{ Type string }
}

// acceptable fails when Talos would not take a header with these slots
// configured.
func (d *nodeDisk) acceptable(t *testing.T, label string, slots []int) {
	t.Helper()
	d.with(t, label, func(dev luks.Device) error {
		const size = 16 << 10 // of a copy, as luksFormat makes it
		both := make([]byte, 2*size)
		if _, err := dev.ReadAt(both, 0); err != nil {
			return err
		}
		first, second := both[:size], both[size:]
		if got := binary.BigEndian.Uint64(first[8:]); got != size {
			t.Errorf("%s: a header copy has %d bytes", label, got)
		}
		if binary.BigEndian.Uint16(first[6:]) != 2 {
			t.Errorf("%s: version %x", label, first[6:8])
		}
		text := bytes.TrimRight(first[4096:], "\x00")
		if bytes.Equal(first[16:24], second[16:24]) && !bytes.Equal(text, bytes.TrimRight(second[4096:], "\x00")) {
			t.Errorf("%s: the copies have one sequence number and differ", label)
		}
		var h talosHeader
		if err := json.Unmarshal(text, &h); err != nil {
			return err
		}
		h.check(t, label, slots)
		return nil
	})
}

func (h *talosHeader) check(t *testing.T, label string, slots []int) {
	t.Helper()
	ciphers := []string{"aes-xts-plain64", "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"}
	if len(h.Keyslots) != len(slots) {
		t.Errorf("%s: %d slots, want %v", label, len(h.Keyslots), slots)
	}
	for id, k := range h.Keyslots {
		if k.Type != "luks2" || !slices.Contains(ciphers, k.Area.Encryption) || k.KDF.Type != "argon2id" && k.KDF.Type != "argon2i" {
			t.Errorf("%s: slot %s is refused: %+v", label, id, k)
		}
	}
	s, ok := h.Segments["0"]
	if len(h.Segments) != 1 || !ok || s.Type != "crypt" || !slices.Contains(ciphers, s.Encryption) || len(s.Flags) > 0 {
		t.Errorf("%s: the segments are refused: %+v", label, h.Segments)
	}
	for _, slot := range slots {
		// A token with the number of a configured slot must be of a type of Talos.
		if token, there := h.Tokens[strconv.Itoa(slot)]; there && token.Type != "sideroKMS" && token.Type != "talos-tpm2" {
			t.Errorf("%s: token %d has the type %q", label, slot, token.Type)
		}
	}
}
