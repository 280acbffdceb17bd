package keeper_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
)

var errJudged = errors.New("judged")

// TestApproveKeepsAndJudges: an approval leaves what it is told to leave, and one
// that is judged sees the node as it is.
func TestApproveKeepsAndJudges(t *testing.T) {
	b := start(t, open())
	defer b.stop()
	home := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	is := func(what string, networks, perHour int, state policy.State) {
		t.Helper()
		i, err := b.Info(t.Context(), nodeA)
		if err != nil || len(i.Policy.Networks) != networks || i.Policy.Limit.PerHour != perHour || i.Policy.State != state {
			t.Errorf("%s: %+v, %v", what, i.Policy, err)
		}
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Networks: home, Limit: policy.Limit{PerHour: 7}}))
	b.ok(b.Freeze(t.Context(), op, nodeA))
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Keep: true, Limit: policy.Limit{PerHour: 9}}))
	is("kept", 1, 7, policy.Approved)
	b.ok(b.Revoke(t.Context(), op, nodeA))
	seen := policy.Unknown
	err := b.Approve(t.Context(), op, nodeA, keeper.Approval{Reinstate: true, Judge: func(n policy.Node) error {
		seen = n.State
		return errJudged
	}})
	if !errors.Is(err, errJudged) || seen != policy.Revoked {
		t.Errorf("judged %q: %v", seen, err)
	}
	is("refused", 1, 7, policy.Revoked)
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Reinstate: true}))
	is("replaced", 0, 0, policy.Approved)
}

// TestChangeRules: a part is changed of the rules that are in force, also of those
// that another server set.
func TestChangeRules(t *testing.T) {
	b := start(t, open())
	defer b.stop()
	_, err := b.SetRules(t.Context(), op, policy.Rules{Enrol: policy.AllowList, Limit: policy.Limit{PerHour: 5}})
	b.ok(err)
	before, err := b.ChangeRules(t.Context(), op, func(r policy.Rules) (policy.Rules, error) { r.Limit.PerHour++; return r, nil })
	b.ok(err)
	now, err := b.Rules(t.Context())
	if err != nil || before.Limit.PerHour != 5 || now.Limit.PerHour != 6 || now.Enrol != policy.AllowList {
		t.Errorf("before %+v, now %+v, %v", before, now, err)
	}
	_, err = b.ChangeRules(t.Context(), op, func(r policy.Rules) (policy.Rules, error) { r.Enrol = "x"; return r, nil })
	if !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("no enrolment: %v", err)
	}
	// Someone else is faster: theirs is not overwritten.
	_, err = b.ChangeRules(t.Context(), op, func(r policy.Rules) (policy.Rules, error) {
		_, err := b.SetRules(t.Context(), op, policy.Rules{Limit: policy.Limit{PerHour: 99}})
		b.ok(err)
		return r, nil
	})
	if !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("a lost race: %v", err)
	}
	if now, err = b.Rules(t.Context()); err != nil || now.Limit.PerHour != 99 {
		t.Errorf("now %+v, %v", now, err)
	}
}
