package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
	out := &wire.GetPolicyResponse{Policy: policyOf(rules.Networks, rules.Limit), Enrolment: enrolmentOf(rules.Enrol)}
	if r.GetNode() == "" {
		return out, nil
	}
	info, err := a.o.Keeper.Info(ctx, r.GetNode())
	if err != nil {
		return nil, operatorAnswer(err)
	}
	out.Effective = effectiveOf(policy.Together(rules, info.Policy))
	if out.Inherited = !hasOwn(info.Policy); !out.Inherited {
		out.Policy = policyOf(info.Policy.Networks, info.Policy.Limit)
	}
	return out, nil
}

// hasOwn reports whether a node has a policy of its own.
func hasOwn(n policy.Node) bool { return len(n.Networks) > 0 || n.Limit != (policy.Limit{}) }

// SetPolicy implements the service.
func (a admin) SetPolicy(ctx context.Context, r *wire.SetPolicyRequest) (*wire.SetPolicyResponse, error) {
	networks, limit, err := readPolicy("policy", r.GetPolicy())
	if err != nil {
		return nil, err
	}
	expected, err := readExpected(r.GetExpected())
	if err != nil {
		return nil, err
	}
	who := by(ctx, r.GetReason())
	switch r.GetTarget().(type) {
	case *wire.SetPolicyRequest_Node:
		if r.GetEnrolment() != wire.Enrolment_ENROLMENT_UNSPECIFIED {
			return nil, status.Error(codes.InvalidArgument, "enrolment: is of the default policy only")
		}
		var before policy.Node
		err := a.o.Keeper.SetPolicy(ctx, who, r.GetNode(), networks, limit, func(now policy.Node) error {
			before = now
			return expected.judge(now.Networks, now.Limit)
		})
		if err != nil {
			return nil, operatorAnswer(err)
		}
		return &wire.SetPolicyResponse{Previous: policyOf(before.Networks, before.Limit)}, nil
	case *wire.SetPolicyRequest_Default:
		if !r.GetDefault() || r.GetPolicy() == nil {
			return nil, status.Error(codes.InvalidArgument, "default: say true, and give the policy that all nodes shall have")
		}
		return a.setDefault(ctx, who, r, policy.Rules{Networks: networks, Limit: limit}, expected)
	}
	return nil, status.Error(codes.InvalidArgument, "target: give a node's UUID, or default")
}

func (a admin) setDefault(ctx context.Context, who keeper.Operator, r *wire.SetPolicyRequest, rules policy.Rules, expected *expectation) (*wire.SetPolicyResponse, error) {
	enrol, err := readEnrolment(r.GetEnrolment())
	if err != nil {
		return nil, err
	}
	was, err := readEnrolment(r.GetExpectedEnrolment())
	if err != nil {
		return nil, err
	}
	before, err := a.o.Keeper.ChangeRules(ctx, who, func(now policy.Rules) (policy.Rules, error) {
		if now.Enrol = cmp.Or(now.Enrol, policy.AllowList); was != "" && was != now.Enrol {
			return now, errOtherPolicy
		}
		rules.Enrol = cmp.Or(enrol, now.Enrol)
		return rules, expected.judge(now.Networks, now.Limit)
	})
	if err != nil {
		return nil, operatorAnswer(err)
	}
	return &wire.SetPolicyResponse{Previous: policyOf(before.Networks, before.Limit), PreviousEnrolment: enrolmentOf(before.Enrol)}, nil
}

// expectation is the policy that a change was made for; nil for any.
type expectation struct {
	networks []netip.Prefix
	limit    policy.Limit
}

var errOtherPolicy = fmt.Errorf("%w: someone else changed this policy meanwhile, and nothing of theirs was overwritten", keeper.ErrChanged)

func readExpected(p *wire.Policy) (*expectation, error) {
	if p == nil {
		return nil, nil
	}
	networks, limit, err := readPolicy("expected", p)
	return &expectation{networks, limit}, err
}

func (e *expectation) judge(networks []netip.Prefix, limit policy.Limit) error {
	if e == nil || slices.Equal(e.networks, networks) && e.limit == limit {
		return nil
	}
	return errOtherPolicy
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
	d, err := a.o.Keeper.DryRun(ctx, keeper.Request{Node: r.GetNode(), Source: source}, op, trial)
	if err != nil {
		return nil, operatorAnswer(err)
	}
	out := &wire.Decision{Allowed: d.Allow, Rule: d.Rule, Code: string(d.Reason), Detail: inWords(d.Reason)}
	if d.RetryAfter > 0 {
		out.RetryAfter = durationpb.New(d.RetryAfter)
	}
	return out, nil
}

// tried is the node of an ExplainRequest with the policy that is to be tried.
func (a admin) tried(ctx context.Context, r *wire.ExplainRequest) (*policy.Node, error) {
	networks, limit, err := readPolicy("policy", r.GetPolicy())
	if err != nil {
		return nil, err
	}
	info, err := a.o.Keeper.Info(ctx, r.GetNode())
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
	networks, limit, err := readPolicy("policy", r.GetPolicy())
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

// wouldRefuse judges one node by other rules; nil if nothing changes for it. One that
// is held back by its rate at the moment is one that is served. A node
// that was not seen since the start has no address: if networks decide about it, it
// is not judged.
func (a admin) wouldRefuse(ctx context.Context, info keeper.Info, rules policy.Rules, at time.Time) (*wire.Refusal, error) {
	req := keeper.Request{Node: string(info.Node), Source: info.Seen.Source}
	now, err := a.o.Keeper.DryRun(ctx, req, policy.Unseal, keeper.Trial{At: at, Rested: true})
	if err != nil {
		return nil, err
	}
	then, err := a.o.Keeper.DryRun(ctx, req, policy.Unseal, keeper.Trial{At: at, Rules: &rules, Rested: true})
	if err != nil {
		return nil, err
	}
	no := &wire.Refusal{Node: string(info.Node), Address: addressText(req.Source)}
	switch {
	case !req.Source.IsValid() && (now.Reason == policy.WrongNetwork || then.Reason == policy.WrongNetwork):
		if !standing(info.Policy, at) {
			return nil, nil
		}
		no.NotJudged, no.Detail = true, "not seen since the server started; the answer depends on where it calls from"
	case now.Allow && !then.Allow:
		no.Rule, no.Code, no.Detail = then.Rule, string(then.Reason), inWords(then.Reason)
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
