package uki_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/cryptctl/cryptctl/tpm/uki"
)

// part is a section of an image that a test makes. memory is its size there, 0
// for that of its data; address 0 is the next free one.
type part struct {
	name    string
	data    string
	memory  int
	address uint32
}

const magic252 = "#### LoaderInfo: systemd-stub 252.39-1~deb12u2 ####\x00"

// peFile writes an EFI application of 64 bits with these sections, by the PE
// specification and without the package's code.
//
//	0x00 "MZ", at 0x3c the offset of the rest   0x40 "PE\0\0", COFF header of 20 bytes,
//	optional header of 112 bytes, section headers of 40 bytes, then data aligned to 512 bytes
func peFile(parts ...part) []byte {
	le := binary.LittleEndian
	dos := make([]byte, 0x40)
	copy(dos, "MZ")
	dos[0x3c] = 0x40
	b := append(dos, "PE\x00\x00"...)
	b = le.AppendUint16(b, 0x8664)
	b = le.AppendUint16(b, uint16(len(parts)))
	b = append(b, make([]byte, 12)...)
	b = le.AppendUint16(b, 112)
	b = le.AppendUint16(b, 0x22)
	optional := make([]byte, 112)
	le.PutUint16(optional, 0x20b)
	le.PutUint16(optional[68:], 10) // EFI application
	b = append(b, optional...)
	at, address := (len(b)+40*len(parts)+511)&^511, uint32(0x1000)
	var content []byte
	for _, p := range parts {
		if p.memory == 0 {
			p.memory = len(p.data)
		}
		if p.address == 0 {
			p.address = address
		}
		address = (p.address + uint32(p.memory) + 0xfff) &^ 0xfff
		stored := (len(p.data) + 511) &^ 511
		head := make([]byte, 40)
		copy(head[:8], p.name)
		for i, v := range []uint32{uint32(p.memory), p.address, uint32(stored), uint32(at + len(content))} {
			le.PutUint32(head[8+4*i:], v)
		}
		b = append(b, head...)
		content = append(content, p.data...)
		content = append(content, make([]byte, stored-len(p.data))...)
	}
	b = append(b, make([]byte, (len(b)+511)&^511-len(b))...)
	return append(b, content...)
}

func read(t testing.TB, image []byte) *uki.UKI {
	t.Helper()
	u, err := uki.Read(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func sections(t testing.TB, u *uki.UKI, profile int) uki.Sections {
	t.Helper()
	s, err := u.Sections(profile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// files are sections of files with this content, in turn names and contents.
func files(t testing.TB, parts ...part) uki.Sections {
	t.Helper()
	var all uki.Sections
	for _, p := range parts {
		path := filepath.Join(t.TempDir(), "section")
		if err := os.WriteFile(path, []byte(p.data), 0o644); err != nil {
			t.Fatal(err)
		}
		s, err := uki.FileSection(p.name, path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func predict(t testing.TB, s uki.Sections, o uki.Options) *uki.Prediction {
	t.Helper()
	p, err := s.Predict(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rsaKeys are two keys, made once.
var rsaKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

// keyFile writes a key in PKCS #1 form.
func keyFile(t testing.TB, key *rsa.PrivateKey, mode os.FileMode) string {
	t.Helper()
	return pemFile(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), mode)
}

func pemFile(t testing.TB, kind string, der []byte, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func readKey(t testing.TB, key *rsa.PrivateKey) *uki.Key {
	t.Helper()
	k, err := uki.ReadKey(keyFile(t, key, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return k
}
