package main

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/pki"
)

// runPKI runs a command in this process.
func runPKI(t *testing.T, words ...string) {
	t.Helper()
	cmd := root()
	cmd.SetArgs(append([]string{"pki"}, words...))
	cmd.SetOut(io.Discard)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v", words, err)
	}
}

// TestPKI: crypto/x509 agrees with what the commands said, and a handshake with
// the files succeeds.
func TestPKI(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	runPKI(t, "ca", "--name", "The fleet", "--ttl", "48h", "--out", in("ca"))
	issue := func(words ...string) {
		runPKI(t, append([]string{"cert", "--ca", in("ca.crt"), "--out", in(words[0])}, words[1:]...)...)
	}
	issue("server", "--host", "kms.example.com,192.0.2.1")
	issue("ada", "--name", "ada", "--role", "operator", "--role", "reader", "--ttl", "1h")
	issue("node", "--node", strings.ToUpper(nodeUUID), "--name", "rack 7")
	issue("plain", "--name", "kms-1", "--client")

	ca := leafOfFiles(t, in("ca"))
	if !ca.IsCA || ca.Subject.CommonName != "The fleet" || time.Until(ca.NotAfter) > 48*time.Hour {
		t.Errorf("the authority: %v until %v", ca.Subject, ca.NotAfter)
	}
	if _, ok := ca.PublicKey.(ed25519.PublicKey); !ok {
		t.Errorf("the authority's key is a %T", ca.PublicKey)
	}
	trusted := x509.NewCertPool()
	trusted.AddCert(ca)
	for _, want := range []struct {
		file, name string
		use, not   x509.ExtKeyUsage
		roles, dns []string
		life       time.Duration
	}{
		{"server", "kms.example.com", x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth, nil, []string{"kms.example.com"}, 24 * time.Hour},
		{"ada", "ada", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, []string{"os:operator", "os:reader"}, nil, time.Hour},
		{"node", "rack 7", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, nil, []string{nodeUUID}, 24 * time.Hour},
		{"plain", "kms-1", x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, nil, nil, 24 * time.Hour},
	} {
		c := leafOfFiles(t, in(want.file))
		slices.Sort(c.Subject.Organization)
		left := time.Until(c.NotAfter)
		if c.Subject.CommonName != want.name || !slices.Equal(c.Subject.Organization, want.roles) || !slices.Equal(c.DNSNames, want.dns) ||
			left > want.life || left < want.life-time.Minute {
			t.Errorf("%s: %v, names %v, %v left", want.file, c.Subject, c.DNSNames, left)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: trusted, KeyUsages: []x509.ExtKeyUsage{want.use}}); err != nil {
			t.Errorf("%s: %v", want.file, err)
		}
		if _, err := c.Verify(x509.VerifyOptions{Roots: trusted, KeyUsages: []x509.ExtKeyUsage{want.not}}); err == nil {
			t.Errorf("%s is good for both sides", want.file)
		}
	}
	handshake(t, in("server"), in("ada"), trusted)
}

// leafOfFiles reads a certificate whose key fits.
func leafOfFiles(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	pair, err := pki.ReadPair(path+".crt", path+".key")
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Wipe()
	c, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf
}

func handshake(t *testing.T, server, client string, trusted *x509.CertPool) {
	t.Helper()
	load := func(path string) []tls.Certificate {
		c, err := tls.LoadX509KeyPair(path+".crt", path+".key")
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{c}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	s := tls.Server(a, &tls.Config{Certificates: load(server), ClientCAs: trusted, ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13})
	c := tls.Client(b, &tls.Config{Certificates: load(client), RootCAs: trusted, ServerName: "kms.example.com", MinVersion: tls.VersionTLS13})
	done := make(chan error, 1)
	go func() { done <- c.HandshakeContext(t.Context()) }()
	if err := s.HandshakeContext(t.Context()); err != nil {
		t.Errorf("the server: %v", err)
	}
	if err := <-done; err != nil {
		t.Errorf("the client: %v", err)
	}
}

// TestPKIShow: what ends is said to have ended, and text of a certificate does not
// reach the terminal as it is.
func TestPKIShow(t *testing.T) {
	t.Parallel()
	_, ca, err := pki.NewAuthority("red \x1b[31m", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca")
	if err := ca.Write(path+".crt", path+".key"); err != nil {
		t.Fatal(err)
	}
	for after, expired := range map[time.Duration]bool{0: false, 2 * time.Hour: true} {
		all, err := readCertificates(path+".crt", time.Now().Add(after))
		if err != nil || len(all) != 1 || all[0].Expired != expired || !all[0].Authority {
			t.Fatalf("after %v: %+v, %v", after, all, err)
		}
		var out strings.Builder
		all[0].print(&out)
		if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "(expired)") != expired {
			t.Errorf("after %v: %q", after, out.String())
		}
	}
}
