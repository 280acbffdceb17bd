package kms_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
	"github.com/cryptctl/cryptctl/secret"
)

const nodeUUID = "4c4c4544-0042-3510-8051-b7c04f4e3432"

// fake answers as the reference server does, without its second of sleep: one key
// for all nodes, and random bytes for a blob that does not open.
type fake struct {
	wire.UnimplementedKMSServiceServer
	aead cipher.AEAD

	mu    sync.Mutex
	calls []call
	// answer, when set, is asked in the place of all this. n counts from 0.
	answer func(ctx context.Context, n int, c call) (*wire.Response, error)
}

type call struct {
	method string
	uuid   string
	data   []byte
	at     time.Time
}

func newFake() *fake {
	key := make([]byte, 32)
	rand.Read(key)
	block, _ := aes.NewCipher(key)
	aead, _ := cipher.NewGCM(block)
	return &fake{aead: aead}
}

func (f *fake) note(ctx context.Context, method string, r *wire.Request) (*wire.Response, error, bool) {
	f.mu.Lock()
	c := call{method, r.GetNodeUuid(), slices.Clone(r.GetData()), time.Now()}
	n, answer := len(f.calls), f.answer
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	if answer == nil {
		return nil, nil, false
	}
	res, err := answer(ctx, n, c)
	return res, err, res != nil || err != nil
}

// seen returns the calls up to now.
func (f *fake) seen() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *fake) Seal(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	if res, err, done := f.note(ctx, "Seal", r); done {
		return res, err
	}
	if len(r.GetData()) != 32 {
		return nil, status.Error(codes.InvalidArgument, "incorrect data length")
	}
	nonce := make([]byte, 12)
	rand.Read(nonce)
	return &wire.Response{Data: f.aead.Seal(nonce, nonce, r.GetData(), nil)}, nil
}

func (f *fake) Unseal(ctx context.Context, r *wire.Request) (*wire.Response, error) {
	if res, err, done := f.note(ctx, "Unseal", r); done {
		return res, err
	}
	if len(r.GetData()) != 60 {
		return nil, status.Error(codes.InvalidArgument, "incorrect data length")
	}
	value, err := f.aead.Open(nil, r.GetData()[:12], r.GetData()[12:], nil)
	if err != nil {
		value = make([]byte, 32)
		rand.Read(value)
	}
	return &wire.Response{Data: value}, nil
}

// serve has a fake listen, with TLS if there is a configuration, and returns its
// host and port.
func serve(t testing.TB, f *fake, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, f, config)
	return l.Addr().String()
}

func serveOn(t testing.TB, l net.Listener, f *fake, config *tls.Config) {
	var options []grpc.ServerOption
	if config != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(config)))
	}
	s := grpc.NewServer(options...)
	wire.RegisterKMSServiceServer(s, f)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

// mute accepts connections and says nothing.
func mute(t testing.TB) string {
	t.Helper()
	return raw(t, func(c net.Conn) {
		buf := make([]byte, 1024)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
		}
	})
}

// raw serves each connection with a function.
func raw(t testing.TB, each func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Add(1)
	go func() {
		defer all.Done()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Add(1)
			go func() { defer all.Done(); defer c.Close(); each(c) }()
		}
	}()
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

// dead is an address where nobody listens.
func dead(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// provider is one with little patience, for tests of what goes wrong.
func provider(t testing.TB, change func(*kms.Options), endpoints ...string) *kms.Provider {
	t.Helper()
	opts := kms.Options{Endpoints: endpoints, NodeUUID: nodeUUID}
	if change != nil {
		change(&opts)
	}
	p, err := kms.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func within(d time.Duration) func(*kms.Options) {
	return func(o *kms.Options) { o.Budget = d }
}

// works enrolls and recovers once.
func works(t testing.TB, p *kms.Provider) {
	t.Helper()
	pass, token, err := p.Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Errorf("Enroll: %v", err)
		return
	}
	defer pass.Wipe()
	again, err := p.Recover(t.Context(), keys.Request{}, token)
	if err != nil || !again.Equal(pass) {
		t.Errorf("Recover gives the same: %v, %v", again.Equal(pass), err)
	}
	again.Wipe()
}

// party is a certificate authority with a server's and a client's certificate.
type party struct {
	ca             []byte
	server, client pki.Pair
}

func newParty(t testing.TB) party {
	t.Helper()
	a, ca, err := pki.NewAuthority("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Issue(pki.Request{Name: "kms", Server: true, DNS: []string{"kms.example.com"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.Issue(pki.Request{Name: nodeUUID, Client: true, Roles: []role.Role{role.Reader}})
	if err != nil {
		t.Fatal(err)
	}
	return party{ca.Cert, s, c}
}

// config is the server's side.
func (p party) config(t testing.TB) *tls.Config {
	t.Helper()
	pair, err := p.server.TLS()
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func (p party) trusted(o *kms.Options) { o.Authorities = p.ca }

// keyOf reads a private key back, which secret.Bytes do not show.
func keyOf(p pki.Pair) *secret.Bytes { return p.Key.Clone() }

func hexOf(b []byte) string { return hex.EncodeToString(b) }

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}
