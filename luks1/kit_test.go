package luks1_test

import (
	"bytes"
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"golang.org/x/crypto/xts"

	"github.com/cryptctl/cryptctl/secret"
)

// Where things stand in a header; the specification's table, section 2.1.
const (
	atVersion, atCipher, atMode, atHash   = 6, 8, 40, 72
	atPayload, atKeyBytes, atDigest       = 104, 108, 112
	atDigestSalt, atDigestCount, atUUID   = 132, 164, 168
	atSlots, slotBytes                    = 208, 48
	inIterations, inSalt, inOffset, inLen = 4, 8, 40, 44

	enabled, disabled = 0x00AC71F3, 0x0000DEAD
	headerBytes       = 592
	uuid              = "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"
)

// disk is a device in memory that fails on writes.
type disk struct {
	t    testing.TB
	data []byte
	size int64 // of the device; what is beyond the data is zeros
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if off >= d.size {
		return 0, io.EOF
	}
	clear(p)
	if off < int64(len(d.data)) {
		copy(p, d.data[off:])
	}
	if rest := d.size - off; rest < int64(len(p)) {
		return int(rest), io.EOF
	}
	return len(p), nil
}

func (d *disk) WriteAt([]byte, int64) (int, error) {
	d.t.Error("written")
	return 0, errors.ErrUnsupported
}

func (d *disk) Sync() error { d.t.Error("synced"); return errors.ErrUnsupported }
func (d *disk) Size() int64 { return d.size }

// with returns a copy of the disk with numbers put in, most significant byte
// first.
func (d *disk) with(numbers map[int]uint32) *disk {
	c := &disk{d.t, bytes.Clone(d.data), d.size}
	for at, n := range numbers {
		binary.BigEndian.PutUint32(c.data[at:], n)
	}
	return c
}

// text returns a copy of the disk with text put into a field of n bytes.
func (d *disk) text(at, n int, text string) *disk {
	c := d.with(nil)
	clear(c.data[at:][:n])
	copy(c.data[at:], text)
	return c
}

// iterations of the slots; the digest has 1.
const iterations = 1000

// layout says where the material of slots lies, in sectors, on a volume with
// keys of size bytes; of the eight slots the first and third are in use.
func layout(size int) (first, third, payload uint32) {
	area := uint32(size * 4000 / 512)
	return 8, 8 + area + 8, 8 + area + 8 + area + 8
}

// newVolume makes a volume by the text of the specification: aes-xts-plain64,
// SHA-256, the slots 0 and 2, which open with "zero" and "two".
func newVolume(t testing.TB, size int) (d *disk, key []byte) {
	t.Helper()
	first, third, payload := layout(size)
	key = bytes.Repeat([]byte("volume key "), 6)[:size]
	d = &disk{t: t, data: make([]byte, int64(payload)*512), size: int64(payload)*512 + 1<<20}
	copy(d.data, "LUKS\xba\xbe\x00\x01")
	copy(d.data[atCipher:], "aes")
	copy(d.data[atMode:], "xts-plain64")
	copy(d.data[atHash:], "sha256")
	copy(d.data[atUUID:], uuid)
	copy(d.data[atDigestSalt:], bytes.Repeat([]byte("d"), 32))
	copy(d.data[atDigest:], stretch(t, key, d.data[atDigestSalt:][:32], 1, 20))
	numbers := map[int]uint32{atPayload: payload, atKeyBytes: uint32(size), atDigestCount: 1}
	for id := range 8 {
		at := atSlots + id*slotBytes
		numbers[at], numbers[at+inOffset], numbers[at+inLen] = disabled, first, 4000
		slot := map[int]struct {
			word   string
			offset uint32
		}{0: {"zero", first}, 2: {"two", third}}[id]
		if slot.word == "" {
			continue
		}
		salt := d.data[at+inSalt:][:32]
		copy(salt, slot.word+" has this salt")
		numbers[at], numbers[at+inIterations], numbers[at+inOffset] = enabled, iterations, slot.offset
		material := d.data[int64(slot.offset)*512:][:size*4000]
		split(material, key)
		encrypt(t, material, stretch(t, []byte(slot.word), salt, iterations, size))
	}
	return d.with(numbers), key
}

func stretch(t testing.TB, word, salt []byte, iterations, size int) []byte {
	t.Helper()
	out, err := pbkdf2.Key(sha256.New, string(word), salt, iterations, size)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// split is AFsplit of section 2.4, with stripes that are not random.
func split(material, key []byte) {
	n, d := len(key), make([]byte, len(key))
	for stripe := range 3999 {
		block := material[stripe*n:][:n]
		for i := range block {
			block[i] = byte(stripe*7 + i)
			d[i] ^= block[i]
		}
		var diffused []byte
		for i := 0; i*32 < n; i++ {
			h := sha256.Sum256(append(binary.BigEndian.AppendUint32(nil, uint32(i)), d[i*32:min(i*32+32, n)]...))
			diffused = append(diffused, h[:]...)
		}
		d = diffused[:n]
	}
	for i := range d {
		material[3999*n+i] = key[i] ^ d[i]
	}
}

func encrypt(t testing.TB, material, key []byte) {
	t.Helper()
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(material); i += 512 {
		c.Encrypt(material[i:][:512], material[i:][:512], uint64(i/512))
	}
}

func phrase(s string) *secret.Bytes { return secret.Copy([]byte(s)) }
