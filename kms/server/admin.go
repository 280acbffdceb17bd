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
)

// admin is the service that operators call. Roles were judged before.
type admin struct {
	wire.UnimplementedAdminServer
	*Server
}

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

// ListNodes implements the service.
func (a admin) ListNodes(r *wire.ListNodesRequest, out wire.Admin_ListNodesServer) error {
	for info, err := range a.o.Keeper.Nodes(out.Context()) {
		if err != nil {
			return operatorAnswer(err)
		}
		n := nodeOf(info)
		if len(r.GetStates()) > 0 && !slices.Contains(r.GetStates(), n.GetState()) {
			continue
		}
		if err := out.Send(n); err != nil {
			return err
		}
	}
	return nil
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

// ApproveNode implements the service. A node's own networks and limit stay.
func (a admin) ApproveNode(ctx context.Context, r *wire.ApproveNodeRequest) (*wire.Node, error) {
	until, err := timeOf("expires", r.GetExpires())
	if err != nil {
		return nil, err
	}
	grant := keeper.Approval{Until: until}
	info, err := a.o.Keeper.Info(ctx, r.GetUuid())
	if err != nil && !errors.Is(err, keeper.ErrUnknown) {
		return nil, operatorAnswer(err)
	}
	grant.Networks, grant.Limit = info.Policy.Networks, info.Policy.Limit
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
	}
	return wire.NodeState_NODE_STATE_UNSPECIFIED // forgotten, which has no number on the wire
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
		n.Keys = append(n.Keys, &wire.NodeKey{Version: key.Version, Created: timestamp(key.Made), Primary: at == len(i.Keys)-1, KekVersion: kekNumber(key.KEK)})
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
