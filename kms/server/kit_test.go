package server_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	nodeA = "01234567-89ab-cdef-0123-456789abcdef"
	nodeB = "01234567-89ab-cdef-0123-456789abcdee"

	patience = 20 * time.Second
)

// backend is a folder with all that a key server keeps, and who uses it.
type backend struct {
	dir    string
	store  *bolt.DB
	log    *audit.Log
	kek    *kek.Keyset
	keeper *keeper.Keeper
	pause  atomic.Int64 // how long each answer takes, at least
}

// open opens a folder, or fills a new one.
func open(t testing.TB, dir string, rules policy.Rules) *backend {
	t.Helper()
	b, err := openBackend(t.Context(), dir, rules)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func openBackend(ctx context.Context, dir string, rules policy.Rules) (b *backend, err error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	b = &backend{dir: dir}
	if b.store, err = bolt.Open(in("nodes.db")); err != nil {
		return nil, err
	}
	if b.log, err = audit.Open(in("audit"), audit.Options{}); err != nil {
		return nil, err
	}
	under := kek.Secret{KeyFile: secret.Copy([]byte("32 bytes that no one else knows!"))}
	if _, missing := os.Stat(in("kek.json")); missing != nil {
		b.kek, err = kek.Create(ctx, in("kek.json"), under)
	} else {
		b.kek, err = kek.Open(ctx, in("kek.json"), under)
	}
	if err == nil {
		b.keeper, err = keeper.New(ctx, keeper.Options{Store: b.store, KEK: b.kek, Audit: slowly{b.log, &b.pause}, Rules: rules})
	}
	return b, err
}

// slowly is an audit log that a test can hold up.
type slowly struct {
	*audit.Log
	pause *atomic.Int64
}

// Append implements keeper.Recorder.
func (s slowly) Append(e audit.Event) error {
	time.Sleep(time.Duration(s.pause.Load()))
	return s.Log.Append(e)
}

func (b *backend) close() {
	b.keeper.Close()
	b.kek.Close()
	_ = b.log.Close()
	_ = b.store.Close()
}

// running is a server with both listeners.
type running struct {
	*server.Server
	*backend
	nodes, operators string // addresses
	stop             func() // drains; may be called again
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a server on a backend, in plaintext unless changed.
func start(t testing.TB, b *backend, change func(*server.Options)) *running {
	t.Helper()
	o := server.Options{
		Keeper: b.keeper, Plaintext: true, Audit: b.log,
		Parts: server.Parts{AuditDir: filepath.Join(b.dir, "audit"), Store: b.store, KEK: b.kek, KEKName: "file"},
	}
	if change != nil {
		change(&o)
	}
	s, err := server.New(o)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Server: s, backend: b}
	served := make(chan error, 2)
	n := 1
	forNodes := listen(t)
	r.nodes = forNodes.Addr().String()
	go func() { served <- s.ServeNodes(forNodes) }()
	if o.AdminTLS != nil {
		n++
		forOperators := listen(t)
		r.operators = forOperators.Addr().String()
		go func() { served <- s.ServeOperators(forOperators) }()
	}
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		s.Drain(ctx)
		for range n {
			if err := <-served; err != nil {
				t.Errorf("serve: %v", err)
			}
		}
	}
	t.Cleanup(r.stop)
	return r
}

// fresh is a server on a new folder that enrols whoever seals.
func fresh(t testing.TB, change func(*server.Options)) *running {
	t.Helper()
	b := open(t, t.TempDir(), policy.Rules{Enrol: policy.Open})
	t.Cleanup(b.close)
	return start(t, b, change)
}

// provider is ours for a server in plaintext, or what change makes of it.
func provider(t testing.TB, address, node string, change func(*kms.Options)) *kms.Provider {
	t.Helper()
	o := kms.Options{Endpoints: []string{"grpc://" + address}, NodeUUID: node, Budget: 3 * time.Second}
	if change != nil {
		change(&o)
	}
	p, err := kms.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// enroll has a key sealed.
func enroll(t testing.TB, p *kms.Provider) (*secret.Bytes, []byte) {
	t.Helper()
	pass, token, err := p.Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pass.Wipe)
	return pass, token
}

