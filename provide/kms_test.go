package provide_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/provide"
)

const nodeUUID = "6f7a8b9c-0d1e-4f2a-8b3c-4d5e6f7a8b9c"

// sealer seals by turning bits around, and notes who asked.
type sealer struct {
	wire.UnimplementedKMSServiceServer
	asked atomic.Pointer[string]
}

func (s *sealer) Seal(_ context.Context, r *wire.Request) (*wire.Response, error) {
	s.asked.Store(&r.NodeUuid)
	return &wire.Response{Data: turned(r.Data)}, nil
}

func (s *sealer) Unseal(_ context.Context, r *wire.Request) (*wire.Response, error) {
	s.asked.Store(&r.NodeUuid)
	return &wire.Response{Data: turned(r.Data)}, nil
}

func turned(data []byte) []byte {
	out := make([]byte, len(data))
	for i, b := range data {
		out[i] = ^b
	}
	return out
}

// serve starts a key server and returns its address.
func serve(t *testing.T, s *sealer, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(opts...)
	wire.RegisterKMSServiceServer(server, s)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// TestKMS: the first server that answers gives the key, and is told the node's
// UUID.
func TestKMS(t *testing.T) {
	t.Parallel()
	s := &sealer{}
	m := provide.Machine{UUID: nodeUUID}
	c := config.KMS{Endpoint: "grpc://127.0.0.1:1", Endpoints: []string{"grpc://" + serve(t, s)}}
	k := m.Keys([]config.Key{{Slot: 3, KMS: &c}})[0]
	p, token, err := k.Provider.Enroll(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wipe()
	again, err := k.Provider.Recover(t.Context(), request(), token)
	if err != nil || !again.Equal(p) || *s.asked.Load() != nodeUUID {
		t.Errorf("recovered %v, asked as %s", err, *s.asked.Load())
	}
	again.Wipe()
	if !strings.Contains(string(token), kms.TokenType) || len(k.Tokens) != 1 || !k.Random {
		t.Errorf("token %s, %+v", token, k)
	}
}

// TestKMSAuthorities: those of the configuration come before those of the machine,
// which are not for plaintext.
func TestKMSAuthorities(t *testing.T) {
	t.Parallel()
	right, rightPEM, err := pki.NewAuthority("right", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, wrongPEM, err := pki.NewAuthority("wrong", 0)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := right.Issue(pki.Request{Name: "server", Server: true, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}})
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	s := &sealer{}
	secure := "https://" + serve(t, s, grpc.Creds(credentials.NewServerTLSFromCert(&certificate)))
	plain := "grpc://" + serve(t, s)
	for _, test := range []struct {
		name    string
		machine []byte
		c       config.KMS
		opens   bool
		trusted []byte
	}{
		{"the machine's", rightPEM.Cert, config.KMS{Endpoint: secure}, true, nil},
		{"trusted beside the system's", nil, config.KMS{Endpoint: secure}, true, rightPEM.Cert},
		{"trusted beside the machine's", wrongPEM.Cert, config.KMS{Endpoint: secure}, true, rightPEM.Cert},
		{"the machine's, beside trusted ones", rightPEM.Cert, config.KMS{Endpoint: secure}, true, wrongPEM.Cert},
		{"trusted, for a key that names others", nil, config.KMS{Endpoint: secure, Authorities: wrongPEM.Cert}, false, rightPEM.Cert},
		{"trusted, in plaintext", nil, config.KMS{Endpoint: plain}, true, rightPEM.Cert},
		{"nobody's", nil, config.KMS{Endpoint: secure}, false, nil},
		{"the configuration's", wrongPEM.Cert, config.KMS{Endpoint: secure, Authorities: rightPEM.Cert}, true, nil},
		{"the wrong ones of the configuration", rightPEM.Cert, config.KMS{Endpoint: secure, Authorities: wrongPEM.Cert}, false, nil},
		{"the machine's, beside a server in plaintext", rightPEM.Cert, config.KMS{Endpoint: secure, Endpoints: []string{"grpc://127.0.0.1:1"}}, true, nil},
		{"in plaintext", rightPEM.Cert, config.KMS{Endpoint: plain}, true, nil},
		{"asked for in plaintext", nil, config.KMS{Endpoint: plain, Authorities: rightPEM.Cert}, false, nil},
	} {
		m := provide.Machine{UUID: nodeUUID, KMS: kms.Options{Authorities: test.machine, Budget: time.Second}, TrustedRoots: test.trusted}
		p, _, err := m.Keys([]config.Key{{Slot: 3, KMS: &test.c}})[0].Provider.Enroll(t.Context(), request())
		p.Wipe()
		if (err == nil) != test.opens || err != nil && !errors.Is(err, keys.ErrUnavailable) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
