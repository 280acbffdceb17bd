// Package blob is the format of what the key server hands to a node: data that
// only this server opens, and only for this node.
//
//	offset  size  content
//	0       4     "ckms"
//	4       1     version of the format: 1
//	5       4     version of the node's key, big endian, from 1
//	9       12    nonce, random
//	21      n     data, encrypted; 1 to 4096 bytes
//	21+n    16    tag
//
//	AES-256-GCM; associated data = bytes 0 to 8 | node UUID, 36 characters, lower case
//
// What is guaranteed: a blob opens with the key it was made with, for the node it
// was made for, unchanged; anything else is [ErrNotAuthentic]. The nonce is random,
// which is safe for 2^32 blobs of one node key (NIST SP 800-38D, 8.3).
//
// The reference server's blobs, which [Reference] opens, are older and weaker:
//
//	0 nonce 12 | 12 data 32, encrypted | 44 tag 16        no associated data: of no node
//
// What it does not protect: the length of the data shows, and so does which key
// version was used. A blob that was replayed is opened again; that a node may not
// is the policy's to say.
package blob

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cryptctl/cryptctl/secret"
)

const (
	// MaxData is the most that one blob carries, in bytes.
	MaxData = 4096
	// KeySize is the length of a node key in bytes.
	KeySize = 32
	// Overhead is how much longer a blob is than its data.
	Overhead = headerSize + nonceSize + tagSize

	magic      = "ckms"
	format     = 1
	headerSize = len(magic) + 1 + 4
	nonceSize  = 12
	tagSize    = 16
)

var (
	// ErrMalformed is wrapped by errors about bytes that are no blob at all.
	ErrMalformed = errors.New("not a sealed blob")
	// ErrNotAuthentic is wrapped when a blob was made with another key, for
	// another node, or was changed. Which of them cannot be known.
	ErrNotAuthentic = errors.New("does not open: made for another node, with another key, or damaged")
)

// Blob is one that was parsed, not opened: nothing in it is proven.
type Blob struct {
	KeyVersion uint32 // version of the node's key
	raw        []byte
}

// Seal returns data as a blob of a node, under version keyVersion of its key.
func Seal(key *secret.Bytes, keyVersion uint32, node Node, data *secret.Bytes) ([]byte, error) {
	if err := checkData(data.Len()); err != nil {
		return nil, err
	}
	if keyVersion == 0 {
		return nil, errors.New("seal: key version 0; versions begin at 1")
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	out := make([]byte, headerSize+nonceSize, data.Len()+Overhead)
	copy(out, magic)
	out[len(magic)] = format
	binary.BigEndian.PutUint32(out[len(magic)+1:], keyVersion)
	rand.Read(out[headerSize:])
	return aead.Seal(out, out[headerSize:], data.Bytes(), associated(out, node)), nil
}

// Parse reads what can be read without a key. The blob refers to raw.
func Parse(raw []byte) (Blob, error) {
	n := len(raw) - Overhead
	switch {
	case n < 1:
		return Blob{}, fmt.Errorf("%w: %d bytes, the shortest has %d", ErrMalformed, len(raw), Overhead+1)
	case n > MaxData:
		return Blob{}, fmt.Errorf("%w: %d bytes, the longest has %d", ErrMalformed, len(raw), Overhead+MaxData)
	case string(raw[:len(magic)]) != magic:
		return Blob{}, fmt.Errorf("%w: it does not begin with %q", ErrMalformed, magic)
	case raw[len(magic)] != format:
		return Blob{}, fmt.Errorf("%w: version %d of the format, known is %d; it needs a newer server", ErrMalformed, raw[len(magic)], format)
	}
	version := binary.BigEndian.Uint32(raw[len(magic)+1:])
	if version == 0 {
		return Blob{}, fmt.Errorf("%w: key version 0", ErrMalformed)
	}
	return Blob{KeyVersion: version, raw: raw}, nil
}

// Size returns the length of the data.
func (b Blob) Size() int { return max(0, len(b.raw)-Overhead) }

// Open returns the data, if key and node are those it was sealed with.
func (b Blob) Open(key *secret.Bytes, node Node) (*secret.Bytes, error) {
	out := secret.New(b.Size())
	if err := b.OpenInto(out, key, node); err != nil {
		out.Wipe()
		return nil, err
	}
	return out, nil
}

// OpenInto is Open into memory that is there, of the data's length. After an
// error it holds zeros.
func (b Blob) OpenInto(out, key *secret.Bytes, node Node) error {
	switch {
	case b.raw == nil:
		return ErrMalformed
	case out.Len() != b.Size():
		return fmt.Errorf("room for %d bytes; the blob holds %d", out.Len(), b.Size())
	}
	aead, err := gcm(key)
	if err != nil {
		return err
	}
	nonce, sealed := b.raw[headerSize:headerSize+nonceSize], b.raw[headerSize+nonceSize:]
	if _, err := aead.Open(out.Bytes()[:0], nonce, sealed, associated(b.raw, node)); err != nil {
		clear(out.Bytes())
		return ErrNotAuthentic
	}
	return nil
}

// associated is what a blob is bound to. All of the header takes part, so that
// a changed version is found before it can choose another key.
func associated(raw []byte, node Node) []byte {
	out := make([]byte, 0, headerSize+len(node))
	out = append(out, raw[:headerSize]...)
	return append(out, node...)
}

func checkData(n int) error {
	if n < 1 || n > MaxData {
		return fmt.Errorf("%w: %d bytes of data; 1 to %d can be sealed", ErrMalformed, n, MaxData)
	}
	return nil
}

func gcm(key *secret.Bytes) (cipher.AEAD, error) {
	if key.Len() != KeySize {
		return nil, fmt.Errorf("a node key of %d bytes; it must have %d", key.Len(), KeySize)
	}
	block, err := aes.NewCipher(key.Bytes())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
