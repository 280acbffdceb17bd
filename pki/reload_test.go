package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// folder is where a server has its files, and replaces them.
type folder struct {
	testing.TB
	pki.Files
	mu   sync.Mutex
	told []error
}

func newFolder(t testing.TB) *folder {
	dir := t.TempDir()
	f := &folder{TB: t}
	f.Files = pki.Files{
		Cert: filepath.Join(dir, "tls.crt"), Key: filepath.Join(dir, "tls.key"), Authorities: filepath.Join(dir, "ca.crt"),
		Reloaded: func(err error) { f.mu.Lock(); f.told = append(f.told, err); f.mu.Unlock() },
	}
	return f
}

// news returns what Reloaded was told since the last call.
func (f *folder) news() []error {
	f.mu.Lock()
	defer f.mu.Unlock()
	told := f.told
	f.told = nil
	return told
}

// put replaces a file by a rename.
func (f *folder) put(path string, content []byte) {
	f.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		f.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.Fatal(err)
	}
}

func (f *folder) putPair(p pki.Pair) {
	f.put(f.Cert, p.Cert)
	f.put(f.Key, p.Key.Bytes())
}

// settle makes the files as old as files usually are.
func (f *folder) settle() {
	f.Helper()
	for _, path := range []string{f.Cert, f.Key, f.Authorities} {
		old := time.Now().Add(-time.Hour)
		if err := os.Chtimes(path, old, old); err != nil {
			f.Fatal(err)
		}
	}
}

// shake connects once and returns what each side saw of the other.
func shake(t testing.TB, server, client *tls.Config) (atServer, atClient tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	deadline := time.Now().Add(10 * time.Second)
	a.SetDeadline(deadline)
	b.SetDeadline(deadline)
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := c.Handshake()
		if err == nil {
			_, err = c.Read(make([]byte, 1)) // a server's refusal comes late in TLS 1.3
		}
		done <- err
	}()
	if err = s.Handshake(); err == nil {
		_, err = s.Write([]byte("x"))
	}
	if err != nil {
		b.Close()
		<-done
		return atServer, atClient, err
	}
	if err = <-done; err != nil {
		return atServer, atClient, err
	}
	return s.ConnectionState(), c.ConnectionState(), nil
}

