package kek

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cryptctl/cryptctl/secret"
)

// TransitOptions say where the key is. Address, Key and TokenFile are needed.
type TransitOptions struct {
	Address   string // such as "https://vault.example:8200"; nothing but https
	Mount     string // of the engine; default "transit"
	Namespace string
	Key       string // its name
	// TokenFile holds the token. It is read for each request, so an agent may
	// renew it.
	TokenFile string
	CAFile    string // PEM; default: the system's roots
	// Derived is for keys that were made with derived=true: node and version go
	// into the key's derivation, and Rewrap works without the key leaving the
	// server. Otherwise they are associated data (Vault 1.13, OpenBao).
	Derived bool
	Timeout time.Duration // of one request; default 5 s
}

// Transit is a KEK that Vault or OpenBao keeps. Its methods may be called from
// many goroutines.
type Transit struct {
	o      TransitOptions
	client *http.Client
	base   *url.URL
	bound  atomic.Bool // that the server binds associated data was seen
}

// NewTransit checks the options; it does not connect.
func NewTransit(o TransitOptions) (*Transit, error) {
	if o.Mount == "" {
		o.Mount = "transit"
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	base, err := url.Parse(o.Address)
	switch {
	case err != nil || base.Host == "" || base.Scheme != "https" || base.User != nil: // not quoted: a password may be in it
		return nil, errors.New("transit: the address must look like https://vault.example:8200, https and without a user")
	case o.Key == "" || o.TokenFile == "":
		return nil, errors.New("transit: the name of the key and a token file are needed")
	}
	roots, err := rootsOf(o.CAFile)
	if err != nil {
		return nil, err
	}
	return &Transit{o: o, base: base, client: &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxIdleConnsPerHost: 16,
			IdleConnTimeout:     time.Minute,
			ForceAttemptHTTP2:   true,
		},
		// The token must not follow a redirect to another host.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func rootsOf(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("transit: CA file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("transit: CA file %s: no certificate in it", path)
	}
	return roots, nil
}

// Wrap encrypts a key on the server. Before the first one it is checked, once,
// that the server binds what it encrypts to the associated data: a version that
// does not know the parameter ignores it.
func (t *Transit) Wrap(ctx context.Context, key *secret.Bytes, associated []byte) ([]byte, error) {
	if n := key.Len(); n < 1 || n > maxKey {
		return nil, fmt.Errorf("wrap: a key of %d bytes; 1 to %d", n, maxKey)
	}
	if err := t.Check(ctx); err != nil {
		return nil, err
	}
	return t.wrap(ctx, key, associated)
}

func (t *Transit) wrap(ctx context.Context, key *secret.Bytes, associated []byte) ([]byte, error) {
	a, err := t.post(ctx, "encrypt", t.bind(request{Plaintext: key.Bytes()}, associated))
	if err != nil {
		return nil, err
	}
	wrapped := []byte(a.Ciphertext)
	if transitVersion(wrapped) == "" || len(wrapped) > maxWrapped {
		return nil, t.fault("encrypt", errors.New("the answer holds no ciphertext"))
	}
	return wrapped, nil
}

// Unwrap decrypts a key on the server.
func (t *Transit) Unwrap(ctx context.Context, wrapped, associated []byte) (*secret.Bytes, error) {
	if transitVersion(wrapped) == "" || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("%w: not made by Transit", ErrNotAuthentic)
	}
	a, err := t.post(ctx, "decrypt", t.bind(request{Ciphertext: string(wrapped)}, associated))
	if err != nil {
		return nil, err
	}
	if n := len(a.Plaintext); n < 1 || n > maxKey {
		clear(a.Plaintext)
		return nil, t.fault("decrypt", fmt.Errorf("the answer holds %d bytes of plaintext", n))
	}
	return secret.Take(a.Plaintext), nil
}

