// Package pcr holds what everything that computes with platform configuration
// registers (PCRs) shares: the banks and their names, the extend operation, the
// words that systemd and Talos extend into PCR 11, and the policy digest that
// stands for given values. It talks to no TPM.
//
// Sources: TPM 2.0 Library Part 1 (17, "PCR Operations") and Part 3 (23.7,
// "TPM2_PolicyPCR"), TCG Algorithm Registry.
package pcr

import (
	"crypto"
	_ "crypto/sha1" // the hashes of the banks
	_ "crypto/sha256"
	_ "crypto/sha512"
	"fmt"
	"hash"
)

// Count is how many PCRs a PC's TPM has: 0 to 23.
const Count = 24

// Bank is the hash algorithm of a set of PCRs, as a TPM_ALG_ID.
type Bank uint16

// Banks that TPMs of PCs have.
const (
	SHA1   Bank = 0x0004
	SHA256 Bank = 0x000b
	SHA384 Bank = 0x000c
	SHA512 Bank = 0x000d
)

// Banks returns the banks that this package computes with, weakest first.
func Banks() []Bank { return []Bank{SHA1, SHA256, SHA384, SHA512} }

// BankByName returns the bank that systemd, Talos and tpm2-tools call name:
// "sha1", "sha256", "sha384" or "sha512".
func BankByName(name string) (Bank, error) {
	for _, b := range Banks() {
		if b.String() == name {
			return b, nil
		}
	}
	return 0, fmt.Errorf("there is no PCR bank %q: it is one of sha1, sha256, sha384 and sha512", name)
}

// String returns the name of a bank, or its number if this package does not
// compute with it.
func (b Bank) String() string {
	switch b {
	case SHA1:
		return "sha1"
	case SHA256:
		return "sha256"
	case SHA384:
		return "sha384"
	case SHA512:
		return "sha512"
	}
	return fmt.Sprintf("algorithm %#04x", uint16(b))
}

// Hash returns the hash of a bank, 0 if this package does not compute with it.
func (b Bank) Hash() crypto.Hash {
	switch b {
	case SHA1:
		return crypto.SHA1
	case SHA256:
		return crypto.SHA256
	case SHA384:
		return crypto.SHA384
	case SHA512:
		return crypto.SHA512
	}
	return 0
}

// Known says whether this package computes with a bank.
func (b Bank) Known() bool { return b.Hash() != 0 }

// New returns a hash of a known bank.
func (b Bank) New() hash.Hash { return b.Hash().New() }

// Size returns the length of a known bank's digests, 0 for another.
func (b Bank) Size() int {
	if h := b.Hash(); h != 0 {
		return h.Size()
	}
	return 0
}

// Sum returns the digest of data in a known bank.
func (b Bank) Sum(data []byte) []byte {
	h := b.New()
	h.Write(data)
	return h.Sum(nil)
}

// Initial returns what a PCR of a known bank holds after a reset: ones in 17 to
// 22, zeros in all others. Only PCR 0 may differ: a start of the TPM at another
// locality is written in its last byte.
func (b Bank) Initial(index int) []byte {
	value := make([]byte, b.Size())
	if index >= 17 && index <= 22 {
		for i := range value {
			value[i] = 0xff
		}
	}
	return value
}

// Extend returns H(value | digest), which is what becomes of a PCR of a known
// bank. Both must have the bank's length.
func (b Bank) Extend(value, digest []byte) []byte {
	h := b.New()
	h.Write(value)
	h.Write(digest)
	return h.Sum(nil)
}

// ExtendWords extends the digests of words, without a NUL, as systemd-pcrphase
// does.
func (b Bank) ExtendWords(value []byte, words ...string) []byte {
	for _, word := range words {
		value = b.Extend(value, b.Sum([]byte(word)))
	}
	return value
}
