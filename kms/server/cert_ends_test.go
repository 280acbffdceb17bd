package server_test

import (
	"crypto/tls"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// shortly is a connection with a certificate that ends soon.
func (p party) shortly(t *testing.T, address, name string, roles ...role.Role) *grpc.ClientConn {
	t.Helper()
	pair, err := p.authority.Issue(pki.Request{Name: name, Client: true, TTL: 3 * time.Second, Roles: roles})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := pair.TLS()
	if err != nil {
		t.Fatal(err)
	}
	pool, err := pki.ParsePool(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{shown}})))
}

// ends checks that a call which went on ends with that code, soon.
func ends(t *testing.T, s wire.Admin_TailAuditClient, code codes.Code) {
	t.Helper()
	for {
		_, err := s.Recv()
		if err == nil {
			continue
		}
		if status.Code(err) != code || errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}
		return
	}
}

// TestCertificateEnds: a certificate that has ended counts no more on connections
// that were made with it, be it an operator's or a node's, nor in calls that go on.
func TestCertificateEnds(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) {
		ca.secure(t)(o)
		o.Clients.Required, o.Limits.Judge = true, 100*time.Millisecond
	})
	admin, node := wire.NewAdminClient(ca.shortly(t, r.operators, "root", role.Admin)), ca.shortly(t, r.nodes, nodeA)
	follow, err := admin.TailAudit(within(t), &wire.TailAuditRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := admin.GetKEKStatus(within(t), &wire.GetKEKStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	sealed, err := seal(within(t), node, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	ends(t, follow, codes.Unauthenticated)
	if _, err := admin.RotateKEK(within(t), &wire.RotateKEKRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("an operator: %v", err)
	}
	if _, err := unseal(within(t), node, nodeA, sealed); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a node: %v", err)
	}
}

// TestAuthorityReplaced: the certificates of an authority that is trusted no more
// count no more for operators, on connections that were made with them, too.
func TestAuthorityReplaced(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) {
		ca.secure(t)(o)
		o.AdminOnNodes, o.Limits.Judge = true, 100*time.Millisecond
	})
	for _, address := range []string{r.operators, r.nodes} {
		a := wire.NewAdminClient(ca.operator(t, address, "root", role.Admin))
		follow, err := a.TailAudit(within(t), &wire.TailAuditRequest{Follow: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.GetKEKStatus(within(t), &wire.GetKEKStatusRequest{}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if _, err := a.RotateKEK(within(t), &wire.RotateKEKRequest{}); status.Code(err) != codes.Unauthenticated {
				t.Errorf("an operator: %v", err)
			}
			ends(t, follow, codes.Unauthenticated)
		}()
	}
	_, other, err := pki.NewAuthority("other", 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ca.in("new.crt"), other.Cert, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(ca.in("new.crt"), ca.in("ca.crt")); err != nil {
		t.Fatal(err)
	}
}