// Rewrap renews a wrapped key to the current version without it leaving the
// server. That works for derived keys only: the server's rewrap knows no
// associated data, and ok is false.
func (t *Transit) Rewrap(ctx context.Context, wrapped, associated []byte) (renewed []byte, ok bool, err error) {
	if !t.o.Derived {
		return nil, false, nil
	}
	a, err := t.post(ctx, "rewrap", t.bind(request{Ciphertext: string(wrapped)}, associated))
	if err != nil {
		return nil, true, err
	}
	if renewed = []byte(a.Ciphertext); transitVersion(renewed) == "" || len(renewed) > maxWrapped {
		return nil, true, t.fault("rewrap", errors.New("the answer holds no ciphertext"))
	}
	return renewed, true, nil
}

// Rotate adds a version on the server; the token needs the right to.
func (t *Transit) Rotate(ctx context.Context) (string, error) {
	if _, err := t.call(ctx, http.MethodPost, "keys", "/rotate", request{}); err != nil {
		return "", err
	}
	return t.Current(ctx)
}

// Current asks the server for the newest version; the token needs the right to
// read the key's description.
func (t *Transit) Current(ctx context.Context) (string, error) {
	a, err := t.call(ctx, http.MethodGet, "keys", "", request{})
	if err != nil {
		return "", err
	}
	if a.Latest < 1 {
		return "", t.fault("keys", errors.New("the answer names no latest version"))
	}
	return "v" + strconv.Itoa(a.Latest), nil
}

// Check asks the server to encrypt and decrypt, and to refuse to decrypt for
// another node. Once this went well it answers at once.
func (t *Transit) Check(ctx context.Context) error {
	if t.bound.Load() {
		return nil
	}
	probe := secret.Random(32)
	defer probe.Wipe()
	wrapped, err := t.wrap(ctx, probe, []byte("cryptctl probe: this"))
	if err != nil {
		return err
	}
	got, err := t.Unwrap(ctx, wrapped, []byte("cryptctl probe: this"))
	if err != nil {
		return err
	}
	defer got.Wipe()
	if !got.Equal(probe) {
		return t.fault("decrypt", errors.New("another plaintext came back than was encrypted"))
	}
	other, err := t.Unwrap(ctx, wrapped, []byte("cryptctl probe: other"))
	other.Wipe()
	switch {
	case errors.Is(err, ErrNotAuthentic):
		t.bound.Store(true)
		return nil
	case err != nil:
		return err
	case t.o.Derived:
		return t.fault("decrypt", errors.New("the context is ignored; make the key with derived=true, or do not say that it is derived"))
	}
	return t.fault("decrypt", errors.New("associated data is ignored; use a newer server or a key with derived=true"))
}

// Probe has the server encrypt something: whether it answers, and our token is
// good for that. The first time it does all that Check does.
func (t *Transit) Probe(ctx context.Context) error {
	if !t.bound.Load() {
		return t.Check(ctx)
	}
	probe := secret.Random(32)
	defer probe.Wipe()
	_, err := t.wrap(ctx, probe, []byte("cryptctl probe: this"))
	return err
}

func (t *Transit) bind(r request, associated []byte) request {
	if t.o.Derived {
		r.Context = associated
	} else {
		r.Associated = associated
	}
	return r
}

func (t *Transit) post(ctx context.Context, op string, r request) (answer, error) {
	return t.call(ctx, http.MethodPost, op, "", r)
}

func (t *Transit) fault(op string, err error) error {
	return fmt.Errorf("transit %s: %s of key %s/%s: %w", t.base.Host, op, t.o.Mount, t.o.Key, err)
}

// transitVersion reads the version off a ciphertext: "v3" of "vault:v3:...".
func transitVersion(wrapped []byte) string {
	rest, ok := bytes.CutPrefix(wrapped, []byte("vault:v"))
	digits := 0
	for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	if !ok || digits < 1 || digits > 9 || rest[0] == '0' || len(rest) < digits+2 || rest[digits] != ':' || rest[digits+1] == '\n' {
		return ""
	}
	return "v" + string(rest[:digits])
}
