package tpm

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
)

// An envelope carries the passphrase under the sealed key:
//
//	nonce, 12 bytes | AES-256-GCM( length of the passphrase, 1 byte | passphrase | identity ) | tag, 16 bytes
//
// Its key is HKDF-SHA256 over the sealed key and the PIN's half of a stretched
// PIN, if there is one.
const (
	maxIdentity  = 64
	envelopeInfo = "cryptctl-tpm2 envelope v1"
)

// Opened is what an envelope holds.
type Opened struct {
	Passphrase *secret.Bytes
	// Identity of the volume that the passphrase is for, as it was given when the
	// key was sealed; "" when none was.
	Identity string
}

func envelopeCipher(kek, pin *secret.Bytes) (cipher.AEAD, error) {
	all := secret.Concat(kek, pin)
	defer all.Wipe()
	prk := extract(all)
	defer clear(prk)
	key, err := hkdf.Expand(sha256.New, prk, envelopeInfo, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// extract is the first half of HKDF without a salt (RFC 5869, 2.2), as
// [hkdf.Extract] does it, which leaves the secret behind in the buffer of a hash.
func extract(s *secret.Bytes) []byte {
	m := hmac.New(sha256.New, make([]byte, sha256.Size))
	m.Write(s.Bytes())
	prk := m.Sum(nil)
	m.Write(make([]byte, sha256.BlockSize)) // in its place
	return prk
}

// bound is the associated data: what an envelope may be used for.
func bound(req keys.Request, digest []byte) []byte {
	return fmt.Appendf(nil, "%s %q %q %d %x", envelopeInfo, req.UUID, req.Volume, req.Slot, digest)
}

func closeEnvelope(kek, pin *secret.Bytes, ad []byte, o Opened) ([]byte, error) {
	if len(o.Identity) > maxIdentity {
		return nil, fail(Refused, nil, "an identity of %d bytes; at most %d are possible", len(o.Identity), maxIdentity)
	}
	aead, err := envelopeCipher(kek, pin)
	if err != nil {
		return nil, err
	}
	text := make([]byte, 0, 1+o.Passphrase.Len()+len(o.Identity)) // so that it is not moved, and left behind
	text = append(append(append(text, byte(o.Passphrase.Len())), o.Passphrase.Bytes()...), o.Identity...)
	defer clear(text)
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(text)+aead.Overhead())
	rand.Read(nonce) // never fails
	return aead.Seal(nonce, nonce, text, ad), nil
}

func openEnvelope(kek, pin *secret.Bytes, ad, envelope []byte) (Opened, error) {
	aead, err := envelopeCipher(kek, pin)
	if err != nil {
		return Opened{}, err
	}
	if len(envelope) < aead.NonceSize()+aead.Overhead()+1 {
		return Opened{}, fail(Damaged, nil, "an envelope of %d bytes", len(envelope))
	}
	text, err := aead.Open(nil, envelope[:aead.NonceSize()], envelope[aead.NonceSize():], ad)
	if err != nil {
		return Opened{}, fail(OtherSlot, nil, "the token was made for another slot, volume or policy, or was changed since")
	}
	defer clear(text)
	n := int(text[0])
	if n == 0 || n > len(text)-1 {
		return Opened{}, fail(Damaged, nil, "a passphrase of %d bytes in an envelope of %d", n, len(text))
	}
	return Opened{Passphrase: secret.Copy(text[1 : 1+n]), Identity: string(text[1+n:])}, nil
}
