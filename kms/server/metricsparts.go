package server

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// outcome is what became of a node's request: "allowed", or the reason that it was
// not. Reasons are a fixed number of words.
type outcome struct{ op, answer string }

// answered counts what the keeper said, whatever the node is told.
func (c *counts) answered(op string, err error) {
	answer := "allowed"
	if err != nil {
		answer = reasonOf(err)
	}
	c.outcome(op, answer)
}

func (c *counts) outcome(op, answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.outcomes == nil {
		c.outcomes = map[outcome]int64{}
	}
	c.outcomes[outcome{op, answer}]++
}

// answers are all words that an outcome has. Each is shown from the start with 0: a
// rate does not see the first one of a series that begins with it.
func answers() []string {
	words := []string{"allowed", "internal", "overload", otherNode, noCertificate}
	for _, r := range []policy.Reason{
		policy.UnknownNode, policy.PendingApproval, policy.ApprovalEnded, policy.NodeFrozen, policy.NodeRevoked, policy.NodeForgotten,
		policy.WrongNetwork, policy.RateLimited, policy.Invalid,
		keeper.BadRequest, keeper.ImportOff, keeper.NotAuthentic, keeper.KeyRetired, keeper.Imported, keeper.TooMany, keeper.TooManyPending,
		keeper.NoKEK, keeper.KEKVersion, keeper.KEKRefuses, keeper.NoStore, keeper.NoAudit,
	} {
		words = append(words, string(r))
	}
	return words
}

func (c *counts) writeOutcomes(w io.Writer) {
	all := map[outcome]int64{}
	for _, op := range []string{"seal", "unseal"} {
		for _, answer := range answers() {
			all[outcome{op, answer}] = 0
		}
	}
	c.mu.Lock()
	maps.Copy(all, c.outcomes)
	c.mu.Unlock()
	lines := make([]string, 0, len(all))
	for o, n := range all {
		lines = append(lines, fmt.Sprintf("cryptctl_kms_answers_total{op=%q,answer=%q} %d\n", o.op, o.answer, n))
	}
	slices.Sort(lines)
	fmt.Fprint(w, "# HELP cryptctl_kms_answers_total Requests of nodes by what became of them: allowed, or the reason.\n"+
		"# TYPE cryptctl_kms_answers_total counter\n", strings.Join(lines, ""))
}

// writeParts writes what the server depends on.
func (s *Server) writeParts(w io.Writer) {
	fmt.Fprint(w, "# HELP cryptctl_kms_part_up Whether a part that answers depend on is available.\n# TYPE cryptctl_kms_part_up gauge\n")
	for _, part := range each(s.parts.state()) {
		up := 1
		if part.err != nil {
			up = 0
		}
		fmt.Fprintf(w, "cryptctl_kms_part_up{part=%q} %d\n", part.name, up)
	}
	if n, ok := s.o.Keeper.Count(); ok {
		fmt.Fprintf(w, "# HELP cryptctl_kms_nodes Nodes that there were at the start, and those made by this server since.\n"+
			"# TYPE cryptctl_kms_nodes gauge\ncryptctl_kms_nodes %d\n", n)
	}
	s.writeCertificates(w)
}

// writeCertificates writes until when the certificates are good that the listeners
// would show now.
func (s *Server) writeCertificates(w io.Writer) {
	fmt.Fprint(w, "# HELP cryptctl_kms_certificate_expires_seconds When the certificate of a listener ends, in Unix time.\n"+
		"# TYPE cryptctl_kms_certificate_expires_seconds gauge\n")
	for _, l := range []struct {
		name   string
		config *tls.Config
	}{{"nodes", s.o.TLS}, {"operators", s.o.AdminTLS}} {
		if leaf := leafOf(l.config); leaf != nil {
			fmt.Fprintf(w, "cryptctl_kms_certificate_expires_seconds{listener=%q} %d\n", l.name, leaf.NotAfter.Unix())
		}
	}
}

// leafOf is the certificate that a configuration would show now; nil if that
// cannot be said without a client.
func leafOf(c *tls.Config) *x509.Certificate {
	if c == nil {
		return nil
	}
	if c.GetConfigForClient != nil {
		if chosen, err := c.GetConfigForClient(&tls.ClientHelloInfo{}); err == nil && chosen != nil {
			c = chosen
		}
	}
	if len(c.Certificates) == 0 {
		return nil
	}
	return c.Certificates[0].Leaf
}

// reasonOf is the word for why the keeper refused.
func reasonOf(err error) string {
	if e, ok := errors.AsType[*keeper.Error](err); ok {
		return string(e.Reason)
	}
	return "internal"
}
