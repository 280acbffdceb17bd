package tpm

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	reference "crypto/pbkdf2"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/secret"
)

// TestMAC holds ours against those of the Go library and of go-tpm: keys around
// the length of a block, messages in several parts, and the MAC in the place of a
// part.
func TestMAC(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, 31, 32, 63, 64, 65, 128, 200} {
		key := secret.Random(size).Bytes()
		want := hmac.New(sha256.New, key)
		m := newMAC(key)
		for _, parts := range [][]string{nil, {""}, {"a", "", "bc"}, {string(key), string(make([]byte, 100))}} {
			want.Reset()
			var all [][]byte
			for _, p := range parts {
				all = append(all, []byte(p))
				want.Write([]byte(p))
			}
			var got [sha256.Size]byte
			m.sum(&got, all...)
			if !bytes.Equal(got[:], want.Sum(nil)) {
				t.Errorf("a key of %d bytes, %d parts: another MAC than that of crypto/hmac", size, len(parts))
			}
			want.Reset()
			want.Write(got[:])
			m.sum(&got, got[:])
			if !bytes.Equal(got[:], want.Sum(nil)) {
				t.Errorf("a key of %d bytes: the MAC of a MAC in its place is another", size)
			}
		}
		m.wipe()
		for _, b := range [][]byte{m.inner[:], m.outer[:], m.middle[:]} {
			if bytes.Count(b, []byte{0}) != len(b) {
				t.Errorf("a key of %d bytes: it is still there after the wipe", size)
			}
		}
	}
}

func TestKDFa(t *testing.T) {
	t.Parallel()
	for _, size := range []int{16, 32, 33, 64, 100} {
		key, u, v := secret.Random(size).Bytes(), secret.Random(16).Bytes(), secret.Random(32).Bytes()
		if got, want := kdfa(key, "CFB", u, v, size), tpm2.KDFa(crypto.SHA256, key, "CFB", u, v, 8*size); !bytes.Equal(got, want) {
			t.Errorf("%d bytes: %x, want %x", size, got, want)
		}
	}
}

func TestPBKDF2(t *testing.T) {
	t.Parallel()
	for _, size := range []int{8, 64, 65, 130} {
		word, salt := secret.Random(size), secret.Random(32).Bytes()
		for _, iterations := range []int{1, 2, 1000} {
			want, err := reference.Key(sha256.New, string(word.Bytes()), salt, iterations, sha256.Size)
			if err != nil {
				t.Fatal(err)
			}
			if got := pbkdf2(word, salt, iterations); !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%d bytes, %d iterations: another key than that of crypto/pbkdf2", size, iterations)
			}
		}
	}
}
