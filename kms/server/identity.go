package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// Reasons of the front, besides those of the keeper.
const (
	otherNode     = "other-node"     // the certificate names another one
	noCertificate = "no-certificate" // one is needed
)

// caller is the other side of a connection: where it is, and what it has proven.
type caller struct {
	source netip.Addr
	role   role.Role
	cert   *x509.Certificate // nil without one that was verified and is good now
	shown  []*x509.Certificate
}

func callerOf(ctx context.Context) caller {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return caller{}
	}
	c := caller{source: addrOf(p.Addr)}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
		c.shown = info.State.PeerCertificates
		if c.cert = verified(info.State, time.Now()); c.cert != nil {
			c.role = pki.RoleOf(info.State)
		}
	}
	return c
}

// verified is the certificate of the other side, if its chain was verified, and no
// certificate of it has ended since.
func verified(state tls.ConnectionState, now time.Time) *x509.Certificate {
	ended := func(c *x509.Certificate) bool { return now.After(c.NotAfter) }
	for _, chain := range state.VerifiedChains {
		if len(chain) > 0 && !slices.ContainsFunc(chain, ended) {
			return chain[0]
		}
	}
	return nil
}

// name is who is proven to ask, for the record; "" without a certificate.
func (c caller) name() string {
	if c.cert == nil {
		return ""
	}
	return c.cert.Subject.CommonName
}

// serial is the number of the certificate, in hex; "" without one.
func (c caller) serial() string {
	if c.cert == nil {
		return ""
	}
	return c.cert.SerialNumber.Text(16)
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
		s.record(c, op, node, otherNode)
		return req, refuse(codes.PermissionDenied, otherNode, "denied: the client certificate is that of another node", 0)
	case s.o.Clients.needs(node):
		s.record(c, op, node, noCertificate)
		return req, refuse(codes.Unauthenticated, noCertificate, "this node needs a client certificate that names it", 0)
	}
	return req, nil
}

// record puts a refusal of the front on record.
func (s *Server) record(c caller, op string, node blob.Node, reason string) {
	s.count.certificatesRefused.Add(1)
	s.count.outcome(op, reason)
	e := audit.Event{Op: op, Node: string(node), Address: c.source.String(), Actor: c.name(), Serial: c.serial(), Outcome: "denied", Code: reason, Rule: "clients"}
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
