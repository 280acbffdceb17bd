package server

import (
	"context"
	"strings"

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
	case "RevokeNode", "ForgetNode", "SetPolicy", "RetireNodeKey", "RotateKEK", "RewrapKEK", "Backup":
		return role.Admin
	}
	return role.None
}

// mayCall refuses a call of operators to a client without the role for it.
func (s *Server) mayCall(ctx context.Context, method string) error {
	if !strings.HasPrefix(method, "/"+wire.Admin_ServiceDesc.ServiceName+"/") {
		return nil
	}
	c, need := callerOf(ctx), needs(method)
	if c.role.Allows(need) {
		return nil
	}
	s.count.rolesRefused.Add(1)
	s.log.Warn("an operator's call was refused", "method", method, "source", c.source, "name", c.name(), "role", c.role, "needs", need)
	s.note(audit.Event{Op: "call", Source: c.source.String(), Actor: c.name(), Outcome: "denied", Reason: "role", Detail: method})
	if c.cert == nil {
		return status.Errorf(codes.Unauthenticated, "this call needs a client certificate with the role %s", need)
	}
	return status.Errorf(codes.PermissionDenied, "this call needs the role %s, the certificate of %q has %s", need, c.name(), c.role)
}
