package blob

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"github.com/cryptctl/cryptctl/secret"
)

// ReferenceSize is the length of every blob of the reference server.
const ReferenceSize = nonceSize + referenceData + tagSize

const referenceData = 32 // what Talos seals, and all that the server takes

// Reference opens blobs of the Sidero reference server (cmd/kms-server of
// github.com/siderolabs/kms-client). They are bound to no node: whoever has one
// gets its data, so an importer must remember who brought it first.
type Reference struct{ key *secret.Bytes }

// NewReference takes that server's key, which is its key file as it is: 16, 24 or
// 32 bytes. The key belongs to the Reference from now on.
func NewReference(key *secret.Bytes) (*Reference, error) {
	switch key.Len() {
	case 16, 24, 32:
		return &Reference{key}, nil
	}
	return nil, fmt.Errorf("reference server key: %d bytes; its file has exactly 16, 24 or 32, without a line end", key.Len())
}

// Open returns the data of a blob.
func (r *Reference) Open(raw []byte) (*secret.Bytes, error) {
	if len(raw) != ReferenceSize {
		return nil, fmt.Errorf("%w of the reference server: %d bytes, it has %d", ErrMalformed, len(raw), ReferenceSize)
	}
	block, err := aes.NewCipher(r.key.Bytes())
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	out := secret.New(referenceData)
	if _, err := aead.Open(out.Bytes()[:0], raw[:nonceSize], raw[nonceSize:], nil); err != nil {
		out.Wipe()
		return nil, ErrNotAuthentic
	}
	return out, nil
}

// Wipe forgets the key; nothing opens afterwards.
func (r *Reference) Wipe() {
	if r != nil {
		r.key.Wipe()
	}
}
