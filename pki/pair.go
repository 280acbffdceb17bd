package pki

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/cryptctl/cryptctl/secret"
)

// maxFile bounds a file of certificates or a key in bytes: a bundle of all the
// authorities that browsers trust has 220 KiB.
const maxFile = 1 << 20

// Pair is a certificate and its private key, both as PEM.
type Pair struct {
	Cert []byte
	Key  *secret.Bytes
}

func encode(der []byte, private ed25519.PrivateKey) (Pair, error) {
	defer clear(private)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Pair{}, err
	}
	defer clear(pkcs8)
	return Pair{
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		secret.Take(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}, nil
}

// Wipe wipes the private key.
func (p Pair) Wipe() { p.Key.Wipe() }

// TLS returns the pair for crypto/tls, which keeps a copy of the key.
func (p Pair) TLS() (tls.Certificate, error) {
	pair, err := tls.X509KeyPair(p.Cert, p.Key.Bytes())
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("the certificate and its key: %w", err)
	}
	return pair, nil
}

func (p Pair) parse() (*x509.Certificate, crypto.Signer, error) {
	pair, err := p.TLS()
	if err != nil {
		return nil, nil, err
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, errors.New("the private key cannot sign")
	}
	return pair.Leaf, signer, nil
}

// ReadPair reads a certificate and its key from two files.
func ReadPair(certPath, keyPath string) (Pair, error) {
	cert, err := read(certPath)
	if err != nil {
		return Pair{}, err
	}
	f, err := os.Open(keyPath)
	if err != nil {
		return Pair{}, err
	}
	defer f.Close()
	key, err := secret.Read(f, maxFile)
	if err != nil {
		return Pair{}, fmt.Errorf("%s: %w", keyPath, err)
	}
	return Pair{cert, key}, nil
}

// ReadAuthority reads an authority from two files.
func ReadAuthority(certPath, keyPath string) (*Authority, error) {
	p, err := ReadPair(certPath, keyPath)
	if err != nil {
		return nil, err
	}
	defer p.Wipe()
	a, err := ParseAuthority(p)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", certPath, keyPath, err)
	}
	return a, nil
}

// ParsePool reads a bundle of authorities' certificates. One that cannot be read
// makes the bundle unusable: half of a trust store is a surprise.
func ParsePool(bundle []byte) (*x509.CertPool, error) {
	pool, n := x509.NewCertPool(), 0
	for rest := bundle; ; n++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %d is a %q, not a CERTIFICATE", n+1, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		pool.AddCert(cert)
	}
	// The decoder passes over what is damaged.
	switch began := bytes.Count(bundle, []byte("-----BEGIN ")); {
	case began == 0:
		return nil, errors.New("holds no certificate in PEM form")
	case began != n:
		return nil, fmt.Errorf("only %d of %d certificates can be read; the others are cut off or damaged", n, began)
	}
	return pool, nil
}

// read reads a whole file within the limit.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}
