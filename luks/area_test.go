package luks_test

import (
	"bytes"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

// stream is the recipe of testdata/areas.txt.
func stream(seed string, n int) []byte {
	var out []byte
	for i := uint32(0); len(out) < n; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(seed), i))
		out = append(out, sum[:]...)
	}
	return out[:n]
}

// derive is PBKDF2 of the standard library; the engine has another one.
func derive(t *testing.T, password, salt []byte, size int) []byte {
	t.Helper()
	key, err := pbkdf2.Key(sha256.New, string(password), salt, 1000, size)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func base64Text(p []byte) string { return strconv.Quote(base64.StdEncoding.EncodeToString(p)) }

// TestAreaVectors opens key material that a Python program and cryptsetup agreed
// on; see testdata/areas.txt.
func TestAreaVectors(t *testing.T) {
	vectors, err := os.ReadFile("testdata/areas.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(vectors)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[0] == "#" {
			continue
		}
		name, cipher := strings.Join(f[:len(f)-1], " "), "aes-xts-plain64"
		if len(f) == 5 {
			cipher = f[3]
		}
		rows++
		t.Run(name, func(t *testing.T) {
			want, err := hex.DecodeString(f[len(f)-1])
			if err != nil {
				t.Fatal(err)
			}
			size, _ := strconv.Atoi(f[1])
			d, salt := goldenDisk(t), stream("digest salt", 32)
			copy(d.data[2*metadataSize:], stream("area "+name, 4000*size))
			d.edit(t, edits{
				"keyslots.0.key_size":        f[1],
				"keyslots.0.area.key_size":   f[2],
				"keyslots.0.area.encryption": strconv.Quote(cipher),
				"segments.0.encryption":      strconv.Quote(cipher),
				"keyslots.0.af.hash":         strconv.Quote(f[0]),
				"keyslots.0.kdf.salt":        base64Text(stream("salt", 32)),
				"digests.0.salt":             base64Text(salt),
				"digests.0.digest":           base64Text(derive(t, want, salt, 32)),
			})
			key := unlock(t, mustRead(t, d), "passphrase for "+f[0], 0)
			if got := key.Bytes().Bytes(); !bytes.Equal(got, want) {
				t.Errorf("volume key %x, want %x", got, want)
			}
			replaced(t, d, key)
		})
	}
	if rows < 13 {
		t.Errorf("only %d vectors", rows)
	}
}

// replaced gives slot 0 another passphrase. Whatever its area was encrypted with,
// the new one has the cipher that we write, and another sum.
func replaced(t *testing.T, d *disk, key *luks.VolumeKey) {
	t.Helper()
	h := mustRead(t, d)
	was, err := h.KeyslotSum(0)
	if err != nil {
		t.Fatal(err)
	}
	h, err = h.Commit(luks.ReplaceKeyslot(0, seal(t, key, "another"), nil))
	if err != nil {
		t.Fatal(err)
	}
	k, _ := h.Keyslot(0)
	if k.Area.Encryption != "aes-xts-plain64" || k.Area.KeySize != 64 {
		t.Errorf("the new area is encrypted with %s and a key of %d bytes", k.Area.Encryption, k.Area.KeySize)
	}
	if is, err := h.KeyslotSum(0); err != nil || is == was {
		t.Errorf("the sum of the replaced slot is the same (%v)", err)
	}
	if again := unlock(t, h, "another", 0); !again.Bytes().Equal(key.Bytes()) {
		t.Error("the replaced slot gives another volume key")
	}
}

// decryptXTS is IEEE 1619 XTS-AES, section 5.4, on sectors of 512 bytes counted
// from 0: written from the text of the standard for this test.
func decryptXTS(t *testing.T, key, data []byte) []byte {
	t.Helper()
	first, err1 := aes.NewCipher(key[:len(key)/2])
	second, err2 := aes.NewCipher(key[len(key)/2:])
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	out := bytes.Clone(data)
	for sector := 0; sector < len(out)/512; sector++ {
		tweak := make([]byte, 16)
		binary.LittleEndian.PutUint64(tweak, uint64(sector))
		second.Encrypt(tweak, tweak)
		for i := 0; i < 512; i += 16 {
			block := out[512*sector+i:][:16]
			xorInto(block, tweak)
			first.Decrypt(block, block)
			xorInto(block, tweak)
			carry := byte(0)
			for j, b := range tweak { // multiply by x in GF(2^128)
				tweak[j], carry = b<<1|carry, b>>7
			}
			tweak[0] ^= carry * 0x87
		}
	}
	return out
}

func xorInto(dst, src []byte) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// merge is AFmerge of the LUKS1 On-Disk Format Specification 1.1.1, section 2.4,
// with SHA-256.
func merge(material []byte, size int) []byte {
	d := make([]byte, size)
	for stripe := range 4000 {
		xorInto(d, material[stripe*size:][:size])
		if stripe == 3999 {
			break
		}
		var diffused []byte
		for i := 0; i*32 < size; i++ {
			h := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(i)), d[i*32:min(i*32+32, size)]...))
			diffused = append(diffused, h[:]...)
		}
		d = diffused[:size]
	}
	return d
}

// TestAreaByReference opens what the engine sealed with an implementation of the
// test's own.
func TestAreaByReference(t *testing.T) {
	for _, size := range []int{32, 64} {
		t.Run(fmt.Sprint(size, " bytes"), func(t *testing.T) {
			d, key := newDisk(deviceSize), luks.NewVolumeKey(size)
			defer key.Wipe()
			want := bytes.Clone(key.Bytes().Bytes())
			h, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset},
				luks.AddKeyslot(0, seal(t, key, "word"), nil), luks.AddKeyslot(1, seal(t, key, "word"), nil))
			if err != nil {
				t.Fatal(err)
			}
			var seen [][]byte
			for _, k := range h.Keyslots() {
				area := d.data[k.Area.Offset:][:4000*size]
				material := decryptXTS(t, derive(t, []byte("word"), k.KDF.Salt, 64), area)
				if got := merge(material, size); !bytes.Equal(got, want) {
					t.Errorf("slot %d holds %x, want %x", k.ID, got, want)
				}
				if end := k.Area.Offset + k.Area.Size; bytes.ContainsFunc(d.data[k.Area.Offset+int64(len(area)):end], func(r rune) bool { return r != 0 }) {
					t.Errorf("slot %d: the area does not end in zeros", k.ID)
				}
				seen = append(seen, material[:size])
			}
			if bytes.Equal(seen[0], seen[1]) {
				t.Error("two slots share a stripe: it is not random")
			}
			// And one bit off anywhere loses the key.
			k, _ := h.Keyslot(0)
			for _, at := range []int64{0, 1999 * int64(size), 4000*int64(size) - 1} {
				c := d.clone()
				c.data[k.Area.Offset+at] ^= 1
				if got := opens(t, mustRead(t, c), "word"); got != "word:1" {
					t.Errorf("a bit at %d is off: opens %q", at, got)
				}
			}
		})
	}
}
