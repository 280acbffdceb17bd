package uki

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cryptctl/cryptctl/tpm/pcrsig"
)

const (
	sureBits   = 2048 // what every TPM loads; some take 3072, few 4096
	maxKeyFile = 64 << 10
)

// Key is a private key that signs policies. Printing it shows its fingerprint.
type Key struct {
	// Warnings are what a user should know of the file or the key.
	Warnings []string

	private *rsa.PrivateKey
}

// ReadKey reads an RSA key from a PEM file, PKCS #1 or PKCS #8, not encrypted.
// Permissions for others than the owner give a warning. An error never shows
// anything of the content.
func ReadKey(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("the policy signing key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("the policy signing key: %w", err)
	}
	text := make([]byte, maxKeyFile+1)
	defer clear(text)
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("the policy signing key: %w", err)
	}
	if n > maxKeyFile {
		return nil, fmt.Errorf("the policy signing key %s has more than %d bytes", path, maxKeyFile)
	}
	k, err := parseKey(text[:n])
	if err != nil {
		return nil, fmt.Errorf("the policy signing key %s: %w", path, err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		k.Warnings = append(k.Warnings, fmt.Sprintf("%s has the permissions %#o: others than its owner may read or change it, use chmod 600", path, mode.Perm()))
	}
	if bits := k.private.N.BitLen(); bits > sureBits {
		k.Warnings = append(k.Warnings, fmt.Sprintf("%s has %d bits: many TPMs load RSA keys of %d bits only", path, bits, sureBits))
	}
	return k, nil
}

func parseKey(text []byte) (*Key, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is not a PEM file")
	}
	defer clear(block.Bytes)
	k := new(Key)
	switch block.Type {
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errEncrypted
		}
		key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("it is no valid PKCS #1 key")
		}
		k.private = key
	case "PRIVATE KEY":
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			return nil, errors.New("it is no valid PKCS #8 key")
		}
		private, ok := key.(*rsa.PrivateKey)
		if !ok {
			return nil, errors.New("it is not an RSA key, and systemd and Talos take no other")
		}
		k.private = private
	case "ENCRYPTED PRIVATE KEY":
		return nil, errEncrypted
	default:
		return nil, fmt.Errorf("it holds a %.40q, not a private RSA key", block.Type)
	}
	if err := pcrsig.CheckKey(k.Public()); err != nil {
		return nil, err
	}
	return k, nil
}

var errEncrypted = errors.New("it is encrypted: decrypt it with \"openssl pkey\", to a place that is not kept")

// String returns the fingerprint.
func (k *Key) String() string { return fmt.Sprintf("RSA key %x", pcrsig.Fingerprint(k.Public())) }

// GoString is String.
func (k *Key) GoString() string { return k.String() }

// Public returns the public half.
func (k *Key) Public() *rsa.PublicKey { return &k.private.PublicKey }

// PublicPEM returns the public half as it belongs in .pcrpkey.
func (k *Key) PublicPEM() ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
