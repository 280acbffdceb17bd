package keeper_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// TestOwedRecord: what shuts a node out is made although the log is full; the server's
// own log says so with all of it, and the record follows when there is room.
func TestOwedRecord(t *testing.T) {
	for name, do := range map[string]func(*bench, keeper.Operator) error{
		"freeze": func(b *bench, by keeper.Operator) error { return b.Freeze(t.Context(), by, nodeA) },
		"revoke": func(b *bench, by keeper.Operator) error { return b.Revoke(t.Context(), by, nodeA) },
	} {
		var log bytes.Buffer
		o := open()
		o.Log = slog.New(slog.NewJSONHandler(&log, nil))
		b := start(t, o)
		b.sealed(nodeA, "data")
		b.failing(only("append"))
		err := do(b, keeper.Operator{Name: "ada", Role: "admin", Serial: "2a", Reason: "stolen"})
		if keeper.CodeOf(err) != keeper.Unavailable || !strings.Contains(err.Error(), "made and not on record yet") {
			t.Errorf("%s: %v", name, err)
		}
		var said map[string]any
		if err := json.Unmarshal(log.Bytes(), &said); err != nil {
			t.Fatalf("%s: %v: %s", name, err, log.String())
		}
		for key, want := range map[string]string{"level": "ERROR", "op": name, "node": nodeA, "actor": "ada", "serial": "2a", "reason": "stolen", "before": "state=approved"} {
			if said[key] != want {
				t.Errorf("%s: %s is %v, want %s", name, key, said[key], want)
			}
		}
		at := b.clock()
		b.pass(time.Hour)
		b.failing(nil)
		dir := b.dir
		b.stop() // at the latest then
		found := 0
		for r, err := range audit.Read(filepath.Join(dir, "audit"), 1) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Op == name {
				found++
				if !r.Time.Equal(at) || r.Outcome != "done" || r.Actor != "ada" || r.Role != "admin" || r.Reason != "stolen" || r.Before != "state=approved" || r.Detail == "" {
					t.Errorf("%s: %+v", name, r.Event)
				}
			}
		}
		if found != 1 {
			t.Errorf("%s: %d records", name, found)
		}
	}
}

// TestOwedSoon: an owed record does not wait for the end of the server.
func TestOwedSoon(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	b.failing(only("append"))
	if err := b.Freeze(t.Context(), op, nodeA); err == nil {
		t.Fatal("no word of the log that is full")
	}
	b.failing(nil)
	for end := time.Now().Add(10 * time.Second); b.recorded().Op != "freeze"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the last record is %+v", b.recorded())
		}
	}
}

// TestValuesOnRecord: records say what was changed, from what to what, and one that is
// begun what is asked for.
func TestValuesOnRecord(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	by := keeper.Operator{Name: "ada", Role: "admin", Serial: "2a", Reason: "why not"}
	until := b.clock().Add(time.Hour)
	home := keeper.Approval{Until: until, Networks: elsewhere, Limit: policy.Limit{PerHour: 6, Burst: 3}}
	end := until.Format(time.RFC3339)
	set := "networks=" + elsewhere[0].String() + " per_hour=6 burst=3"
	steps := []struct {
		op, asked, before, after string
		do                       func() error
	}{
		{"revoke", "state=revoked", "state=approved", "state=revoked", func() error { return b.Revoke(t.Context(), by, nodeA) }},
		{"approve", "state=approved until=" + end + " " + set, "state=revoked until=none networks=none per_hour=none burst=none", "state=approved until=" + end + " " + set, func() error {
			home.Reinstate = true
			return b.Approve(t.Context(), by, nodeA, home)
		}},
		{"set-policy", "networks=none per_hour=9 burst=none", set, "networks=none per_hour=9 burst=none", func() error {
			return b.SetPolicy(t.Context(), by, nodeA, nil, policy.Limit{PerHour: 9}, nil)
		}},
		{"rotate-key", "", "key_versions=1", "key_versions=1,2", func() error { _, err := b.RotateKey(t.Context(), by, nodeA); return err }},
		{"retire-key", "below=2", "key_versions=1,2", "key_versions=2", func() error { _, err := b.RetireKeys(t.Context(), by, nodeA, 2); return err }},
		{"set-policy", "per_hour=7", "per_hour=none", "per_hour=7", func() error {
			_, err := b.SetRules(t.Context(), by, policy.Rules{Enrol: policy.Open, Limit: policy.Limit{PerHour: 7}})
			return err
		}},
	}
	for _, s := range steps {
		b.ok(s.do())
	}
	dir := b.dir
	b.stop()
	var got []audit.Event
	for r, err := range audit.Read(filepath.Join(dir, "audit"), 2) {
		b.ok(err)
		if r.Actor != "ada" || r.Role != "admin" || r.Serial != "2a" || r.Reason != "why not" {
			t.Errorf("%+v", r.Event)
		}
		got = append(got, r.Event)
	}
	if len(got) != 2*len(steps) {
		t.Fatalf("%d records", len(got))
	}
	for i, s := range steps {
		begun, done := got[2*i], got[2*i+1]
		asked := strings.Replace(begun.After, " reinstate=true", "", 1)
		if begun.Op != s.op || begun.Outcome != "begun" || asked != s.asked {
			t.Errorf("%s begun: %+v", s.op, begun)
		}
		if done.Op != s.op || done.Outcome != "done" || done.Before != s.before || done.After != s.after {
			t.Errorf("%s done: %q -> %q, want %q -> %q", s.op, done.Before, done.After, s.before, s.after)
		}
	}
}

// TestApproveKeepsEnd: the end of an approval stays unless it is taken away, and one
// that is over is not approved as it is.
func TestApproveKeepsEnd(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	until := b.clock().Add(time.Hour)
	is := func(want time.Time) {
		t.Helper()
		if i, err := b.Info(t.Context(), nodeA); err != nil || !i.Policy.Until.Equal(want) {
			t.Errorf("%+v, %v", i.Policy, err)
		}
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{KeepUntil: true}))
	is(time.Time{})
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Until: until}))
	b.ok(b.Freeze(t.Context(), op, nodeA))
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{KeepUntil: true}))
	is(until)
	b.pass(time.Hour)
	if err := b.Approve(t.Context(), op, nodeA, keeper.Approval{KeepUntil: true}); err == nil || !strings.Contains(err.Error(), "give it a new end") {
		t.Errorf("over: %v", err)
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	is(time.Time{})
}

// TestReasonEnds: a reason is kept until the state that it explains is left.
func TestReasonEnds(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	silent := keeper.Operator{Name: "ada"}
	var got []string
	for _, do := range []func() error{
		func() error { return b.Freeze(t.Context(), keeper.Operator{Name: "ada", Reason: "moved"}, nodeA) },
		func() error { return b.SetPolicy(t.Context(), silent, nodeA, nil, policy.Limit{PerHour: 9}, nil) },
		func() error { return b.Freeze(t.Context(), silent, nodeA) },
		func() error { return b.Thaw(t.Context(), silent, nodeA) },
	} {
		b.ok(do())
		i, err := b.Info(t.Context(), nodeA)
		b.ok(err)
		got = append(got, i.Comment)
	}
	if want := []string{"moved", "moved", "moved", ""}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