func pool(t testing.TB, bundle []byte) *x509.CertPool {
	t.Helper()
	p, err := pki.ParsePool(bundle)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tlsOf(t testing.TB, p pki.Pair) tls.Certificate {
	t.Helper()
	c, err := p.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// caller is a client's configuration.
func caller(t testing.TB, trusted []byte, p *pki.Pair) *tls.Config {
	c := &tls.Config{RootCAs: pool(t, trusted), ServerName: "kms.example.com"}
	if p != nil {
		c.Certificates = []tls.Certificate{tlsOf(t, *p)}
	}
	return c
}

// TestReload: the next connection has the new certificate and is judged by the
// new authorities.
func TestReload(t *testing.T) {
	f := newFolder(t)
	a, ca := authority(t, "one")
	first, firstCert := issue(t, a, server())
	ada, _ := issue(t, a, client(role.Operator))
	f.putPair(first)
	f.put(f.Authorities, ca.Cert)
	f.settle()
	r, err := pki.NewReloader(f.Files)
	if err != nil {
		t.Fatal(err)
	}
	config := r.Server() // once, as a server has it
	s, c, err := shake(t, config, caller(t, ca.Cert, &ada))
	if err != nil {
		t.Fatal(err)
	}
	if !c.PeerCertificates[0].Equal(firstCert) || pki.RoleOf(s) != role.Operator || s.Version != tls.VersionTLS13 {
		t.Errorf("the client sees %v, the server %v, TLS %x", c.PeerCertificates[0].SerialNumber, pki.RoleOf(s), s.Version)
	}
	if _, _, err := shake(t, config, caller(t, ca.Cert, nil)); err == nil {
		t.Error("a client without a certificate gets in")
	}
	if told := f.news(); len(told) != 0 {
		t.Errorf("nothing changed, and it was read again: %v", told)
	}

	second, secondCert := issue(t, a, server())
	f.putPair(second)
	if _, c, err = shake(t, config, caller(t, ca.Cert, &ada)); err != nil || !c.PeerCertificates[0].Equal(secondCert) {
		t.Errorf("after the certificate was replaced: %v", err)
	}
	if told := f.news(); len(told) != 1 || told[0] != nil {
		t.Errorf("told %v", told)
	}

	b, cb := authority(t, "two")
	f.put(f.Authorities, cb.Cert)
	bob, _ := issue(t, b, client(role.Admin))
	if s, _, err = shake(t, config, caller(t, ca.Cert, &bob)); err != nil || pki.RoleOf(s) != role.Admin {
		t.Errorf("after the authorities were replaced: %v, %v", pki.RoleOf(s), err)
	}
	if _, _, err = shake(t, config, caller(t, ca.Cert, &ada)); err == nil {
		t.Error("a client of the former authority gets in")
	}
}

// TestReloadKeepsTheGood: what is broken, half replaced or gone changes nothing,
// and once it is mended it counts.
func TestReloadKeepsTheGood(t *testing.T) {
	a, ca := authority(t, "one")
	for _, test := range []struct {
		name  string
		spoil func(f *folder, other pki.Pair)
		text  string
	}{
		{"certificate without its key", func(f *folder, other pki.Pair) { f.put(f.Cert, other.Cert) }, "tls.key"},
		{"key without its certificate", func(f *folder, other pki.Pair) { f.put(f.Key, other.Key.Bytes()) }, "tls.key"},
		{"empty certificate", func(f *folder, _ pki.Pair) { f.put(f.Cert, nil) }, "tls.crt"},
		{"no key", func(f *folder, _ pki.Pair) { os.Remove(f.Key) }, "tls.key"},
		{"cut off authorities", func(f *folder, _ pki.Pair) { f.put(f.Authorities, ca.Cert[:100]) }, "ca.crt"},
		{"too large", func(f *folder, _ pki.Pair) { f.put(f.Authorities, make([]byte, 2<<20)) }, "more than"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFolder(t)
			first, firstCert := issue(t, a, server())
			second, secondCert := issue(t, a, server())
			ada, _ := issue(t, a, client(role.Reader))
			f.putPair(first)
			f.put(f.Authorities, ca.Cert)
			f.settle()
			r, err := pki.NewReloader(f.Files)
			if err != nil {
				t.Fatal(err)
			}
			test.spoil(f, second)
			for range 2 {
				_, c, err := shake(t, r.Server(), caller(t, ca.Cert, &ada))
				if err != nil || !c.PeerCertificates[0].Equal(firstCert) {
					t.Errorf("the service ended: %v", err)
				}
			}
			if told := f.news(); len(told) != 1 || told[0] == nil || !strings.Contains(told[0].Error(), test.text) {
				t.Errorf("told %v, must be once, about %q", told, test.text)
			}
			f.putPair(second)
			f.put(f.Authorities, ca.Cert)
			if _, c, err := shake(t, r.Server(), caller(t, ca.Cert, &ada)); err != nil || !c.PeerCertificates[0].Equal(secondCert) {
				t.Errorf("after it was mended: %v", err)
			}
			if told := f.news(); len(told) != 1 || told[0] != nil {
				t.Errorf("told %v", told)
			}
			test.spoil(f, second)
			if _, err := pki.NewReloader(f.Files); (err == nil) != strings.Contains(test.name, "its") {
				t.Errorf("at the start: %v", err) // second's halves fit each other
			}
		})
	}
}

// TestReloadInPlace: a change that leaves size and time as they were is seen while
// the file is young.
func TestReloadInPlace(t *testing.T) {
	f := newFolder(t)
	a, ca := authority(t, "one")
	pairs := map[int][]pki.Pair{} // by the length of the certificate
	var two []pki.Pair
	for len(two) < 2 {
		p, _ := issue(t, a, server())
		n := len(p.Cert)
		pairs[n] = append(pairs[n], p)
		two = pairs[n]
	}
	now := time.Now()
	put := func(p pki.Pair) {
		for path, content := range map[string][]byte{f.Cert: p.Cert, f.Key: p.Key.Bytes(), f.Authorities: ca.Cert} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(path, now, now); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(two[0])
	r, err := pki.NewReloader(f.Files)
	if err != nil {
		t.Fatal(err)
	}
	put(two[1])
	ada, _ := issue(t, a, client())
	if _, c, err := shake(t, r.Server(), caller(t, ca.Cert, &ada)); err != nil || !c.PeerCertificates[0].Equal(tlsOf(t, two[1]).Leaf) {
		t.Errorf("the change was missed: %v", err)
	}
}

// TestClient: a client's side reloads too, and checks its server.
func TestClient(t *testing.T) {
	f := newFolder(t)
	a, ca := authority(t, "one")
	own, _ := issue(t, a, client(role.Reader))
	f.putPair(own)
	f.put(f.Authorities, ca.Cert)
	f.settle()
	r, err := pki.NewReloader(f.Files)
	if err != nil {
		t.Fatal(err)
	}
	kms, _ := issue(t, a, server())
	serve := &tls.Config{Certificates: []tls.Certificate{tlsOf(t, kms)}, ClientCAs: pool(t, ca.Cert), ClientAuth: tls.RequireAndVerifyClientCert}
	call := func() *tls.Config { c := r.Client(); c.ServerName = "kms.example.com"; return c }
	if s, _, err := shake(t, serve, call()); err != nil || pki.RoleOf(s) != role.Reader {
		t.Errorf("%v, %v", pki.RoleOf(s), err)
	}
	better, _ := issue(t, a, client(role.Admin))
	f.putPair(better)
	if s, _, err := shake(t, serve, call()); err != nil || pki.RoleOf(s) != role.Admin {
		t.Errorf("with another certificate: %v, %v", pki.RoleOf(s), err)
	}
	_, cb := authority(t, "two")
	f.put(f.Authorities, cb.Cert)
	if _, _, err := shake(t, serve, call()); err == nil {
		t.Error("a server of the former authority passes")
	}
	serve.MaxVersion = tls.VersionTLS12
	f.put(f.Authorities, ca.Cert)
	if _, _, err := shake(t, serve, call()); err == nil {
		t.Error("speaks TLS 1.2")
	}
}

// TestRoleOf: a certificate that nobody verified gives no role.
func TestRoleOf(t *testing.T) {
	a, ca := authority(t, "one")
	kms, _ := issue(t, a, server())
	stranger, _ := authority(t, "two")
	eve, _ := issue(t, stranger, client(role.Admin))
	for _, auth := range []tls.ClientAuthType{tls.RequestClientCert, tls.RequireAnyClientCert} {
		serve := &tls.Config{Certificates: []tls.Certificate{tlsOf(t, kms)}, ClientAuth: auth}
		s, _, err := shake(t, serve, caller(t, ca.Cert, &eve))
		if err != nil || len(s.PeerCertificates) != 1 {
			t.Fatal(err)
		}
		if got := pki.RoleOf(s); got != role.None {
			t.Errorf("an unverified certificate is %v", got)
		}
	}
	if got := pki.RoleOf(tls.ConnectionState{}); got != role.None {
		t.Errorf("no connection is %v", got)
	}
}

// TestOptionalClients: with VerifyClientCertIfGiven, nodes without a certificate
// are served beside operators with one, and strangers are not.
func TestOptionalClients(t *testing.T) {
	f := newFolder(t)
	f.ClientAuth = tls.VerifyClientCertIfGiven
	a, ca := authority(t, "one")
	kms, _ := issue(t, a, server())
	f.putPair(kms)
	f.put(f.Authorities, ca.Cert)
	r, err := pki.NewReloader(f.Files)
	if err != nil {
		t.Fatal(err)
	}
	if s, _, err := shake(t, r.Server(), caller(t, ca.Cert, nil)); err != nil || pki.RoleOf(s) != role.None {
		t.Errorf("without a certificate: %v, %v", pki.RoleOf(s), err)
	}
	stranger, _ := authority(t, "two")
	eve, _ := issue(t, stranger, client(role.Admin))
	forced := caller(t, ca.Cert, nil)
	forced.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		c := tlsOf(t, eve)
		return &c, nil
	}
	if _, _, err := shake(t, r.Server(), forced); err == nil {
		t.Error("a stranger's certificate passes")
	}
}

// TestReloadFuture: files that are dated ahead of the clock, by a restored backup
// or a clock that was set back, are read again for a while, and then trusted too.
func TestReloadFuture(t *testing.T) {
	a, ca := authority(t, "one")
	f := newFolder(t)
	pair, _ := issue(t, a, server())
	f.put(f.Authorities, ca.Cert)
	f.putPair(pair)
	synctest.Test(t, func(t *testing.T) { // its clock is decades behind the files
		r, err := pki.NewReloader(f.Files)
		if err != nil {
			t.Fatal(err)
		}
		breakUnseen(t, f.Cert)
		r.Client()
		if told := f.news(); len(told) != 1 || told[0] == nil {
			t.Errorf("a change within the tick of a clock was not seen: %v", told)
		}
		breakUnseen(t, f.Cert)
		time.Sleep(3 * time.Second)
		r.Client()
		if told := f.news(); len(told) != 1 || told[0] != nil {
			t.Errorf("the whole file was not seen: %v", told)
		}
		breakUnseen(t, f.Cert)
		r.Client()
		if told := f.news(); len(told) != 0 {
			t.Errorf("the files are still read at each handshake: %v", told)
		}
	})
}

// breakUnseen breaks a file, or mends it, without a trace in what stat says of it.
func breakUnseen(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[0] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, time.Time{}, info.ModTime()); err != nil {
		t.Fatal(err)
	}
}
