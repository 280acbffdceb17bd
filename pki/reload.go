package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/cryptctl/cryptctl/role"
)

// Files are what a [Reloader] follows.
type Files struct {
	Cert, Key string
	// Authorities are the certificates of those who issue the other side's: the
	// clients' for a server, the servers' for a client. Empty means no client
	// certificates, and the system's authorities.
	Authorities string
	// ClientAuth is what a server with Authorities asks of its clients. Default
	// tls.RequireAndVerifyClientCert.
	ClientAuth tls.ClientAuthType
	// Reloaded is told when changed files were read, with nil, or why the former
	// certificates stay in use. Default nothing. It must return soon.
	Reloaded func(error)
}

// Reloader holds a certificate, its key and the trusted authorities, and reads
// them again when their files change. It looks at each handshake; nothing runs in
// between. It is used from several goroutines.
type Reloader struct {
	files Files

	mu      sync.Mutex
	seen    []stamp   // at the last reading, good or not
	since   time.Time // when the files were first seen so
	at      time.Time // when they were read
	failed  bool
	current loaded
}

type loaded struct {
	pair tls.Certificate
	pool *x509.CertPool // nil without Authorities
}

// stamp tells whether a file was changed or replaced.
type stamp struct {
	info fs.FileInfo // nil when it could not be seen
}

// settled is how long a file must have had its stamp when it is read, by the
// stamp or by our own clock, for the stamp to be trusted: two changes within one
// tick of a file system's clock look like one.
const settled = 2 * time.Second

// NewReloader reads the files once. They must be usable now.
func NewReloader(files Files) (*Reloader, error) {
	if files.ClientAuth == tls.NoClientCert {
		files.ClientAuth = tls.RequireAndVerifyClientCert
	}
	now := time.Now()
	r := &Reloader{files: files, since: now, at: now}
	r.seen = r.stamps()
	var err error
	r.current, err = r.load()
	return r, err
}

// Server returns a configuration for a server: TLS 1.3, no session tickets, so
// that every connection is judged by the authorities of the time of its handshake.
func (r *Reloader) Server() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			now := r.get()
			c := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{now.pair}, SessionTicketsDisabled: true}
			if now.pool != nil {
				c.ClientCAs, c.ClientAuth = now.pool, r.files.ClientAuth
			}
			return c, nil
		},
	}
}

// Client returns a configuration for the next connections of a client: TLS 1.3, and
// the certificate of the time of each handshake. The authorities are those of
// now, so it is to be asked for again for each connection that is made.
func (r *Reloader) Client() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    r.get().pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair := r.get().pair
			return &pair, nil
		},
	}
}

// get returns what is in force, read again if a file changed.
func (r *Reloader) get() loaded {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen, now := r.stamps(), time.Now()
	changed := !same(r.seen, seen)
	if !changed && (r.at.Sub(r.since) >= settled || older(seen, r.at.Add(-settled))) {
		return r.current
	}
	next, err := r.load()
	news := changed || r.failed != (err != nil)
	if changed {
		r.since = now
	}
	r.seen, r.at, r.failed = seen, now, err != nil
	if err == nil {
		r.current = next
	}
	if news && r.files.Reloaded != nil {
		r.files.Reloaded(err)
	}
	return r.current
}

func (r *Reloader) paths() []string {
	paths := []string{r.files.Cert, r.files.Key}
	if r.files.Authorities != "" {
		paths = append(paths, r.files.Authorities)
	}
	return paths
}

func (r *Reloader) stamps() []stamp {
	var all []stamp
	for _, path := range r.paths() {
		info, _ := os.Stat(path) // what cannot be seen is as good as changed
		all = append(all, stamp{info})
	}
	return all
}

// same reports whether the files are as they were.
func same(was, is []stamp) bool {
	for i := range was {
		a, b := was[i].info, is[i].info
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		if !os.SameFile(a, b) || a.Size() != b.Size() || !a.ModTime().Equal(b.ModTime()) {
			return false
		}
	}
	return true
}

// older reports whether all files were changed before a time, for the last time, as
// far as they are there.
func older(all []stamp, then time.Time) bool {
	for _, s := range all {
		if s.info != nil && s.info.ModTime().After(then) {
			return false
		}
	}
	return true
}

func (r *Reloader) load() (loaded, error) {
	p, err := ReadPair(r.files.Cert, r.files.Key)
	if err != nil {
		return loaded{}, err
	}
	defer p.Wipe()
	var l loaded
	if l.pair, err = p.TLS(); err != nil {
		return loaded{}, fmt.Errorf("%s, %s: %w", r.files.Cert, r.files.Key, err)
	}
	if r.files.Authorities == "" {
		return l, nil
	}
	bundle, err := read(r.files.Authorities)
	if err != nil {
		return loaded{}, err
	}
	if l.pool, err = ParsePool(bundle); err != nil {
		return loaded{}, fmt.Errorf("%s: %w", r.files.Authorities, err)
	}
	return l, nil
}

// RoleOf returns the role of a connection's other side: that of its certificate,
// when its chain was verified in the handshake, and none otherwise.
func RoleOf(state tls.ConnectionState) role.Role {
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return role.None
	}
	return role.Of(state.VerifiedChains[0][0].Subject.Organization)
}
