package pki_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

func authority(t testing.TB, name string) (*pki.Authority, pki.Pair) {
	t.Helper()
	a, p, err := pki.NewAuthority(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	return a, p
}

func issue(t testing.TB, a *pki.Authority, r pki.Request) (pki.Pair, *x509.Certificate) {
	t.Helper()
	p, err := a.Issue(r)
	if err != nil {
		t.Fatal(err)
	}
	return p, certificate(t, p)
}

func certificate(t testing.TB, p pki.Pair) *x509.Certificate {
	t.Helper()
	pair, err := p.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func server() pki.Request {
	return pki.Request{Name: "kms", Server: true, DNS: []string{"kms.example.com"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
}

func client(roles ...role.Role) pki.Request {
	return pki.Request{Name: "ada", Client: true, Roles: roles}
}

// TestIssue: what was asked for is in the certificate, and crypto/x509 finds its
// way to the authority.
func TestIssue(t *testing.T) {
	a, p := authority(t, "cluster")
	pool, err := pki.ParsePool(p.Cert)
	if err != nil {
		t.Fatal(err)
	}
	_, s := issue(t, a, server())
	if _, err := s.Verify(x509.VerifyOptions{Roots: pool, DNSName: "kms.example.com"}); err != nil {
		t.Error(err)
	}
	if err := s.VerifyHostname("127.0.0.1"); err != nil {
		t.Error(err)
	}
	if _, err := s.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("a server's certificate passes for a client's")
	}
	r := client(role.Operator, role.Reader)
	r.TTL = time.Hour
	_, c := issue(t, a, r)
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: pool}); err == nil {
		t.Error("a client's certificate passes for a server's")
	}
	slices.Sort(c.Subject.Organization) // a set in DER
	if !slices.Equal(c.Subject.Organization, []string{"os:operator", "os:reader"}) || c.Subject.CommonName != "ada" || c.IsCA {
		t.Errorf("the subject is %v, an authority: %v", c.Subject, c.IsCA)
	}
	if _, ok := c.PublicKey.(ed25519.PublicKey); !ok {
		t.Errorf("the key is a %T", c.PublicKey)
	}
	if life := time.Until(c.NotAfter); life > time.Hour || life < 59*time.Minute {
		t.Errorf("it lives for %s", life)
	}
	if since := time.Since(c.NotBefore); since < time.Minute || since > 10*time.Minute {
		t.Errorf("it began %s ago", since)
	}
	if life := time.Until(s.NotAfter); life > pki.DefaultTTL || life < pki.DefaultTTL-time.Minute {
		t.Errorf("by default one lives for %s", life)
	}
	_, other := authority(t, "cluster") // of the same name
	if err := c.CheckSignatureFrom(certificate(t, other)); err == nil {
		t.Error("another authority vouches for it")
	}
}

// TestSerials: 128 random bits, all used.
func TestSerials(t *testing.T) {
	a, p := authority(t, "cluster")
	seen, longest := map[string]bool{certificate(t, p).SerialNumber.String(): true}, 0
	for range 32 {
		_, c := issue(t, a, client())
		if n := c.SerialNumber; n.Sign() <= 0 || n.BitLen() > 128 || seen[n.String()] {
			t.Errorf("serial number %s", n)
		}
		seen[c.SerialNumber.String()], longest = true, max(longest, c.SerialNumber.BitLen())
	}
	if longest < 120 { // by chance once in 2^256
		t.Errorf("the longest of 32 serial numbers has %d bits", longest)
	}
}

func TestIssueRefuses(t *testing.T) {
	a, _, err := pki.NewAuthority("short", 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	change := func(r pki.Request, f func(*pki.Request)) pki.Request { r.TTL = time.Hour; f(&r); return r }
	for _, test := range []struct {
		name string
		r    pki.Request
		text string
	}{
		{"good server", change(server(), func(*pki.Request) {}), ""},
		{"good client", change(client(role.Admin), func(*pki.Request) {}), ""},
		{"no name", change(client(), func(r *pki.Request) { r.Name = "" }), "no name"},
		{"neither", change(client(), func(r *pki.Request) { r.Client = false }), "neither a server nor a client"},
		{"server with a role", change(server(), func(r *pki.Request) { r.Roles = []role.Role{role.Reader} }), "roles are for clients"},
		{"both sides with a role", change(server(), func(r *pki.Request) { r.Client, r.Roles = true, []role.Role{role.Reader} }), "roles are for clients"},
		{"server without a name", change(server(), func(r *pki.Request) { r.DNS, r.IPs = nil, nil }), "names or addresses"},
		{"address as a name", change(server(), func(r *pki.Request) { r.DNS = []string{"10.0.0.1"} }), "no DNS name"},
		{"empty DNS name", change(server(), func(r *pki.Request) { r.DNS = []string{""} }), "no DNS name"},
		{"address without a value", change(server(), func(r *pki.Request) { r.IPs = []netip.Addr{{}} }), "no address"},
		{"address with a zone", change(server(), func(r *pki.Request) { r.IPs = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")} }), "no address"},
		{"no role", change(client(), func(r *pki.Request) { r.Roles = []role.Role{role.None} }), "is no role"},
		{"negative life", change(client(), func(r *pki.Request) { r.TTL = -1 }), "a life of"},
		{"outlives its authority", change(client(), func(r *pki.Request) { r.TTL = 3 * time.Hour }), "its authority only until"},
		{"outlives it by default", change(client(), func(r *pki.Request) { r.TTL = 0 }), "its authority only until"},
	} {
		_, err := a.Issue(test.r)
		if test.text == "" && err != nil || test.text != "" && (err == nil || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%s: %v, must be about %q", test.name, err, test.text)
		}
	}
	if _, _, err := pki.NewAuthority("", 0); err == nil {
		t.Error("an authority without a name")
	}
}

func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	a, p := authority(t, "cluster")
	crt, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	if err := p.Write(crt, key); err != nil {
		t.Fatal(err)
	}
	again, err := pki.ReadAuthority(crt, key)
	if err != nil {
		t.Fatal(err)
	}
	_, c := issue(t, again, client(role.Reader))
	if err := c.CheckSignatureFrom(certificate(t, p)); err != nil {
		t.Error(err)
	}
	if c := certificate(t, p); !c.IsCA || !c.MaxPathLenZero || c.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("authority %v, length of path 0 %v, uses %b", c.IsCA, c.MaxPathLenZero, c.KeyUsage)
	}
	leaf, _ := issue(t, a, client(role.Admin))
	if _, err := pki.ParseAuthority(leaf); err == nil || !strings.Contains(err.Error(), "not that of an authority") {
		t.Errorf("a client as an authority: %v", err)
	}
	_, stranger := authority(t, "cluster")
	if _, err := pki.ParseAuthority(pki.Pair{Cert: p.Cert, Key: stranger.Key}); err == nil {
		t.Error("another's key")
	}
	// Talos' name for the block of a key.
	talos := strings.ReplaceAll(string(p.Key.Bytes()), "PRIVATE KEY", "ED25519 PRIVATE KEY")
	if err := os.WriteFile(filepath.Join(dir, "talos.key"), []byte(talos), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.ReadAuthority(crt, filepath.Join(dir, "talos.key")); err != nil {
		t.Errorf("a key as Talos writes it: %v", err)
	}
}

// files says what is in a folder: names, modes, contents.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = fmt.Sprintf("%04o %s", info.Mode().Perm(), content)
	}
	return all
}

func TestWrite(t *testing.T) {
	_, p := authority(t, "cluster")
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	if err := p.Write(crt, key); err != nil {
		t.Fatal(err)
	}
	got := files(t, dir)
	if len(got) != 2 || got["ca.crt"] != "0644 "+string(p.Cert) || got["ca.key"] != "0600 "+string(p.Key.Bytes()) {
		t.Errorf("written %v", got)
	}
}

// TestWriteReplacesNothing: whatever is in the way stays, and nothing is left
// beside it.
func TestWriteReplacesNothing(t *testing.T) {
	_, p := authority(t, "cluster")
	for _, taken := range []string{"ca.crt", "ca.key"} {
		for _, kind := range []string{"file", "dangling link"} {
			t.Run(taken+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, taken)
				err := os.WriteFile(path, []byte("precious"), 0o640)
				if kind == "dangling link" {
					err = errors.Join(os.Remove(path), os.Symlink("nowhere", path))
				}
				if err != nil {
					t.Fatal(err)
				}
				err = p.Write(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
				if !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
					t.Errorf("Write: %v", err)
				}
				entries, err := os.ReadDir(dir)
				if err != nil || len(entries) != 1 {
					t.Errorf("left are %v, %v", entries, err)
				}
				if kind == "file" && files(t, dir)[taken] != "0640 precious" {
					t.Errorf("now it is %v", files(t, dir))
				}
			})
		}
	}
	err := p.Write("/proc/ca.crt", filepath.Join(t.TempDir(), "ca.key"))
	if err == nil {
		t.Error("writes where nothing can be written")
	}
}

