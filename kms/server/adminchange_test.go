package server_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
)

// TestChangesDoNotOverwrite: a change that was made for another policy than the one
// that is there changes nothing.
func TestChangesDoNotOverwrite(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	a, ctx := admins(t, ca, r), within(t)
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	here := &wire.Policy{Networks: []string{"127.0.0.0/8"}}
	rate := &wire.Policy{Rate: &wire.RateLimit{PerHour: 60}}
	both := &wire.Policy{Networks: here.GetNetworks(), Rate: rate.GetRate()}
	ofNode := func(p, expected *wire.Policy) error {
		_, err := a.SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Node{Node: nodeA}, Policy: p, Expected: expected})
		return err
	}
	ofAll := func(p, expected *wire.Policy, was wire.Enrolment) error {
		_, err := a.SetPolicy(ctx, &wire.SetPolicyRequest{Target: &wire.SetPolicyRequest_Default{Default: true}, Policy: p, Expected: expected, ExpectedEnrolment: was})
		return err
	}
	approve := func(p, expected *wire.Policy) error {
		_, err := a.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, Policy: p, Expected: expected})
		return err
	}
	is := func(node string, want *wire.Policy) {
		t.Helper()
		got, err := a.GetPolicy(ctx, &wire.GetPolicyRequest{Node: node})
		if p := got.GetPolicy(); err != nil || len(p.GetNetworks()) != len(want.GetNetworks()) || p.GetRate().GetPerHour() != want.GetRate().GetPerHour() {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	}
	code(t, "the first", ofNode(here, &wire.Policy{}), codes.OK)
	code(t, "too late", ofNode(rate, &wire.Policy{}), codes.Aborted)
	is(nodeA, here)
	code(t, "again", ofNode(both, here), codes.OK)
	code(t, "an approval, too late", approve(rate, here), codes.Aborted)
	is(nodeA, both)
	code(t, "an approval", approve(rate, both), codes.OK)
	is(nodeA, rate)
	code(t, "not compared", ofNode(here, nil), codes.OK)
	code(t, "not a policy", ofNode(here, &wire.Policy{Networks: []string{"x"}}), codes.InvalidArgument)

	code(t, "the first default", ofAll(here, &wire.Policy{}, wire.Enrolment_ENROLMENT_OPEN), codes.OK)
	code(t, "too late", ofAll(rate, &wire.Policy{}, 0), codes.Aborted)
	code(t, "another enrolment", ofAll(rate, here, wire.Enrolment_ENROLMENT_ALLOW_LIST), codes.Aborted)
	is("", here)
	code(t, "again", ofAll(both, here, 0), codes.OK)
	is("", both)
}

// TestTestPolicyAtTheLimit: a node that used up its rate is one that is served.
func TestTestPolicyAtTheLimit(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	b := open(t, t.TempDir(), policy.Rules{Enrol: policy.Open, Limit: policy.Limit{PerHour: 1, Burst: 1}})
	t.Cleanup(b.close)
	r := start(t, b, ca.secure(t))
	ctx, node := within(t), ca.operator(t, r.nodes, "")
	sealed, err := seal(ctx, node, nodeA, make([]byte, 32))
	code(t, "seal", err, codes.OK)
	_, err = unseal(ctx, node, nodeA, sealed)
	code(t, "unseal", err, codes.OK)
	_, err = unseal(ctx, node, nodeA, sealed)
	code(t, "one too many", err, codes.ResourceExhausted)
	s, err := admins(t, ca, r).TestPolicy(ctx, &wire.TestPolicyRequest{Policy: &wire.Policy{Networks: []string{"192.0.2.0/24"}}})
	if all := collect(t, s, err); len(all) != 1 || all[0].GetNode() != nodeA || all[0].GetRule() != "rules.networks" {
		t.Errorf("%v", all)
	}
}

// TestEndOfApproval: an operator makes an end sooner, an admin any; none is over.
func TestEndOfApproval(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	ctx := within(t)
	admin, operator := admins(t, ca, r), wire.NewAdminClient(ca.operator(t, r.operators, "olga", role.Operator))
	in := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
	for _, s := range []struct {
		name    string
		by      wire.AdminClient
		end     *timestamppb.Timestamp
		without bool
		want    codes.Code
		ends    time.Duration // about; 0: never
	}{
		{"over", admin, in(-time.Second), false, codes.InvalidArgument, 0},
		{"both", admin, in(time.Hour), true, codes.InvalidArgument, 0},
		{"for the first time", operator, in(3 * time.Hour), false, codes.OK, 3 * time.Hour},
		{"none is given", operator, nil, false, codes.OK, 3 * time.Hour},
		{"sooner", operator, in(time.Hour), false, codes.OK, time.Hour},
		{"later", operator, in(2 * time.Hour), false, codes.PermissionDenied, time.Hour},
		{"taken away", operator, nil, true, codes.PermissionDenied, time.Hour},
		{"later, by an admin", admin, in(2 * time.Hour), false, codes.OK, 2 * time.Hour},
		{"taken away by an admin", admin, nil, true, codes.OK, 0},
		{"a first end", operator, in(time.Hour), false, codes.OK, time.Hour},
	} {
		_, err := s.by.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeA, ExpiresAt: s.end, WithoutEnd: s.without})
		code(t, s.name, err, s.want)
		n, err := admin.GetNode(ctx, &wire.GetNodeRequest{Node: nodeA})
		if status.Code(err) == codes.NotFound {
			continue // not approved yet
		}
		left := time.Until(n.GetExpiresAt().AsTime())
		if (n.GetExpiresAt() == nil) != (s.ends == 0) || s.ends > 0 && (left > s.ends || left < s.ends-30*time.Minute) {
			t.Errorf("%s: ends %v", s.name, n.GetExpiresAt())
		}
	}
}

// TestPurge: who waits since before a time is taken away, and who was approved is not.
func TestPurge(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	b := open(t, t.TempDir(), policy.Rules{})
	t.Cleanup(b.close)
	r := start(t, b, ca.secure(t))
	a, ctx, node := admins(t, ca, r), within(t), ca.operator(t, r.nodes, "")
	for _, id := range []string{nodeA, nodeB} {
		_, err := seal(ctx, node, id, make([]byte, 32))
		code(t, "a stranger", err, codes.FailedPrecondition)
	}
	_, err := a.ApproveNode(ctx, &wire.ApproveNodeRequest{Node: nodeB})
	code(t, "approve", err, codes.OK)
	purge := func(at *timestamppb.Timestamp, want codes.Code, n uint64) {
		t.Helper()
		got, err := a.PurgeNodes(ctx, &wire.PurgeNodesRequest{PendingBefore: at, Reason: "made up"})
		if status.Code(err) != want || got.GetPurged() != n {
			t.Errorf("%v, %v", got, err)
		}
	}
	purge(nil, codes.InvalidArgument, 0)
	purge(timestamppb.New(time.Now().Add(time.Hour)), codes.InvalidArgument, 0)
	purge(timestamppb.New(time.Now().Add(-time.Hour)), codes.OK, 0)
	purge(timestamppb.Now(), codes.OK, 1)
	_, err = a.GetNode(ctx, &wire.GetNodeRequest{Node: nodeB})
	code(t, "approved", err, codes.OK)
	if rec := last(t, r, "purge"); rec.Outcome != "done" || rec.Reason != "made up" || rec.Role != "admin" {
		t.Errorf("%+v", rec)
	}
}
