package keeper_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

const year = 365 * 24 * time.Hour

// jumps are what becomes of clocks: daylight saving by hand, a dead battery, a bad
// source of time, and back.
var jumps = []time.Duration{
	time.Hour, -time.Hour, 23 * time.Hour, -25 * time.Hour, year, -year, 50 * year, -100 * year, 50 * year, -56 * year, 56 * year, time.Second, -time.Second,
}

// TestClockJumps moves the clock under nodes of every standing. Whoever is shut
// out stays so; a limit gives at most one burst for a jump, and never asks to wait
// longer than for one token; and the log keeps its order.
func TestClockJumps(t *testing.T) {
	const burst, perHour = 3, 6
	o := open()
	o.Rules.Limit = policy.Limit{PerHour: perHour, Burst: burst}
	b := start(t, o)
	shut := map[string]keeper.Code{}
	node := func(n string) string { return "01234567-89ab-cdef-0123-45678900000" + n }
	raw := b.sealed(nodeA, "data")
	for n, how := range map[string]func(string) error{
		"1": func(n string) error { return b.Freeze(t.Context(), op, n) },
		"2": func(n string) error { return b.Revoke(t.Context(), op, n) },
		"3": func(n string) error { return b.forget(n, n) },
	} {
		b.sealed(node(n), "data")
		b.ok(how(node(n)))
		shut[node(n)] = map[string]keeper.Code{"1": keeper.Frozen, "2": keeper.Revoked, "3": keeper.Denied}[n]
	}
	answered, limited, refused := 0, 0, 0
	for _, jump := range jumps {
		b.pass(jump)
		for n, code := range shut {
			if _, err := b.Seal(t.Context(), from(n), secret.Random(32)); keeper.CodeOf(err) != code {
				t.Errorf("after %s, a node that is %s seals: %v", jump, code, err)
			}
			if _, err := b.Unseal(t.Context(), from(n), raw); keeper.CodeOf(err) != code {
				t.Errorf("after %s, a node that is %s: %v", jump, code, err)
			}
			refused += 2
		}
		now := 0
		for ; now <= burst; now++ {
			data, err := b.Unseal(t.Context(), from(nodeA), raw)
			b.Release(data)
			if err != nil {
				break
			}
		}
		e := b.refused(nodeA, raw, keeper.RateLimited, policy.RateLimited)
		if now > burst || e.RetryAfter <= 0 || e.RetryAfter > time.Hour/perHour {
			t.Errorf("after %s: %d at once, then to wait %s", jump, now, e.RetryAfter)
		}
		b.pass(e.RetryAfter)
		b.opens(nodeA, raw, "data")
		answered += now + 1
		limited++
	}
	records := b.log.Head().Seq
	b.stop() // verifies
	back := 0
	var last time.Time
	for r, err := range audit.Read(filepath.Join(b.dir, "audit"), 1) {
		b.ok(err)
		if r.Time.Before(last) {
			back++
		}
		last = r.Time
	}
	if back == 0 {
		t.Error("the clock of the log never went back: this test shows nothing")
	}
	t.Logf("SUMMARY fault clock: %d jumps of up to 100 years; nodes that are shut out refused %d times, limits let %d unseals through and held %d; %d records in order, the clock went back in %d of them",
		len(jumps), refused, answered, limited, records, back)
}

// TestApprovalUnderClockJumps: an approval that has an end is good between the
// time when it was given, or an hour before, as clocks of servers differ, and its
// end. A clock that forgot the year does not bring back what has ended, and one
// that was ahead does not shut a node out for good.
func TestApprovalUnderClockJumps(t *testing.T) {
	b := start(t, keeper.Options{})
	given := b.clock()
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Until: given.Add(24 * time.Hour)}))
	b.ok(b.Approve(t.Context(), op, nodeB, keeper.Approval{}))
	raw, endless := b.sealed(nodeA, "a"), b.sealed(nodeB, "b")
	allowed, refused := 0, 0
	for _, tt := range []struct {
		at   time.Duration
		good bool
	}{
		{0, true},
		{24*time.Hour - 1, true},
		{24 * time.Hour, false},
		{100 * year, false},
		{23 * time.Hour, true}, // set right
		{-time.Hour, true},
		{-time.Hour - 1, false},
		{-56 * year, false}, // 1970
		{time.Minute, true},
	} {
		b.pass(given.Add(tt.at).Sub(b.clock()))
		b.opens(nodeB, endless, "b") // without an end: whatever the clock says
		if tt.good {
			b.opens(nodeA, raw, "a")
			allowed++
		} else {
			b.refused(nodeA, raw, keeper.Pending, policy.ApprovalEnded)
			b.sealRefused(nodeA, 32, keeper.Pending, policy.ApprovalEnded)
			refused++
		}
	}
	// Approved anew, without an end: what was noted of the time is gone.
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	b.pass(-100 * year)
	b.opens(nodeA, raw, "a")
	t.Logf("SUMMARY fault clock, approvals with an end: good at %d times within, refused at %d times outside, from 1970 to 100 years ahead", allowed, refused)
}

// TestReopenedUnderAnEarlierClock: a server that starts with a clock in the past
// goes on with its log.
func TestReopenedUnderAnEarlierClock(t *testing.T) {
	dir := t.TempDir()
	b := startIn(t, dir, open())
	raw := b.sealed(nodeA, "data")
	b.stop()
	for _, jump := range []time.Duration{-56 * year, 100 * year, 0} {
		again := startIn(t, dir, open())
		again.pass(jump)
		again.opens(nodeA, raw, "data")
		again.stop()
	}
	if left, err := filepath.Glob(filepath.Join(dir, "audit", "torn-*")); err != nil || len(left) > 0 {
		t.Errorf("put aside: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "audit", "head")); err != nil {
		t.Error(err)
	}
}
