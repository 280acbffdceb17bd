package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// GetPolicy implements the service.
func (a admin) GetPolicy(ctx context.Context, r *wire.GetPolicyRequest) (*wire.GetPolicyResponse, error) {
	rules, err := a.o.Keeper.Rules(ctx)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	if r.GetUuid() != "" {
		info, err := a.o.Keeper.Info(ctx, r.GetUuid())
		if err != nil {
			return nil, operatorAnswer(err)
		}
		if own := info.Policy; len(own.Networks) > 0 || own.Limit != (policy.Limit{}) {
			return &wire.GetPolicyResponse{Policy: policyOf(own.Networks, own.Limit), Enrolment: enrolmentOf(rules.Enrol)}, nil
		}
	}
	return &wire.GetPolicyResponse{Policy: policyOf(rules.Networks, rules.Limit), Inherited: r.GetUuid() != "", Enrolment: enrolmentOf(rules.Enrol)}, nil
}

// SetPolicy implements the service.
func (a admin) SetPolicy(ctx context.Context, r *wire.SetPolicyRequest) (*wire.SetPolicyResponse, error) {
	networks, limit, err := readPolicy(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	who := by(ctx, r.GetReason())
	switch r.GetTarget().(type) {
	case *wire.SetPolicyRequest_Uuid:
		if r.GetEnrolment() != wire.Enrolment_ENROLMENT_UNSPECIFIED {
			return nil, status.Error(codes.InvalidArgument, "enrolment: is of the default policy only")
		}
		info, err := a.o.Keeper.Info(ctx, r.GetUuid())
		if err == nil {
			err = a.o.Keeper.SetPolicy(ctx, who, r.GetUuid(), networks, limit)
		}
		if err != nil {
			return nil, operatorAnswer(err)
		}
		return &wire.SetPolicyResponse{Previous: policyOf(info.Policy.Networks, info.Policy.Limit)}, nil
	case *wire.SetPolicyRequest_Default:
		if !r.GetDefault() || r.GetPolicy() == nil {
			return nil, status.Error(codes.InvalidArgument, "default: say true, and give the policy that all nodes shall have")
		}
		enrol, err := readEnrolment(r.GetEnrolment())
		if err != nil {
			return nil, err
		}
		before, err := a.o.Keeper.ChangeRules(ctx, who, func(now policy.Rules) policy.Rules {
			return policy.Rules{Enrol: cmp.Or(enrol, now.Enrol), Networks: networks, Limit: limit}
		})
		if err != nil {
			return nil, operatorAnswer(err)
		}
		return &wire.SetPolicyResponse{Previous: policyOf(before.Networks, before.Limit), PreviousEnrolment: enrolmentOf(before.Enrol)}, nil
	}
	return nil, status.Error(codes.InvalidArgument, "target: give a node's UUID, or default")
}

// Explain implements the service.
func (a admin) Explain(ctx context.Context, r *wire.ExplainRequest) (*wire.Decision, error) {
	source, err := netip.ParseAddr(r.GetAddress())
	if err != nil {
		return nil, invalid("address", err)
	}
	var trial keeper.Trial
	if trial.At, err = timeOf("at", r.GetAt()); err != nil {
		return nil, err
	}
	if r.GetPolicy() != nil {
		if trial.Node, err = a.tried(ctx, r); err != nil {
			return nil, err
		}
	}
	op := policy.Unseal
	if r.GetOperation() == wire.Operation_OPERATION_SEAL {
		op = policy.Seal
	}
	d, err := a.o.Keeper.DryRun(ctx, keeper.Request{Node: r.GetUuid(), Source: source}, op, trial)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	out := &wire.Decision{Allowed: d.Allow, Rule: d.Rule, Reason: string(d.Reason), Detail: inWords(d.Reason)}
	if d.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(d.RetryAfter)
	}
	return out, nil
}

// tried is the node of an ExplainRequest with the policy that is to be tried.
func (a admin) tried(ctx context.Context, r *wire.ExplainRequest) (*policy.Node, error) {
	networks, limit, err := readPolicy(r.GetPolicy())
	if err != nil {
		return nil, err
	}
	info, err := a.o.Keeper.Info(ctx, r.GetUuid())
	if err != nil && !errors.Is(err, keeper.ErrUnknown) {
		return nil, operatorAnswer(err)
	}
	node := info.Policy
	node.Networks, node.Limit = networks, limit
	return &node, nil
}

