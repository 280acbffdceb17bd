package kms_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
)

const short = 400 * time.Millisecond

// TestTLS: who is let in, and whom the node believes.
func TestTLS(t *testing.T) {
	t.Parallel()
	ours, other := newParty(t), newParty(t)
	mutual := func(c *tls.Config) {
		c.ClientCAs, c.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		c.ClientCAs.AppendCertsFromPEM(ours.ca)
	}
	with := func(p party) func(*kms.Options) {
		return func(o *kms.Options) { o.Authorities, o.Certificate, o.Key = ours.ca, p.client.Cert, keyOf(p.client) }
	}
	for _, test := range []struct {
		name   string
		server func(*tls.Config)
		client func(*kms.Options)
		text   string // "" when it works
	}{
		{"authority", nil, ours.trusted, ""},
		{"the system's authorities", nil, nil, "x509:"},
		{"another authority", nil, other.trusted, "x509:"},
		{"several authorities", nil, func(o *kms.Options) { o.Authorities = append(append([]byte{}, other.ca...), ours.ca...) }, ""},
		{"name of the certificate", nil, func(o *kms.Options) { o.Authorities, o.ServerName = ours.ca, "kms.example.com" }, ""},
		{"another name", nil, func(o *kms.Options) { o.Authorities, o.ServerName = ours.ca, "kms.example.org" }, "x509:"},
		{"client certificate", mutual, with(ours), ""},
		{"no client certificate", mutual, ours.trusted, "certificate"},
		{"a stranger's client certificate", mutual, with(other), "certificate"},
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, ours.trusted, "tls:"},
		{"TLS 1.2 that is asked for", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, func(o *kms.Options) {
			o.Authorities, o.TLS12 = ours.ca, true
		}, ""},
		{"TLS 1.1", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }, func(o *kms.Options) {
			o.Authorities, o.TLS12 = ours.ca, true
		}, "tls:"},
	} {
		for _, scheme := range []string{"https://", "grpcs://"} {
			t.Run(test.name+" "+scheme, func(t *testing.T) {
				t.Parallel()
				config := ours.config(t)
				if test.server != nil {
					test.server(config)
				}
				p := provider(t, func(o *kms.Options) {
					if test.client != nil {
						test.client(o)
					}
					if test.text != "" {
						o.Budget = short
					}
				}, scheme+serve(t, newFake(), config))
				if test.text == "" {
					works(t, p)
					return
				}
				pass, _, err := p.Enroll(t.Context(), keys.Request{})
				if !errors.Is(err, keys.ErrUnavailable) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), "check the authorities") || pass.Len() != 0 {
					t.Errorf("%v, must be unavailable, about %q and say what to check", err, test.text)
				}
			})
		}
	}
}

// TestTLSExpired: a certificate whose time is over.
func TestTLSExpired(t *testing.T) {
	t.Parallel()
	a, ca, err := pki.NewAuthority("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(pki.Request{Name: "kms", Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, TTL: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(1100 * time.Millisecond) // certificates have seconds
	config := party{server: pair}.config(t)
	f := newFake()
	p := provider(t, func(o *kms.Options) { o.Authorities, o.Budget = ca.Cert, short }, "https://"+serve(t, f, config))
	if _, _, err := p.Enroll(t.Context(), keys.Request{}); err == nil || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), "the clock") {
		t.Errorf("%v", err)
	}
	if n := len(f.seen()); n != 0 {
		t.Errorf("it was asked %d times", n)
	}
}

// TestTLSOrNot: what is said for TLS is never sent in plaintext, and a plaintext
// endpoint does not reach a server with TLS.
func TestTLSOrNot(t *testing.T) {
	t.Parallel()
	ca, f := newParty(t), newFake()
	plain, secure := serve(t, f, nil), serve(t, f, ca.config(t))
	for _, p := range []*kms.Provider{
		provider(t, func(o *kms.Options) { o.Authorities, o.Budget = ca.ca, short }, "https://"+plain),
		provider(t, within(short), "grpc://"+secure),
	} {
		if _, _, err := p.Enroll(t.Context(), keys.Request{}); keys.Class(err) != keys.ErrUnavailable || err == nil {
			t.Errorf("%v: %v", p, err)
		}
	}
	if n := len(f.seen()); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// TestDial: a configuration that names no minimum means TLS 1.3, and none the
// system's authorities.
func TestDial(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	old := ca.config(t)
	old.MaxVersion = tls.VersionTLS12
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.ca)
	for _, test := range []struct {
		name   string
		server *tls.Config
		client *tls.Config
		want   codes.Code
	}{
		{"TLS 1.3", ca.config(t), &tls.Config{RootCAs: roots}, codes.OK},
		{"TLS 1.2", old, &tls.Config{RootCAs: roots}, codes.Unavailable},
		{"TLS 1.2 that is asked for", old, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, codes.OK},
		{"none", ca.config(t), nil, codes.Unavailable},
	} {
		e, err := kms.ParseEndpoint("https://" + serve(t, newFake(), test.server))
		if err != nil {
			t.Fatal(err)
		}
		cc, err := kms.Dial(e, test.client)
		if err != nil {
			t.Fatal(err)
		}
		_, err = wire.NewKMSServiceClient(cc).Seal(t.Context(), &wire.Request{Data: make([]byte, 32)})
		if status.Code(err) != test.want {
			t.Errorf("%s: %v, must be %v", test.name, err, test.want)
		}
		cc.Close()
	}
}
