package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
)

// admin is the service that operators call. Roles were judged before.
type admin struct {
	wire.UnimplementedAdminServer
	*Server
}

// maxProblems is how many nodes that cannot be read one answer names.
const maxProblems = 10

// by is who asks and why, for the record.
func by(ctx context.Context, reason string) keeper.Operator {
	c := callerOf(ctx)
	return keeper.Operator{Name: c.name(), Source: c.source, Reason: reason}
}

func notHere(why string) error {
	return status.Error(codes.Unimplemented, "not possible on this key server: "+why)
}

func invalid(field string, err error) error {
	return status.Error(codes.InvalidArgument, field+": "+err.Error())
}

// ListNodes implements the service. A node whose record cannot be read hides no
// other: the call fails when all others were given.
func (a admin) ListNodes(r *wire.ListNodesRequest, out wire.Admin_ListNodesServer) error {
	var problems []error
	for info, err := range a.o.Keeper.Nodes(out.Context()) {
		if err != nil {
			if problems = append(problems, err); len(problems) > maxProblems {
				break
			}
			continue
		}
		n := nodeOf(info)
		if len(r.GetStates()) > 0 && !slices.Contains(r.GetStates(), n.GetState()) {
			continue
		}
		if err := out.Send(n); err != nil {
			return err
		}
	}
	return operatorAnswer(errors.Join(problems...))
}

// GetNode implements the service.
func (a admin) GetNode(ctx context.Context, r *wire.GetNodeRequest) (*wire.Node, error) {
	info, err := a.o.Keeper.Info(ctx, r.GetUuid())
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return nodeOf(info), nil
}

// after returns a node as it is after a change.
func (a admin) after(ctx context.Context, uuid string, err error) (*wire.Node, error) {
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return a.GetNode(ctx, &wire.GetNodeRequest{Uuid: uuid})
}

// ApproveNode implements the service. What an admin decided, a revocation and a
// node's own policy, an operator does not take back.
func (a admin) ApproveNode(ctx context.Context, r *wire.ApproveNodeRequest) (*wire.Node, error) {
	until, err := timeOf("expires", r.GetExpires())
	if err != nil {
		return nil, err
	}
	grant := keeper.Approval{Until: until, Keep: r.GetPolicy() == nil, Reinstate: r.GetReinstate()}
	if grant.Networks, grant.Limit, err = readPolicy(r.GetPolicy()); err != nil {
		return nil, err
	}
	have := callerOf(ctx).role
	grant.Judge = func(now policy.Node) error {
		before := now.State == policy.Approved || now.State == policy.Frozen
		own := len(now.Networks) > 0 || now.Limit != (policy.Limit{})
		switch {
		case have.Allows(role.Admin):
			return nil
		case now.State == policy.Revoked:
			return lacking("the node is revoked, and reinstating one needs the role " + role.Admin.String())
		case (before || own) && !grant.Keep:
			return lacking("the node was approved before or has a policy of its own, and changing the policy of such a one needs the role " + role.Admin.String())
		}
		return nil
	}
	return a.after(ctx, r.GetUuid(), a.o.Keeper.Approve(ctx, by(ctx, r.GetReason()), r.GetUuid(), grant))
}

// FreezeNode implements the service.
func (a admin) FreezeNode(ctx context.Context, r *wire.FreezeNodeRequest) (*wire.Node, error) {
	return a.after(ctx, r.GetUuid(), a.o.Keeper.Freeze(ctx, by(ctx, r.GetReason()), r.GetUuid()))
}

// ThawNode implements the service.
func (a admin) ThawNode(ctx context.Context, r *wire.ThawNodeRequest) (*wire.Node, error) {
	return a.after(ctx, r.GetUuid(), a.o.Keeper.Thaw(ctx, by(ctx, r.GetReason()), r.GetUuid()))
}

// RevokeNode implements the service.
func (a admin) RevokeNode(ctx context.Context, r *wire.RevokeNodeRequest) (*wire.Node, error) {
	return a.after(ctx, r.GetUuid(), a.o.Keeper.Revoke(ctx, by(ctx, r.GetReason()), r.GetUuid()))
}

// ForgetNode implements the service.
func (a admin) ForgetNode(ctx context.Context, r *wire.ForgetNodeRequest) (*wire.ForgetNodeResponse, error) {
	n, err := a.o.Keeper.Forget(ctx, by(ctx, r.GetReason()), r.GetUuid(), r.GetConfirm())
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return &wire.ForgetNodeResponse{DestroyedKeys: uint32(n)}, nil
}

// RotateNodeKey implements the service.
func (a admin) RotateNodeKey(ctx context.Context, r *wire.RotateNodeKeyRequest) (*wire.Node, error) {
	_, err := a.o.Keeper.RotateKey(ctx, by(ctx, r.GetReason()), r.GetUuid())
	return a.after(ctx, r.GetUuid(), err)
}

// RetireNodeKey implements the service.
func (a admin) RetireNodeKey(ctx context.Context, r *wire.RetireNodeKeyRequest) (*wire.Node, error) {
	if !strings.EqualFold(r.GetConfirm(), r.GetUuid()) {
		return nil, status.Error(codes.FailedPrecondition, "retiring keys destroys them for good; confirm with the node's UUID")
	}
	_, err := a.o.Keeper.RetireKeys(ctx, by(ctx, r.GetReason()), r.GetUuid(), r.GetBelow())
	return a.after(ctx, r.GetUuid(), err)
}

func stateOf(s policy.State) wire.NodeState {
	switch s {
	case policy.Pending:
		return wire.NodeState_NODE_STATE_PENDING
	case policy.Approved:
		return wire.NodeState_NODE_STATE_ACTIVE
	case policy.Frozen:
		return wire.NodeState_NODE_STATE_FROZEN
	case policy.Revoked:
		return wire.NodeState_NODE_STATE_REVOKED
	case policy.Forgotten:
		return wire.NodeState_NODE_STATE_FORGOTTEN
	}
	return wire.NodeState_NODE_STATE_UNSPECIFIED
}

// nodeOf is a node on the wire.
func nodeOf(i keeper.Info) *wire.Node {
	n := &wire.Node{
		Uuid: string(i.Node), State: stateOf(i.Policy.State), Reason: i.Comment,
		FirstSeen: timestamp(i.Made), Approved: timestamp(i.Approved), Expires: timestamp(i.Policy.Until),
		LastSeen: timestamp(i.Seen.At), LastUnsealed: timestamp(i.Seen.Unsealed), LastAddress: addressText(i.Seen.Source),
	}
	if len(i.Policy.Networks) > 0 || i.Policy.Limit != (policy.Limit{}) {
		n.Policy = policyOf(i.Policy.Networks, i.Policy.Limit)
	}
	for at, key := range i.Keys {
		n.Keys = append(n.Keys, &wire.NodeKey{Version: key.Version, Created: timestamp(key.Made), Primary: at == len(i.Keys)-1, KekVersion: key.KEK})
	}
	return n
}

func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeOf is a time from the wire; zero for none.
func timeOf(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, invalid(field, err)
	}
	return t.AsTime(), nil
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
