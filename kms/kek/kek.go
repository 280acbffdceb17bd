// Package kek is the key-encryption key: what wraps the node keys before they are
// stored.
//
//	Keyset   a local file: Tink keys, encrypted under a passphrase or a key file
//	Transit  the transit engine of Vault or OpenBao; the key never leaves it
//
//	             ┌───────────── keyset file, one JSON object ──────────────┐
//	passphrase ──│ kdf + salt ──> master key ──AES-256-GCM──> Tink keyset  │──> wraps node keys
//	or key file  └─────────────────────────────────────────────────────────┘
//
// A wrapped key says which version of the KEK made it. Rotation adds a version
// that wraps from then on; the old ones unwrap until they are destroyed, which is
// to be done when nothing is wrapped by them any more. The associated data, a
// node's name and key version, is authenticated: a wrapped key that is moved to
// another node's record does not unwrap.
//
// What is guaranteed: a keyset file is the old or the new one, whatever happens
// while it is replaced; one that was changed is refused; passphrase, key file and
// token are in no error. A process sees a file that another one replaced at its
// next Wrap or Unwrap, so a destroyed version is not used after that.
//
// What it does not protect: Tink keeps its keys in the Go heap, where they are
// neither locked nor wiped. Old copies of a keyset file still open under the
// passphrase of their time: a version is gone when its copies are. Transit is
// believed: a server that answers with another plaintext is found only because
// blobs then do not open.
package kek

import (
	"context"
	"errors"

	"github.com/cryptctl/cryptctl/secret"
)

// Wrapper encrypts node keys. Both of the package's KEKs are one.
type Wrapper interface {
	// Wrap encrypts key under the newest version, bound to associated.
	Wrap(ctx context.Context, key *secret.Bytes, associated []byte) ([]byte, error)
	// Unwrap gives back what Wrap was given, if associated is the same.
	Unwrap(ctx context.Context, wrapped, associated []byte) (*secret.Bytes, error)
}

// Rotator is a KEK whose versions can be told apart and renewed. Both of the
// package's KEKs are one.
type Rotator interface {
	// Rotate adds a version, which wraps from now on.
	Rotate(ctx context.Context) (version string, err error)
	// Current returns the version that wraps.
	Current(ctx context.Context) (version string, err error)
}

// Errors that a caller tells apart; all others are of the disk or the caller.
var (
	// ErrNotAuthentic: wrapped by another key, for other associated data, or
	// changed. Which of them cannot be known.
	ErrNotAuthentic = errors.New("wrapped key does not open: other key-encryption key, other node, or damaged")
	// ErrVersion: the version that wrapped it is destroyed or never was here.
	ErrVersion = errors.New("this version of the key-encryption key is not available")
	// ErrSealed: Transit's server is up and sealed or not initialized.
	ErrSealed = errors.New("the Transit server is sealed")
	// ErrDown: Transit does not answer, or not now. Trying again may help.
	ErrDown = errors.New("the Transit server cannot be reached or is not ready")
	// ErrUntrusted: what answers in Transit's place has no certificate that we trust.
	ErrUntrusted = errors.New("the Transit server's certificate is not trusted; check the CA file, the address and the clock")
	// ErrDenied: Transit refuses our token, or its policy the key.
	ErrDenied = errors.New("the Transit server denies access")
)

// The bounds of what comes from a store or a network.
const (
	maxKey     = 4 << 10
	maxWrapped = 16 << 10
)

// Version says which version of the KEK wrapped a key, in the words of Current.
// It is read off the bytes and proves nothing; "" if they are of neither KEK.
func Version(wrapped []byte) string {
	if v := transitVersion(wrapped); v != "" {
		return v
	}
	return keysetVersion(wrapped)
}