// opens checks that a token gives the passphrase.
func opens(t testing.TB, p *kms.Provider, token []byte, want *secret.Bytes) {
	t.Helper()
	got, err := p.Recover(t.Context(), keys.Request{}, token)
	if err != nil || !got.Equal(want) {
		t.Errorf("the same %v, %v", got.Equal(want), err)
	}
	got.Wipe()
}

// plain is a connection without TLS. from, if it is not "", is the address that
// it comes from.
func plain(t testing.TB, address, from string) *grpc.ClientConn {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return connect(t, address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return d.DialContext(ctx, "tcp", to) }))
}

func connect(t testing.TB, address string, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// party is an authority, the server's certificate, and the files of both.
type party struct {
	dir       string
	authority *pki.Authority
	ca        []byte
}

func newParty(t testing.TB) party {
	t.Helper()
	a, ca, err := pki.NewAuthority("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	p := party{t.TempDir(), a, ca.Cert}
	if err := ca.Write(p.in("ca.crt"), p.in("ca.key")); err != nil {
		t.Fatal(err)
	}
	p.serverPair(t)
	return p
}

func (p party) in(name string) string { return filepath.Join(p.dir, name) }

// serverPair writes a new certificate of the server in the place of the old one.
func (p party) serverPair(t testing.TB) {
	t.Helper()
	pair, err := p.authority.Issue(pki.Request{Name: "kms", Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"server.crt", "server.key"} {
		_ = os.Remove(p.in(name))
	}
	if err := pair.Write(p.in("server.crt"), p.in("server.key")); err != nil {
		t.Fatal(err)
	}
}

// config is the server's side.
func (p party) config(t testing.TB, auth tls.ClientAuthType) *tls.Config {
	t.Helper()
	r, err := pki.NewReloader(pki.Files{Cert: p.in("server.crt"), Key: p.in("server.key"), Authorities: p.in("ca.crt"), ClientAuth: auth})
	if err != nil {
		t.Fatal(err)
	}
	return r.Server()
}

// secure is an Options change: TLS, certificates of clients optional, operators.
func (p party) secure(t testing.TB) func(*server.Options) {
	return func(o *server.Options) {
		o.Plaintext, o.TLS = false, p.config(t, tls.VerifyClientCertIfGiven)
		o.AdminTLS = p.config(t, tls.RequireAndVerifyClientCert)
	}
}

// client issues a certificate for a client.
func (p party) client(t testing.TB, name string, roles ...role.Role) pki.Pair {
	t.Helper()
	pair, err := p.authority.Issue(pki.Request{Name: name, Client: true, Roles: roles})
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// as is a kms.Options change: TLS, with a certificate if there is a name.
func (p party) as(t testing.TB, name string) func(*kms.Options) {
	return func(o *kms.Options) {
		for i, e := range o.Endpoints {
			o.Endpoints[i] = "https" + e[len("grpc"):]
		}
		o.Authorities = p.ca
		if name != "" {
			pair := p.client(t, name)
			o.Certificate, o.Key = pair.Cert, pair.Key
		}
	}
}

// operator is a connection with a certificate of these roles; with none if there
// is no name.
func (p party) operator(t testing.TB, address, name string, roles ...role.Role) *grpc.ClientConn {
	t.Helper()
	pool, err := pki.ParsePool(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if name != "" {
		pair, err := p.client(t, name, roles...).TLS()
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return connect(t, address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

func seal(ctx context.Context, cc *grpc.ClientConn, node string, data []byte) ([]byte, error) {
	r, err := wire.NewKMSServiceClient(cc).Seal(ctx, &wire.Request{NodeUuid: node, Data: data})
	return r.GetData(), err
}

func unseal(ctx context.Context, cc *grpc.ClientConn, node string, data []byte) ([]byte, error) {
	r, err := wire.NewKMSServiceClient(cc).Unseal(ctx, &wire.Request{NodeUuid: node, Data: data})
	return r.GetData(), err
}
