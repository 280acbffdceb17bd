//go:build vm

package vm_test

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// TestAdiantum has volumes whose keyslot areas are encrypted with Adiantum, as
// cryptsetup makes them when nobody tells it otherwise. It can do so only with a
// kernel that has dm-crypt.
func TestAdiantum(t *testing.T) {
	var disks []*machine.Disk
	for range 4 {
		disks = append(disks, machine.NewDisk(t, diskSize))
	}
	b := &bench{boot(t, machine.Config{Disks: disks, Deadline: 5 * time.Minute}), 0, len(disks)}
	for _, cipher := range []string{"xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"} {
		t.Run(cipher, func(t *testing.T) {
			b.adiantum(t, cipher)
			b.adiantumVector(t, cipher)
		})
	}
	b.empty(t)
	b.PowerOff()
}

// luksFormat makes a volume with cryptsetup on a blank disk.
func (b *bench) luksFormat(t *testing.T, args ...string) string {
	t.Helper()
	device := b.blank(t)
	format := []string{"cryptsetup", "luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", "-"}
	b.feed(t, passphrase, append(append(format, args...), device)...)
	return device
}

// areaCipherOf is what the header says of a slot's area.
func (b *bench) areaCipherOf(t *testing.T, device, slot string) string {
	t.Helper()
	var doc struct {
		Keyslots map[string]struct {
			Area struct {
				Encryption string
				KeySize    int `json:"key_size"`
			}
		}
	}
	if err := json.Unmarshal([]byte(b.run(t, "cryptsetup", "luksDump", "--dump-json-metadata", device)), &doc); err != nil {
		t.Fatal(err)
	}
	area := doc.Keyslots[slot].Area
	return area.Encryption + " " + strconv.Itoa(area.KeySize)
}

// opens fails unless both programs open a slot with the passphrase.
func (b *bench) opens(t *testing.T, device, slot, word string) {
	t.Helper()
	b.feed(t, word, "cryptsetup", "open", "--test-passphrase", "--key-slot", slot, "--key-file", "-", device)
	b.feed(t, word, "cryptctl", "open", device, "--test", "--slot", slot, "--key-file", "-")
}

// adiantum opens what cryptsetup made, replaces and adds keys by turns.
func (b *bench) adiantum(t *testing.T, cipher string) {
	device := b.luksFormat(t, "--cipher", cipher, "--key-size", "256", "--sector-size", "4096")
	if got := b.areaCipherOf(t, device, "0"); got != cipher+" 32" {
		t.Fatalf("cryptsetup encrypts the area with %s, so that this tests nothing", got)
	}
	b.opens(t, device, "0", passphrase)
	b.same(t, device, mapping.Options{Name: "same"})

	for name, word := range map[string]string{"old": passphrase, "ours": "by cryptctl", "theirs": "by cryptsetup"} {
		b.do(t, "write", wire.File{Path: "/tmp/" + name, Content: []byte(word)}, nil)
	}
	ourCost := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	b.run(t, append([]string{"cryptctl", "key", "add", device, "--slot", "1", "--key-file", "/tmp/old", "--new-key-file", "/tmp/ours"}, ourCost...)...)
	b.opens(t, device, "1", "by cryptctl")
	b.run(t, "cryptsetup", "luksAddKey", "--key-slot", "2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		"--key-file", "/tmp/ours", device, "/tmp/theirs")
	b.opens(t, device, "2", "by cryptsetup")
	if got := b.areaCipherOf(t, device, "2"); got != cipher+" 32" {
		t.Logf("cryptsetup encrypts the area of a later key with %s", got)
	}
	// A slot that is replaced gets the area cipher that we write.
	b.run(t, append([]string{"cryptctl", "key", "replace", device, "--slot", "0", "--key-file", "/tmp/old", "--new-key-file", "/tmp/ours"}, ourCost...)...)
	if got := b.areaCipherOf(t, device, "0"); got != "aes-xts-plain64 64" {
		t.Errorf("the replaced slot has an area in %s", got)
	}
	b.opens(t, device, "0", "by cryptctl")
	b.run(t, "cryptctl", "check", device)
}

// adiantumVector has cryptsetup, and below it the kernel, compute the vector of
// luks/testdata/areas.txt: it puts the vector's material and passphrase into a
// header of cryptsetup's.
func (b *bench) adiantumVector(t *testing.T, cipher string) {
	want := areaVector(t, cipher)
	device := b.luksFormat(t, "--cipher", cipher, "--key-size", "256", "--sector-size", "512")
	var header wire.Span
	b.do(t, "pread", wire.Span{Path: device, Length: 2 * headerSize}, &header)
	salt := stream("digest salt", 32)
	digest, err := pbkdf2.Key(sha256.New, string(want), salt, 1000, 32)
	if err != nil {
		t.Fatal(err)
	}
	area := putVector(t, header.Content, stream("salt", 32), salt, digest)
	b.do(t, "pwrite", wire.Span{Path: device, Content: header.Content}, nil)
	b.do(t, "pwrite", wire.Span{Path: device, Offset: area, Content: stream("area sha256 32 32 "+cipher, 32*4000)}, nil)

	b.opens(t, device, "0", "passphrase for sha256")
	b.feed(t, "passphrase for sha256", "cryptsetup", "luksDump", "-q", "--dump-volume-key", "--volume-key-file", "/tmp/"+cipher[:9], "--key-file", "-", device)
	var got wire.File
	b.do(t, "read", wire.File{Path: "/tmp/" + cipher[:9]}, &got)
	if !bytes.Equal(got.Content, want) {
		t.Errorf("cryptsetup finds the volume key %x, and the vector has %x", got.Content, want)
	}
}

// areaVector is the volume key of the vector of that cipher.
func areaVector(t *testing.T, cipher string) []byte {
	t.Helper()
	vectors, err := os.ReadFile("../../luks/testdata/areas.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(vectors), "\nsha256 32 32 "+cipher+" ")
	line, _, _ := strings.Cut(rest, "\n")
	key, err := hex.DecodeString(line)
	if !found || err != nil || len(key) != 32 {
		t.Fatalf("no vector for %s: %v", cipher, err)
	}
	return key
}

// stream is the recipe of luks/testdata/areas.txt.
func stream(seed string, n int) []byte {
	var out []byte
	for i := uint32(0); len(out) < n; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(seed), i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

// Sizes of a LUKS2 header, of which there are two (LUKS2 On-Disk Format, 2.1).
const (
	headerSize = 16 << 10
	binarySize = 4096
	sumOffset  = 448
)

// putVector changes salts and digest in both copies of a header and returns
// where the area of slot 0 lies.
func putVector(t *testing.T, header, salt, digestSalt, digest []byte) (area int64) {
	t.Helper()
	var doc map[string]any
	text, _, _ := bytes.Cut(header[binarySize:headerSize], []byte{0})
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	slot := doc["keyslots"].(map[string]any)["0"].(map[string]any)
	derivation := slot["kdf"].(map[string]any)
	derivation["salt"], derivation["hash"], derivation["iterations"] = salt, "sha256", 1000
	d := doc["digests"].(map[string]any)["0"].(map[string]any)
	d["salt"], d["digest"], d["hash"], d["iterations"] = digestSalt, digest, "sha256", 1000
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(header); at += headerSize {
		c := header[at:][:headerSize]
		clear(c[binarySize:])
		copy(c[binarySize:], text)
		clear(c[sumOffset:][:64])
		sum := sha256.Sum256(c)
		copy(c[sumOffset:], sum[:])
	}
	area, err = strconv.ParseInt(slot["area"].(map[string]any)["offset"].(string), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return area
}
