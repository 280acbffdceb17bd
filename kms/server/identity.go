package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// caller is the other side of a connection: where it is, and what it has proven.
type caller struct {
	source netip.Addr
	role   role.Role
	cert   *x509.Certificate // nil without one that was verified
}

func callerOf(ctx context.Context) caller {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}
	}
	c := caller{source: addrOf(p.Addr)}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		c.role, c.cert = pki.RoleOf(info.State), verified(info.State)
	}
	return c
}

// verified is the certificate of the other side, if its chain was verified.
func verified(state tls.ConnectionState) *x509.Certificate {
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return nil
	}
	return state.VerifiedChains[0][0]
}

// name is who is proven to ask, for the record; "" without a certificate.
func (c caller) name() string {
	if c.cert == nil {
		return ""
	}
	return c.cert.Subject.CommonName
}

// nodes are those that the certificate names.
func (c caller) nodes() (all []blob.Node) {
	if c.cert == nil {
		return nil
	}
	names := append([]string{c.cert.Subject.CommonName}, c.cert.DNSNames...)
	for _, u := range c.cert.URIs {
		if rest, ok := strings.CutPrefix(strings.ToLower(u.String()), "urn:uuid:"); ok {
			names = append(names, rest)
		}
	}
	for _, name := range names {
		if n, err := blob.ParseNode(name); err == nil {
			all = append(all, n)
		}
	}
	return all
}

// prove checks that the caller may speak for the node, as far as certificates go,
// and says in whose name. What is no UUID is left to the keeper.
func (s *Server) prove(c caller, op, uuid string) (keeper.Request, error) {
	req := keeper.Request{Node: uuid, Source: c.source}
	node, err := blob.ParseNode(uuid)
	if err != nil {
		return req, nil
	}
	named := c.nodes()
	switch {
	case slices.Contains(named, node):
		req.Actor = c.name()
	case len(named) > 0:
		s.record(c, op, node, "other-node")
		return req, refuse(codes.PermissionDenied, "other-node", "denied: the client certificate is that of another node", 0)
	case s.o.Clients.needs(node):
		s.record(c, op, node, "no-certificate")
		return req, refuse(codes.Unauthenticated, "no-certificate", "this node needs a client certificate that names it", 0)
	}
	return req, nil
}

// record puts a refusal of the front on record.
func (s *Server) record(c caller, op string, node blob.Node, reason string) {
	s.count.certificatesRefused.Add(1)
	e := audit.Event{Op: op, Node: string(node), Source: c.source.String(), Actor: c.name(), Outcome: "denied", Reason: reason, Rule: "clients"}
	s.note(e)
}

func (s *Server) note(e audit.Event) {
	if s.o.Audit == nil {
		return
	}
	if err := s.o.Audit.Append(e); err != nil {
		s.log.Error("a refusal could not be put on record", "error", err)
	}
}
