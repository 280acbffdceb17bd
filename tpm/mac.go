package tpm

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"

	"github.com/cryptctl/cryptctl/secret"
)

// mac is HMAC-SHA256 (RFC 2104) that leaves nothing of its key behind: package
// crypto/hmac keeps the key, padded, in places that nobody can wipe.
type mac struct {
	inner, outer [sha256.BlockSize]byte // the padded key
	middle       [sha256.Size]byte
	hash         hash.Hash
}

// newMAC takes a key, which it does not keep; wipe ends the use.
func newMAC(key []byte) *mac {
	m := &mac{hash: sha256.New()}
	if len(key) > len(m.inner) {
		m.hash.Write(key)
		m.hash.Sum(m.inner[:0])
	} else {
		copy(m.inner[:], key)
	}
	for i, b := range m.inner {
		m.inner[i], m.outer[i] = b^0x36, b^0x5c
	}
	return m
}

// sum writes the MAC of the parts to out, which may be one of them.
func (m *mac) sum(out *[sha256.Size]byte, parts ...[]byte) {
	m.hash.Reset()
	m.hash.Write(m.inner[:])
	for _, p := range parts {
		m.hash.Write(p)
	}
	m.hash.Sum(m.middle[:0])
	m.hash.Reset()
	m.hash.Write(m.outer[:])
	m.hash.Write(m.middle[:])
	m.hash.Sum(out[:0])
}

func (m *mac) wipe() {
	clear(m.inner[:])
	clear(m.outer[:])
	clear(m.middle[:])
	forget(m.hash)
}

// forget has a hash overwrite what it buffers, wherever in its block that is.
func forget(h hash.Hash) {
	for range h.BlockSize() {
		h.Write([]byte{0})
	}
	h.Reset()
}

// sumSecret is [sha256.Sum256] of what must not stay in the buffer of a hash.
func sumSecret(s *secret.Bytes) (sum [sha256.Size]byte) {
	h := sha256.New()
	defer forget(h)
	h.Write(s.Bytes())
	h.Sum(sum[:0])
	return sum
}

// kdfa derives size bytes from a key (TPM 2.0 Part 1, 9.4.10.2: KDFa, SP800-108 in
// counter mode).
func kdfa(key []byte, label string, contextU, contextV []byte, size int) []byte {
	m := newMAC(key)
	defer m.wipe()
	var block [sha256.Size]byte
	defer clear(block[:])
	out := make([]byte, 0, size+sha256.Size) // so that it is not moved, and left behind
	bits := binary.BigEndian.AppendUint32(nil, uint32(8*size))
	for i := uint32(1); len(out) < size; i++ {
		m.sum(&block, binary.BigEndian.AppendUint32(nil, i), append([]byte(label), 0), contextU, contextV, bits)
		out = append(out, block[:]...)
	}
	clear(out[size:])
	return out[:size]
}

// pbkdf2 stretches a secret to 32 bytes (RFC 8018, 5.2, with HMAC-SHA256: one block).
func pbkdf2(s *secret.Bytes, salt []byte, iterations int) *secret.Bytes {
	m := newMAC(s.Bytes())
	defer m.wipe()
	var u [sha256.Size]byte
	defer clear(u[:])
	out := secret.New(sha256.Size)
	m.sum(&u, salt, []byte{0, 0, 0, 1})
	copy(out.Bytes(), u[:])
	for range iterations - 1 {
		m.sum(&u, u[:])
		for i, b := range u {
			out.Bytes()[i] ^= b
		}
	}
	return out
}
