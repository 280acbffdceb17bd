package kdf

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"fmt"
	"hash"

	"golang.org/x/crypto/blake2b"
	"golang.org/x/crypto/blake2s"
)

// NewHash returns the hash that LUKS2 metadata calls name. Names are those of
// cryptsetup's crypto backends; sha1 is read because old disks use it.
func NewHash(name string) (func() hash.Hash, error) {
	switch name {
	case "sha1":
		return sha1.New, nil
	case "sha224":
		return sha256.New224, nil
	case "sha256":
		return sha256.New, nil
	case "sha384":
		return sha512.New384, nil
	case "sha512":
		return sha512.New, nil
	case "sha3-224":
		return func() hash.Hash { return sha3.New224() }, nil
	case "sha3-256":
		return func() hash.Hash { return sha3.New256() }, nil
	case "sha3-384":
		return func() hash.Hash { return sha3.New384() }, nil
	case "sha3-512":
		return func() hash.Hash { return sha3.New512() }, nil
	case "blake2b-512":
		return unkeyed(blake2b.New512), nil
	case "blake2s-256":
		return unkeyed(blake2s.New256), nil
	}
	return nil, fmt.Errorf("hash %q: %w", name, ErrUnsupported)
}

// unkeyed adapts a hash that can take a key; without one it cannot fail.
func unkeyed(newHash func(key []byte) (hash.Hash, error)) func() hash.Hash {
	return func() hash.Hash {
		h, err := newHash(nil)
		if err != nil {
			panic(err)
		}
		return h
	}
}
