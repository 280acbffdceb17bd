package server

import (
	"fmt"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
)

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

func effectiveOf(e policy.Effective) *wire.EffectivePolicy {
	p := policyOf(e.Networks, e.Limit)
	return &wire.EffectivePolicy{Networks: p.GetNetworks(), AnyNetwork: e.Any, Rate: p.GetRate(), DefaultRate: e.Default}
}

// readPolicy reads a policy from the wire; empty for none.
func readPolicy(field string, p *wire.Policy) (networks []netip.Prefix, limit policy.Limit, err error) {
	for i, text := range p.GetNetworks() {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, limit, invalid(fmt.Sprintf("%s.networks[%d]", field, i), err)
		}
		networks = append(networks, network)
	}
	limit = policy.Limit{PerHour: int(p.GetRate().GetPerHour()), Burst: int(p.GetRate().GetBurst())}
	if err := (policy.Rules{Networks: networks, Limit: limit}).Check(); err != nil {
		return nil, limit, invalid(field, err)
	}
	return networks, limit, nil
}
