package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

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
			return &wire.GetPolicyResponse{Policy: policyOf(own.Networks, own.Limit)}, nil
		}
	}
	return &wire.GetPolicyResponse{Policy: policyOf(rules.Networks, rules.Limit), Inherited: r.GetUuid() != ""}, nil
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
		rules, err := a.o.Keeper.Rules(ctx)
		if err != nil {
			return nil, operatorAnswer(err)
		}
		rules.Networks, rules.Limit = networks, limit
		before, err := a.o.Keeper.SetRules(ctx, who, rules)
		if err != nil {
			return nil, operatorAnswer(err)
		}
		return &wire.SetPolicyResponse{Previous: policyOf(before.Networks, before.Limit)}, nil
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
	out := &wire.Decision{Allowed: d.Allow, Rule: d.Rule, Detail: string(d.Reason)}
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

// TestPolicy implements the service. A node that was not seen since the server's
// start has no address to be judged by, and is left out.
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
		if !info.Seen.Source.IsValid() {
			continue
		}
		req := keeper.Request{Node: string(info.Node), Source: info.Seen.Source}
		now, err := a.o.Keeper.DryRun(ctx, req, policy.Unseal, keeper.Trial{At: at})
		if err != nil {
			return operatorAnswer(err)
		}
		then, err := a.o.Keeper.DryRun(ctx, req, policy.Unseal, keeper.Trial{At: at, Rules: &rules})
		if err != nil {
			return operatorAnswer(err)
		}
		if !now.Allow || then.Allow {
			continue
		}
		if err := out.Send(&wire.Refusal{Uuid: string(info.Node), Address: req.Source.String(), Rule: then.Rule, Detail: string(then.Reason)}); err != nil {
			return err
		}
	}
	return nil
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
