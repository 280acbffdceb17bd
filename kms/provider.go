package kms

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/secret"
)

// keySize is the length of what is sealed, in bytes: Talos' PassphraseSize.
const keySize = 32

// maxUUID bounds the node's name in bytes; META may override it with any text.
const maxUUID = 256

// Options are what a provider is made from. What is for TLS is used for the
// endpoints that have it.
type Options struct {
	// Endpoints are key servers that share their keys, in the order in which they
	// are tried; see [ParseEndpoint]. At least one.
	Endpoints []string
	// NodeUUID names the node to the server, as SMBIOS gives it, lower case.
	NodeUUID string
	// Authorities are certificates, as PEM, of those who may issue the server's.
	// Default the system's.
	Authorities []byte
	// TrustedRoots are more of them, beside Authorities or the system's.
	TrustedRoots []byte
	// Certificate and Key, as PEM, are what the node shows the server. Default
	// nothing. The key is copied: the caller may wipe it after New.
	Certificate []byte
	Key         *secret.Bytes
	// ServerName is the name that the server's certificate must be for. Default
	// the host of the endpoint.
	ServerName string
	// TLS12 allows servers that have no TLS 1.3.
	TLS12 bool
	// CallTimeout bounds one call to one server. Default 10 s, as in Talos.
	CallTimeout time.Duration
	// Budget bounds all calls for one key together, pauses included, where the
	// context does not end sooner. Default keys.DefaultTimeout.
	Budget time.Duration
}

// Provider is a [keys.Provider] whose passphrases are sealed by a key server. Its
// errors are [*Error].
type Provider struct {
	opts      Options // without Key
	endpoints []Endpoint
	tls       *tls.Config
}

// New returns a provider. It asks no server.
func New(opts Options) (*Provider, error) {
	endpoints, err := parseEndpoints(opts.Endpoints)
	if err != nil {
		return nil, err
	}
	switch n := len(opts.NodeUUID); {
	case n == 0:
		return nil, errors.New("the node has no UUID, which names it to the key server; give one with --node-uuid, or use another kind of key")
	case n > maxUUID || !utf8.ValidString(opts.NodeUUID):
		return nil, fmt.Errorf("the node's UUID must be text of at most %d bytes", maxUUID)
	}
	if opts.needsTLS() && !slices.ContainsFunc(endpoints, Endpoint.secure) {
		return nil, fmt.Errorf("key server %s: authorities, certificates and a server name are for TLS, and grpc:// is plaintext; write https:// or leave them out", endpoints[0])
	}
	config, err := opts.tlsConfig()
	if err != nil {
		return nil, err
	}
	if opts.CallTimeout == 0 {
		opts.CallTimeout = 10 * time.Second
	}
	if opts.Budget == 0 {
		opts.Budget = keys.DefaultTimeout
	}
	opts.Key = nil
	return &Provider{opts, endpoints, config}, nil
}

// Enroll implements [keys.Provider]: it has the server seal 32 random bytes.
func (p *Provider) Enroll(ctx context.Context, _ keys.Request) (*secret.Bytes, json.RawMessage, error) {
	value := secret.Random(keySize)
	defer value.Wipe()
	sealed, err := p.ask(ctx, wire.KMSServiceClient.Seal, value.Bytes(), func(e Endpoint, answer []byte) *Error {
		switch n := len(answer); {
		case n == 0 || n > maxSealed:
			return malformed(e, "sealed a key to %d bytes; 1 to %d are possible", n, maxSealed)
		case bytes.Contains(answer, value.Bytes()):
			return malformed(e, "returned the key itself instead of sealing it; do not use this server")
		}
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	return passphrase(value), encodeToken(sealed), nil
}

// Recover implements [keys.Provider]: it has the server unseal what the token
// holds. Servers may answer with other bytes than were sealed, and say nothing of
// it: whether they open the slot is for the caller to see.
func (p *Provider) Recover(ctx context.Context, _ keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	sealed, err := readToken(token)
	if err != nil {
		return nil, &Error{class: keys.ErrMalformed, text: err.Error()}
	}
	answer, err := p.ask(ctx, wire.KMSServiceClient.Unseal, sealed, func(e Endpoint, answer []byte) *Error {
		if n := len(answer); n != keySize {
			return malformed(e, "unsealed %d bytes, a key has %d; check that it is a key server", n, keySize)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	value := secret.Take(answer)
	defer value.Wipe()
	return passphrase(value), nil
}

// passphrase is what the slot is opened with: the base64 of the key.
func passphrase(value *secret.Bytes) *secret.Bytes {
	out := secret.New(base64.StdEncoding.EncodedLen(value.Len()))
	base64.StdEncoding.Encode(out.Bytes(), value.Bytes())
	return out
}

// Format prints where the provider asks, not what it holds.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "kms.Provider%v", p.endpoints) }