// TestPolicy implements the service.
func (a admin) TestPolicy(r *wire.TestPolicyRequest, out wire.Admin_TestPolicyServer) error {
	ctx := out.Context()
	networks, limit, err := readPolicy(r.GetPolicy())
	if err != nil {
		return err
	}
	at, err := timeOf("at", r.GetAt())
	if err != nil {
		return err
	}
	rules, err := a.o.Keeper.Rules(ctx)
	if err != nil {
		return operatorAnswer(err)
	}
	rules.Networks, rules.Limit = networks, limit
	for info, err := range a.o.Keeper.Nodes(ctx) {
		if err != nil {
			return operatorAnswer(err)
		}
		no, err := a.wouldRefuse(ctx, info, rules, at)
		if err != nil {
			return operatorAnswer(err)
		}
		if no == nil {
			continue
		}
		if err := out.Send(no); err != nil {
			return err
		}
	}
	return nil
}

// wouldRefuse judges one node by other rules; nil if nothing changes for it. A node
// that was not seen since the start has no address: if networks decide about it, it
// is not judged.
func (a admin) wouldRefuse(ctx context.Context, info keeper.Info, rules policy.Rules, at time.Time) (*wire.Refusal, error) {
	req := keeper.Request{Node: string(info.Node), Source: info.Seen.Source}
	now, err := a.o.Keeper.DryRun(ctx, req, policy.Unseal, keeper.Trial{At: at})
	if err != nil {
		return nil, err
	}
	then, err := a.o.Keeper.DryRun(ctx, req, policy.Unseal, keeper.Trial{At: at, Rules: &rules})
	if err != nil {
		return nil, err
	}
	no := &wire.Refusal{Uuid: string(info.Node), Address: addressText(req.Source)}
	switch {
	case !req.Source.IsValid() && (now.Reason == policy.WrongNetwork || then.Reason == policy.WrongNetwork):
		if !standing(info.Policy, at) {
			return nil, nil
		}
		no.NotJudged, no.Detail = true, "not seen since the server started; the answer depends on where it calls from"
	case now.Allow && !then.Allow:
		no.Rule, no.Reason, no.Detail = then.Rule, string(then.Reason), inWords(then.Reason)
	default:
		return nil, nil
	}
	return no, nil
}

// standing reports whether a node is served from some address.
func standing(n policy.Node, at time.Time) bool {
	if at.IsZero() {
		at = time.Now()
	}
	n.Networks = nil
	return policy.Decide(policy.Rules{}, n, policy.Request{Op: policy.Unseal}, policy.Bucket{}, at).Allow
}

// inWords is a reason for people.
func inWords(r policy.Reason) string {
	switch r {
	case policy.OK:
		return "allowed"
	case policy.UnknownNode:
		return "the node is not known, and an unseal registers none"
	case policy.PendingApproval:
		return "the node waits for an operator's approval"
	case policy.ApprovalEnded:
		return "the node's approval has ended"
	case policy.NodeFrozen:
		return "the node is frozen"
	case policy.NodeRevoked:
		return "the node is revoked"
	case policy.NodeForgotten:
		return "the node is forgotten: its keys are destroyed"
	case policy.WrongNetwork:
		return "the address is in none of the networks"
	case policy.RateLimited:
		return "too many unseals of the node"
	}
	return string(r)
}

func enrolmentOf(e policy.Enrolment) wire.Enrolment {
	if e == policy.Open {
		return wire.Enrolment_ENROLMENT_OPEN
	}
	return wire.Enrolment_ENROLMENT_ALLOW_LIST // also for "", see policy.Enrolment
}

// readEnrolment reads an enrolment from the wire; "" for none.
func readEnrolment(e wire.Enrolment) (policy.Enrolment, error) {
	switch e {
	case wire.Enrolment_ENROLMENT_UNSPECIFIED:
		return "", nil
	case wire.Enrolment_ENROLMENT_ALLOW_LIST:
		return policy.AllowList, nil
	case wire.Enrolment_ENROLMENT_OPEN:
		return policy.Open, nil
	}
	return "", status.Errorf(codes.InvalidArgument, "enrolment: there is no %d", e)
}

func policyOf(networks []netip.Prefix, limit policy.Limit) *wire.Policy {
	out := &wire.Policy{}
	for _, network := range networks {
		out.Networks = append(out.Networks, network.String())
	}
	if limit != (policy.Limit{}) {
		out.Rate = &wire.RateLimit{PerHour: uint32(limit.PerHour), Burst: uint32(limit.Burst)}
	}
	return out
}

// readPolicy reads a policy from the wire; empty for none.
func readPolicy(p *wire.Policy) (networks []netip.Prefix, limit policy.Limit, err error) {
	for i, text := range p.GetNetworks() {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, limit, invalid(fmt.Sprintf("policy.networks[%d]", i), err)
		}
		networks = append(networks, network)
	}
	limit = policy.Limit{PerHour: int(p.GetRate().GetPerHour()), Burst: int(p.GetRate().GetBurst())}
	if err := (policy.Rules{Networks: networks, Limit: limit}).Check(); err != nil {
		return nil, limit, invalid("policy", err)
	}
	return networks, limit, nil
}
