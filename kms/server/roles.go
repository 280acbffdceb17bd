package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
)

// needs is the role for a call of operators, as admin.proto says. A call that is
// not here is allowed to nobody.
func needs(method string) role.Role {
	switch strings.TrimPrefix(method, "/"+wire.Admin_ServiceDesc.ServiceName+"/") {
	case "ListNodes", "GetNode", "GetPolicy", "Explain", "TestPolicy", "GetKEKStatus", "TailAudit", "VerifyAudit":
		return role.Reader
	case "ApproveNode", "FreezeNode", "ThawNode", "RotateNodeKey":
		return role.Operator
	case "RevokeNode", "ForgetNode", "PurgeNodes", "SetPolicy", "RetireNodeKey", "RotateKEK", "RewrapKEK", "RetireKEK", "Backup":
		return role.Admin
	}
	return role.None
}

func isAdmin(method string) bool {
	return strings.HasPrefix(method, "/"+wire.Admin_ServiceDesc.ServiceName+"/")
}

// mayCall refuses a call of operators to a client without the role for it, and to
// one whose certificate is good no more.
func (g gate) mayCall(ctx context.Context, method string) error {
	if !isAdmin(method) {
		return nil
	}
	c, need := callerOf(ctx), needs(method)
	if !c.role.Allows(need) {
		return g.mayNot(c, method, need)
	}
	if err := g.trusts(c); err != nil {
		c.cert, c.role = nil, role.None
		g.log.Warn("a client certificate is good no more", "source", c.source, "error", err)
		return g.mayNot(c, method, need)
	}
	return nil
}

// mayNot counts a refusal. On record are those of clients that are known: others
// could fill the log, and have the server sync it, as they like.
func (g gate) mayNot(c caller, method string, need role.Role) error {
	g.count.rolesRefused.Add(1)
	if c.cert == nil {
		if others, ok := g.strangers.now(time.Now()); ok {
			g.log.Warn("an operator's call without a certificate was refused", "method", method, "source", c.source, "needs", need, "others_since", others)
		}
		return status.Errorf(codes.Unauthenticated, "this call needs a client certificate with the role %s", need)
	}
	g.log.Warn("an operator's call was refused", "method", method, "source", c.source, "name", c.name(), "role", c.role, "needs", need)
	g.note(audit.Event{Op: "call", Address: c.source.String(), Actor: c.name(), Role: roleText(c.role), Serial: c.serial(), Outcome: "denied", Code: "role", Detail: method})
	return status.Errorf(codes.PermissionDenied, "this call needs the role %s, the certificate of %q has %s", need, c.name(), c.role)
}

// roleText is a role for the record; "" for none.
func roleText(r role.Role) string {
	if r == role.None {
		return ""
	}
	return r.String()
}

// seldom lets something through once a second, and counts the rest.
type seldom struct {
	mu   sync.Mutex
	last time.Time
	rest int
}

// now reports whether it is time, and how many did not get through since.
func (s *seldom) now(at time.Time) (rest int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.last.IsZero() && at.Sub(s.last) < time.Second {
		s.rest++
		return 0, false
	}
	rest, s.rest, s.last = s.rest, 0, at
	return rest, true
}