// TestWriteFails: a key whose certificate could not be written does not stay.
func TestWriteFails(t *testing.T) {
	_, p := authority(t, "cluster")
	dir := t.TempDir()
	if err := p.Write(filepath.Join(dir, "missing", "ca.crt"), filepath.Join(dir, "ca.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("into a folder that is not there: %v", err)
	}
	if got := files(t, dir); len(got) != 0 {
		t.Errorf("left is %v", got)
	}
}

func TestParsePool(t *testing.T) {
	_, a := authority(t, "a")
	_, b := authority(t, "b")
	two := string(a.Cert) + "a comment\n" + string(b.Cert)
	damaged := strings.Replace(string(a.Cert), "MII", "!!!", 1)
	if damaged == string(a.Cert) {
		damaged = strings.Replace(string(a.Cert), "MIB", "!!!", 1)
	}
	for _, test := range []struct {
		name, bundle, text string
	}{
		{"one", string(a.Cert), ""},
		{"two and a comment", two, ""},
		{"empty", "", "no certificate"},
		{"text", "hello", "no certificate"},
		{"cut off", two[:len(two)-20], "only 1 of 2"},
		{"damaged in front", damaged + string(b.Cert), "only 1 of 2"},
		{"damaged in the middle", string(b.Cert) + damaged + string(b.Cert), "only 2 of 3"},
		{"a key", string(a.Key.Bytes()), "not a CERTIFICATE"},
		{"no DER", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1"},
	} {
		_, err := pki.ParsePool([]byte(test.bundle))
		if test.text == "" && err != nil || test.text != "" && (err == nil || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%s: %v, must be about %q", test.name, err, test.text)
		}
	}
}

// TestNoKeyIsPrinted: a pair may end up in a log.
func TestNoKeyIsPrinted(t *testing.T) {
	_, p := authority(t, "cluster")
	line := strings.Split(string(p.Key.Bytes()), "\n")[1]
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, p); strings.Contains(text, line) {
			t.Errorf("%s shows the key", verb)
		}
	}
}
