package main

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// TestRenew: a server that runs shows the new certificate, with the names of the
// former one, and operators get through with their new one and see nothing else.
func TestRenew(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, "kms", name) }
	cryptctl(t, dir, 0, "kms", "init", "--host", "kms.example.com,192.0.2.10", "--enrol", "open")
	s := serveDir(t, filepath.Join(dir, "kms"), func(config string) string { return config })
	shown := func(front string) *x509.Certificate {
		t.Helper()
		conn, err := tls.Dial("tcp", s.address(front), &tls.Config{InsecureSkipVerify: true}) // only looked at
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0]
	}
	former := shown("nodes")
	formerAdmin := leaf(t, in("admin.crt"), in("admin.key"))
	if err := os.Rename(in("ca.key"), filepath.Join(dir, "offline.key")); err != nil {
		t.Fatal(err)
	}
	if _, problem := cryptctl(t, dir, 1, "kms", "renew", "server"); !strings.Contains(problem, "ca.key: no such file or directory; give its files with --ca and --ca-key") {
		t.Error(problem)
	}
	if got := leaf(t, in("server.crt"), in("server.key")); got.SerialNumber.Cmp(former.SerialNumber) != 0 {
		t.Error("a renewal that failed changed the certificate")
	}
	if err := os.Chmod(in("server.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	cryptctl(t, dir, 0, "kms", "renew", "server", "--ca-key", "offline.key")
	cryptctl(t, dir, 0, "kms", "renew", "admin", "--ca-key", "offline.key", "--ttl", "2h")
	for path, mode := range map[string]os.FileMode{"server.key": 0o640, "server.crt": 0o644, "admin.key": 0o600, "admin.crt": 0o644} {
		if info, err := os.Stat(in(path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	for _, front := range []string{"nodes", "operators"} {
		got := shown(front)
		if got.SerialNumber.Cmp(former.SerialNumber) == 0 || slices.Equal(got.RawSubjectPublicKeyInfo, former.RawSubjectPublicKeyInfo) {
			t.Errorf("%s: the former certificate is shown", front)
		}
		if d := cmp.Diff(namesOf(former), namesOf(got)); d != "" || len(namesOf(got)) != 7 {
			t.Errorf("%s: %s %q", front, d, namesOf(got))
		}
		if left := time.Until(got.NotAfter); left < 364*24*time.Hour {
			t.Errorf("%s: it ends in %s", front, left)
		}
	}
	admin := leaf(t, in("admin.crt"), in("admin.key"))
	if d := cmp.Diff(namesOf(formerAdmin), namesOf(admin)); d != "" || role.Of(admin.Subject.Organization) != role.Admin || time.Until(admin.NotAfter) > 2*time.Hour {
		t.Errorf("%s %v, until %s", d, admin.Subject, admin.NotAfter)
	}
	if _, problem := cryptctl(t, dir, 0, "kms", "node", "list", "--server", s.address("operators")); problem != "" {
		t.Error(problem)
	}
	left, _ := filepath.Glob(in(".*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func leaf(t *testing.T, certificate, key string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// namesOf is what a certificate says of whom it is for.
func namesOf(c *x509.Certificate) []string {
	names := append([]string{c.Subject.String()}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	for _, use := range c.ExtKeyUsage {
		names = append(names, map[x509.ExtKeyUsage]string{x509.ExtKeyUsageServerAuth: "server", x509.ExtKeyUsageClientAuth: "client"}[use])
	}
	return names
}

func subjectOf(organizations ...string) pkix.Name { return pkix.Name{Organization: organizations} }

// TestSwap: a pair whose second file cannot be replaced is the former pair.
func TestSwap(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"whole": false, "second fails": true} {
		dir := t.TempDir()
		in := func(name string) string { return filepath.Join(dir, name) }
		var files []staged
		for _, name := range []string{"key", "crt"} {
			write(t, in(name), "former")
			s, err := stage(in(name), []byte("new"), 0o600)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, s)
		}
		want := "new"
		if lost {
			want = "former"
			files[1].drop()
		}
		if err := swap(files[0], files[1]); (err != nil) != lost {
			t.Errorf("%s: %v", name, err)
		}
		for _, file := range []string{"key", "crt"} {
			if text, err := os.ReadFile(in(file)); err != nil || string(text) != want {
				t.Errorf("%s: %s has %q, %v", name, file, text, err)
			}
		}
		files[0].drop()
		if all, _ := os.ReadDir(dir); len(all) != 2 {
			t.Errorf("%s: left %v", name, all)
		}
	}
}

// TestEndsSoon: who lives long is told two weeks before the end, who lives short in
// the last quarter.
func TestEndsSoon(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	now := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		life, left time.Duration
		want       bool
	}{
		{365 * day, 15 * day, false},
		{365 * day, 13 * day, true},
		{365 * day, -day, true},
		{day, 7 * time.Hour, false},
		{day, 5 * time.Hour, true},
	} {
		c := &x509.Certificate{NotBefore: now.Add(test.left - test.life), NotAfter: now.Add(test.left)}
		if got := endsSoon(c, now); (got != "") != test.want {
			t.Errorf("a life of %s, %s left: %q", test.life, test.left, got)
		}
	}
}

// TestNoteEnd: an operator whose certificate ends soon is told so on stderr, and the
// answer stays what it is.
func TestNoteEnd(t *testing.T) {
	t.Parallel()
	dir := keyServer(t)
	in := func(name string) string { return filepath.Join(dir, "kms", name) }
	authority, err := pki.ReadAuthority(in("ca.crt"), in("ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue(pki.Request{Name: "ada", Client: true, Roles: []role.Role{role.Reader}, TTL: 90 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Wipe()
	if err := pair.Write(filepath.Join(dir, "ada.crt"), filepath.Join(dir, "ada.key")); err != nil {
		t.Fatal(err)
	}
	args := []string{"kms", "node", "list"}
	out, problem := cryptctl(t, dir, 0, args...)
	again, told := cryptctl(t, dir, 0, append(args, "--certificate", "ada.crt", "--key", "ada.key")...)
	if problem != "" || !strings.HasPrefix(told, "note: ada.crt ends on ") || !strings.Contains(told, "cryptctl kms renew admin") || out != again {
		t.Errorf("%q, %q\n%s%s", problem, told, out, again)
	}
}

// TestRenewRefuses: what would be lost, and what is not of that kind.
func TestRenewRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		c    x509.Certificate
		want string
	}{
		"authority":    {x509.Certificate{IsCA: true}, "authority"},
		"e-mail":       {x509.Certificate{EmailAddresses: []string{"a@example.com"}}, "would be lost"},
		"organization": {x509.Certificate{Subject: subjectOf("os:admin", "Example")}, `"Example" would be lost`},
	} {
		if r, err := again(&test.c, time.Hour); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	r, err := again(&x509.Certificate{Subject: subjectOf("os:reader", "os:operator")}, time.Hour)
	if err != nil || !slices.Equal(r.Roles, []role.Role{role.Reader, role.Operator}) {
		t.Errorf("%+v, %v", r, err)
	}
}
