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
	return keeper.Operator{Name: c.name(), Role: roleText(c.role), Serial: c.serial(), Source: c.source, Reason: reason}
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
	rules, err := a.o.Keeper.Rules(out.Context())
	if err != nil {
		return operatorAnswer(err)
	}
	for info, err := range a.o.Keeper.Nodes(out.Context()) {
		if err != nil {
			if problems = append(problems, err); len(problems) > maxProblems {
				break
			}
			continue
		}
		n := nodeOf(info, rules)
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
	info, err := a.o.Keeper.Info(ctx, r.GetNode())
	if err != nil {
		return nil, operatorAnswer(err)
	}
	rules, err := a.o.Keeper.Rules(ctx)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return nodeOf(info, rules), nil
}

// after returns a node as it is after a change.
func (a admin) after(ctx context.Context, uuid string, err error) (*wire.Node, error) {
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return a.GetNode(ctx, &wire.GetNodeRequest{Node: uuid})
}

// ApproveNode implements the service. What an admin decided, a revocation, a node's
// own policy and the end of its approval, an operator does not take back.
func (a admin) ApproveNode(ctx context.Context, r *wire.ApproveNodeRequest) (*wire.Node, error) {
	until, err := timeOf("expires_at", r.GetExpiresAt())
	if err != nil {
		return nil, err
	}
	switch {
	case !until.IsZero() && r.GetWithoutEnd():
		return nil, status.Error(codes.InvalidArgument, "expires_at: and without_end exclude each other")
	case !until.IsZero() && !until.After(time.Now()):
		return nil, status.Error(codes.InvalidArgument, "expires_at: is in the past; to refuse the node, freeze or revoke it")
	}
	grant := keeper.Approval{Until: until, KeepUntil: until.IsZero() && !r.GetWithoutEnd(), Keep: r.GetPolicy() == nil, Reinstate: r.GetReinstate()}
	if grant.Networks, grant.Limit, err = readPolicy("policy", r.GetPolicy()); err != nil {
		return nil, err
	}
	expected, err := readExpected(r.GetExpected())
	if err != nil {
		return nil, err
	}
	have := callerOf(ctx).role
	grant.Judge = func(now policy.Node) error {
		if err := mayApprove(have, now, grant); err != nil || grant.Keep {
			return err
		}
		return expected.judge(now.Networks, now.Limit)
	}
	return a.after(ctx, r.GetNode(), a.o.Keeper.Approve(ctx, by(ctx, r.GetReason()), r.GetNode(), grant))
}

// mayApprove refuses an operator what only an admin may grant.
func mayApprove(have role.Role, now policy.Node, grant keeper.Approval) error {
	before := now.State == policy.Approved || now.State == policy.Frozen
	later := !grant.KeepUntil && (grant.Until.IsZero() || grant.Until.After(now.Until))
	switch {
	case have.Allows(role.Admin):
		return nil
	case now.State == policy.Revoked:
		return lacking("the node is revoked, and reinstating one needs the role " + role.Admin.String())
	case (before || hasOwn(now)) && !grant.Keep:
		return lacking("the node was approved before or has a policy of its own, and changing the policy of such a one needs the role " + role.Admin.String())
	case before && !now.Until.IsZero() && later:
		return lacking("the node's approval ends at " + now.Until.Format(time.RFC3339) + ", and a later end, or none, needs the role " + role.Admin.String())
	}
	return nil
}

// PurgeNodes implements the service.
func (a admin) PurgeNodes(ctx context.Context, r *wire.PurgeNodesRequest) (*wire.PurgeNodesResponse, error) {
	before, err := timeOf("pending_before", r.GetPendingBefore())
	switch {
	case err != nil:
		return nil, err
	case before.IsZero():
		return nil, status.Error(codes.InvalidArgument, "pending_before: is missing")
	case before.After(time.Now()):
		return nil, status.Error(codes.InvalidArgument, "pending_before: is in the future")
	}
	n, err := a.o.Keeper.PurgePending(ctx, by(ctx, r.GetReason()), before)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return &wire.PurgeNodesResponse{Purged: uint64(n)}, nil
}

// FreezeNode implements the service.
func (a admin) FreezeNode(ctx context.Context, r *wire.FreezeNodeRequest) (*wire.Node, error) {
	return a.after(ctx, r.GetNode(), a.o.Keeper.Freeze(ctx, by(ctx, r.GetReason()), r.GetNode()))
}

// ThawNode implements the service.
func (a admin) ThawNode(ctx context.Context, r *wire.ThawNodeRequest) (*wire.Node, error) {
	return a.after(ctx, r.GetNode(), a.o.Keeper.Thaw(ctx, by(ctx, r.GetReason()), r.GetNode()))
}

// RevokeNode implements the service.
func (a admin) RevokeNode(ctx context.Context, r *wire.RevokeNodeRequest) (*wire.Node, error) {
	return a.after(ctx, r.GetNode(), a.o.Keeper.Revoke(ctx, by(ctx, r.GetReason()), r.GetNode()))
}

// ForgetNode implements the service.
func (a admin) ForgetNode(ctx context.Context, r *wire.ForgetNodeRequest) (*wire.ForgetNodeResponse, error) {
	n, err := a.o.Keeper.Forget(ctx, by(ctx, r.GetReason()), r.GetNode(), r.GetConfirm())
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return &wire.ForgetNodeResponse{DestroyedKeys: uint32(n)}, nil
}

// RotateNodeKey implements the service.
func (a admin) RotateNodeKey(ctx context.Context, r *wire.RotateNodeKeyRequest) (*wire.Node, error) {
	_, err := a.o.Keeper.RotateKey(ctx, by(ctx, r.GetReason()), r.GetNode())
	return a.after(ctx, r.GetNode(), err)
}

// RetireNodeKey implements the service.
func (a admin) RetireNodeKey(ctx context.Context, r *wire.RetireNodeKeyRequest) (*wire.Node, error) {
	if !strings.EqualFold(r.GetConfirm(), r.GetNode()) {
		return nil, status.Error(codes.FailedPrecondition, "retiring keys destroys them for good; confirm with the node's UUID")
	}
	_, err := a.o.Keeper.RetireKeys(ctx, by(ctx, r.GetReason()), r.GetNode(), r.GetBelow())
	return a.after(ctx, r.GetNode(), err)
}

func stateOf(s policy.State) wire.NodeState {
	switch s {
	case policy.Pending:
		return wire.NodeState_NODE_STATE_PENDING
	case policy.Approved:
		return wire.NodeState_NODE_STATE_APPROVED
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
func nodeOf(i keeper.Info, rules policy.Rules) *wire.Node {
	n := &wire.Node{
		Node: string(i.Node), State: stateOf(i.Policy.State), Reason: i.Comment,
		FirstSeen: timestamp(i.Made), ApprovedAt: timestamp(i.Approved), ExpiresAt: timestamp(i.Policy.Until),
		LastSeen: timestamp(i.Seen.At), LastUnsealed: timestamp(i.Seen.Unsealed), Address: addressText(i.Seen.Source),
		Effective: effectiveOf(policy.Together(rules, i.Policy)),
	}
	if hasOwn(i.Policy) {
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
