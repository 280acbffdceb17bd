package pcrsig

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Limits of keys: TPMs load RSA keys of 2048 bits, some 3072, few 4096.
const (
	MinKeyBits = 2048
	MaxKeyBits = 4096
	maxKey     = 64 << 10
)

// CheckKey says why a TPM could not load a key, or nil.
func CheckKey(key *rsa.PublicKey) error {
	if bits := key.N.BitLen(); bits < MinKeyBits || bits > MaxKeyBits || bits%8 != 0 {
		return fmt.Errorf("the RSA key has %d bits, wanted are %d to %d in whole bytes", bits, MinKeyBits, MaxKeyBits)
	}
	return nil
}

// Fingerprint returns what names a key in Signatures: SHA-256 of its PKCS #1 DER
// form.
func Fingerprint(key *rsa.PublicKey) []byte {
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(key))
	return sum[:]
}

// ParsePublicKey reads a public RSA key from PEM, as .pcrpkey holds it.
func ParsePublicKey(text []byte) (*rsa.PublicKey, error) {
	if len(text) > maxKey {
		return nil, fmt.Errorf("a public key of more than %d bytes", maxKey)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, errors.New("it is not a public key in PEM form (BEGIN PUBLIC KEY)")
	}
	return ParseDER(block.Bytes)
}

// ParseDER reads a public RSA key in the form of PKIX.
func ParseDER(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("the public key: %w", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("the public key is not an RSA key")
	}
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	return key, nil
}
