package keeper_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

func TestSealAndUnseal(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "the data")
	if r := b.recorded(); r.Op != "seal" || r.Outcome != "allowed" || r.Node != nodeA || r.KeyVersion != 1 || r.Address != home.String() || r.Actor != "test" || r.Rule == "" {
		t.Errorf("on record: %+v", r)
	}
	b.opens(nodeA, raw, "the data")
	if r := b.recorded(); r.Op != "unseal" || r.Outcome != "allowed" || r.Node != nodeA || r.KeyVersion != 1 {
		t.Errorf("on record: %+v", r)
	}
	b.opens(strings.ToUpper(nodeA), raw, "the data")
	b.refused(nodeB, raw, keeper.Denied, policy.UnknownNode)
	b.sealed(nodeB, "other")
	b.refused(nodeB, raw, keeper.Denied, keeper.NotAuthentic)
	big := strings.Repeat("x", blob.MaxData)
	b.opens(nodeA, b.sealed(nodeA, big), big)
	b.sealRefused(nodeA, 0, keeper.Malformed, keeper.BadRequest)
	b.sealRefused(nodeA, blob.MaxData+1, keeper.Malformed, keeper.BadRequest)
	for _, bad := range [][]byte{nil, raw[:10], make([]byte, 1<<20), raw[1:]} {
		b.refused(nodeA, bad, keeper.Malformed, keeper.BadRequest)
	}
	b.refused("not a node", raw, keeper.Malformed, keeper.BadRequest)
	b.refused(nodeA, make([]byte, blob.ReferenceSize), keeper.Malformed, keeper.ImportOff)
	dir := b.dir
	b.stop()
	again := startIn(t, dir, open())
	again.opens(nodeA, raw, "the data")
}

func TestAllowList(t *testing.T) {
	b := start(t, keeper.Options{})
	b.sealRefused(nodeA, 32, keeper.Pending, policy.PendingApproval)
	b.sealRefused(nodeA, 32, keeper.Pending, policy.PendingApproval)
	if info, err := b.Info(t.Context(), nodeA); err != nil || info.Policy.State != policy.Pending || len(info.Keys) != 0 {
		t.Fatalf("%+v, %v", info, err)
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Until: b.clock().Add(time.Hour), Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}))
	raw := b.sealed(nodeA, "data")
	b.opens(nodeA, raw, "data")
	far := from(nodeA)
	far.Source = netip.MustParseAddr("198.51.100.1")
	_, err := b.Unseal(t.Context(), far, raw)
	b.judge(false, err, keeper.Denied, policy.WrongNetwork)
	b.pass(time.Hour)
	b.refused(nodeA, raw, keeper.Pending, policy.ApprovalEnded)
	b.ok(b.Approve(t.Context(), op, nodeB, keeper.Approval{}))
	b.opens(nodeB, b.sealed(nodeB, "x"), "x")
}

func TestStates(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	b.ok(b.Freeze(t.Context(), op, nodeA))
	b.refused(nodeA, raw, keeper.Frozen, policy.NodeFrozen)
	b.sealRefused(nodeA, 32, keeper.Frozen, policy.NodeFrozen)
	b.ok(b.Thaw(t.Context(), op, nodeA))
	b.opens(nodeA, raw, "data")
	if err := b.Thaw(t.Context(), op, nodeA); !errors.Is(err, keeper.ErrRefused) {
		t.Error(err)
	}
	b.ok(b.Revoke(t.Context(), op, nodeA))
	b.refused(nodeA, raw, keeper.Revoked, policy.NodeRevoked)
	if err := b.Approve(t.Context(), op, nodeA, keeper.Approval{}); !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("a revoked node: %v", err)
	}
	if err := b.Freeze(t.Context(), op, nodeA); !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("a freeze would lift a revocation: %v", err)
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Reinstate: true}))
	b.opens(nodeA, raw, "data")
	b.ok(b.Revoke(t.Context(), op, nodeC)) // never seen
	b.sealRefused(nodeC, 32, keeper.Revoked, policy.NodeRevoked)
	for _, err := range []error{
		b.Approve(t.Context(), op, "nonsense", keeper.Approval{}),
		b.Approve(t.Context(), op, nodeB, keeper.Approval{Limit: policy.Limit{PerHour: -1}}),
		b.Freeze(t.Context(), op, nodeB),
	} {
		if err == nil {
			t.Error("taken")
		}
	}
}

func TestRateLimit(t *testing.T) {
	o := open()
	o.Rules.Limit = policy.Limit{PerHour: 6, Burst: 2}
	b := start(t, o)
	raw := b.sealed(nodeA, "data")
	b.opens(nodeA, raw, "data")
	b.opens(nodeA, raw, "data")
	if e := b.refused(nodeA, raw, keeper.RateLimited, policy.RateLimited); e.RetryAfter != 10*time.Minute || e.Rule != "rules.limit" {
		t.Errorf("%+v", e)
	}
	other := b.sealed(nodeB, "of another node")
	b.opens(nodeB, other, "of another node")
	d, err := b.DryRun(t.Context(), from(nodeA), policy.Unseal, keeper.Trial{})
	if err != nil || d.Reason != policy.RateLimited {
		t.Errorf("dry run: %+v, %v", d, err)
	}
	b.pass(10 * time.Minute)
	for range 3 { // a dry run takes no token
		if d, err := b.DryRun(t.Context(), from(nodeA), policy.Unseal, keeper.Trial{}); err != nil || !d.Allow {
			t.Errorf("dry run: %+v, %v", d, err)
		}
	}
	b.opens(nodeA, raw, "data")
	b.refused(nodeA, raw, keeper.RateLimited, policy.RateLimited)
	if before, err := b.SetRules(t.Context(), op, policy.Rules{}); err != nil || before.Limit != o.Rules.Limit {
		t.Errorf("%+v, %v", before, err)
	}
	b.opens(nodeA, raw, "data")
	b.sealRefused(nodeC, 32, keeper.Pending, policy.PendingApproval)
	b.ok(b.SetPolicy(t.Context(), op, nodeA, nil, policy.Limit{PerHour: 1}, nil))
	if e := b.refused(nodeA, raw, keeper.RateLimited, policy.RateLimited); e.Rule != "node.limit" {
		t.Errorf("%+v", e)
	}
}

// TestRules are kept in the store, for all servers and their successors.
func TestRules(t *testing.T) {
	b := start(t, open())
	other, err := keeper.New(t.Context(), keeper.Options{Store: b.store, KEK: b.keys, Audit: b.log, Now: b.clock})
	b.ok(err)
	raw := b.sealed(nodeA, "data")
	away := policy.Rules{Enrol: policy.Open, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	_, err = other.SetRules(t.Context(), op, away)
	b.ok(err)
	other.Close()
	b.refused(nodeA, raw, keeper.Denied, policy.WrongNetwork)
	b.sealRefused(nodeB, 32, keeper.Denied, policy.WrongNetwork)
	dir := b.dir
	b.stop()
	b = startIn(t, dir, open())
	b.refused(nodeA, raw, keeper.Denied, policy.WrongNetwork)
	if r, err := b.Rules(t.Context()); err != nil || len(r.Networks) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := b.SetRules(t.Context(), op, policy.Rules{Enrol: "x"}); !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("wrong rules: %v", err)
	}
	b.failing(only("append"))
	if _, err := b.SetRules(t.Context(), op, policy.Rules{}); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("without a record: %v", err)
	}
	b.failing(nil)
	b.refused(nodeA, raw, keeper.Denied, policy.WrongNetwork)
	for _, bad := range []string{"x", `{"format":2}`, `{"format":1,"rules":{"enrol":"x"}}`, `{"format":1,"rules":{"deny":true}}`} {
		e, err := b.store.Get(t.Context(), "rules", 0)
		b.ok(err)
		_, err = b.store.Swap(t.Context(), "rules", e.Revision, []byte(bad))
		b.ok(err)
		b.refused(nodeA, raw, keeper.Unavailable, keeper.NoStore)
	}
}

func TestDryRun(t *testing.T) {
	b := start(t, open())
	b.sealed(nodeA, "data")
	ask := func(trial keeper.Trial) policy.Decision {
		t.Helper()
		d, err := b.DryRun(t.Context(), from(nodeA), policy.Unseal, trial)
		b.ok(err)
		return d
	}
	if d := ask(keeper.Trial{}); !d.Allow {
		t.Errorf("%+v", d)
	}
	far := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	if d := ask(keeper.Trial{Rules: &policy.Rules{Networks: far}}); d.Rule != "rules.networks" {
		t.Errorf("other rules: %+v", d)
	}
	if d := ask(keeper.Trial{Node: &policy.Node{State: policy.Approved, Networks: far}}); d.Rule != "node.networks" {
		t.Errorf("another policy: %+v", d)
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Until: b.clock().Add(time.Hour)}))
	if d := ask(keeper.Trial{At: b.clock().Add(time.Hour)}); d.Reason != policy.ApprovalEnded {
		t.Errorf("in an hour: %+v", d)
	}
	if _, err := b.DryRun(t.Context(), from("x"), policy.Unseal, keeper.Trial{}); keeper.CodeOf(err) != keeper.Malformed {
		t.Errorf("%v", err)
	}
	if d, err := b.DryRun(t.Context(), from(nodeB), policy.Seal, keeper.Trial{}); err != nil || d.Register != policy.Approved {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := b.Info(t.Context(), nodeB); !errors.Is(err, keeper.ErrUnknown) {
		t.Errorf("a dry run registered a node: %v", err)
	}
}

func TestInfo(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	made := b.clock()
	b.pass(time.Hour)
	b.opens(nodeA, raw, "data")
	unsealed := b.clock()
	b.pass(time.Hour)
	b.ok(b.Freeze(t.Context(), keeper.Operator{Name: "op", Reason: "moved to another rack"}, nodeA))
	if r := b.recorded(); r.Op != "freeze" || r.Outcome != "done" || r.Reason != "moved to another rack" || r.Before != "state=approved" || r.After != "state=frozen" || r.Actor != "op" || r.Node != nodeA {
		t.Errorf("on record: %+v", r)
	}
	b.refused(nodeA, raw, keeper.Frozen, policy.NodeFrozen)
	b.refused(nodeB, raw, keeper.Denied, policy.UnknownNode)
	i, err := b.Info(t.Context(), nodeA)
	b.ok(err)
	want := keeper.Seen{At: b.clock(), Unsealed: unsealed, Source: home}
	if i.Seen != want || !i.Made.Equal(made) || !i.Approved.IsZero() || i.Comment != "moved to another rack" || i.Policy.State != policy.Frozen || i.Keys[0].KEK == "" {
		t.Errorf("%+v", i)
	}
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	n := 0
	for i, err := range b.Nodes(t.Context()) {
		n++
		if err != nil || !i.Approved.Equal(b.clock()) || i.Comment != "" {
			t.Errorf("%+v, %v", i, err)
		}
	}
	if n != 1 {
		t.Errorf("%d nodes", n)
	}
}

// TestTroubleCostsNoToken: a node that tries again while our KEK is down is not
// shut out when it is back.
func TestTroubleCostsNoToken(t *testing.T) {
	o := open()
	o.Rules.Limit = policy.Limit{PerHour: 1, Burst: 1}
	b := start(t, o)
	raw := b.sealed(nodeA, "data")
	for _, down := range []struct {
		call   string
		reason policy.Reason
	}{{"unwrap", keeper.NoKEK}, {"append", keeper.NoAudit}, {"get", keeper.NoStore}} {
		b.ok(b.Revoke(t.Context(), op, nodeA)) // so that no key is in memory
		b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{Reinstate: true}))
		b.failing(only(down.call))
		for range 5 {
			b.refused(nodeA, raw, keeper.Unavailable, down.reason)
		}
		b.failing(nil)
	}
	b.opens(nodeA, raw, "data")
	b.refused(nodeA, raw, keeper.RateLimited, policy.RateLimited)
}

// TestNoRateForGarbage: a stranger who knows a node's name, and has no blob of it,
// uses up nothing of what the node may have.
func TestNoRateForGarbage(t *testing.T) {
	o := open()
	o.Rules.Limit = policy.Limit{PerHour: 1, Burst: 1}
	_, with := reference(t)
	b := start(t, with(o))
	raw, other := b.sealed(nodeA, "data"), b.sealed(nodeB, "of another node")
	garbage := bytes.Clone(raw)
	garbage[len(garbage)-1] ^= 1
	for range 5 {
		b.refused(nodeA, garbage, keeper.Denied, keeper.NotAuthentic)
		b.refused(nodeA, other, keeper.Denied, keeper.NotAuthentic)
		b.refused(nodeA, make([]byte, blob.ReferenceSize), keeper.Denied, keeper.NotAuthentic)
	}
	b.opens(nodeA, raw, "data")
	b.refused(nodeA, raw, keeper.RateLimited, policy.RateLimited)
	b.refused(nodeA, garbage, keeper.RateLimited, policy.RateLimited)
}

func TestSteadyUnseal(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	b.opens(nodeA, raw, "data")
	b.count("wrap")
	b.count("unwrap")
	b.count("swap")
	b.count("append")
	for range 10 {
		b.opens(nodeA, raw, "data")
	}
	if w, u, s, a := b.count("wrap"), b.count("unwrap"), b.count("swap"), b.count("append"); w+u+s != 0 || a != 10 {
		t.Errorf("%d wraps, %d unwraps, %d swaps, %d records", w, u, s, a)
	}
}

// TestFirstSealsAtOnce: all of them share the one key that was stored.
func TestFirstSealsAtOnce(t *testing.T) {
	b := start(t, open())
	const people = 12
	blobs := make([][]byte, people)
	var wg sync.WaitGroup
	for i := range people {
		wg.Go(func() { blobs[i] = b.sealed(nodeA, fmt.Sprint("data ", i)) })
	}
	wg.Wait()
	for i, raw := range blobs {
		b.opens(nodeA, raw, fmt.Sprint("data ", i))
	}
	if info, err := b.Info(t.Context(), nodeA); err != nil || len(info.Keys) != 1 || info.Keys[0].Version != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestManyNodesInASmallCache(t *testing.T) {
	o := open()
	o.Cache = 2
	b := start(t, o)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			node := fmt.Sprintf("01234567-89ab-cdef-0123-4567890000%02d", i)
			raw := b.sealed(node, node)
			for range 20 {
				b.opens(node, raw, node)
			}
		})
	}
	wg.Wait()
}

func TestNodeKeys(t *testing.T) {
	b := start(t, open())
	first := b.sealed(nodeA, "one")
	version, err := b.RotateKey(t.Context(), op, nodeA)
	if err != nil || version != 2 {
		t.Fatal(version, err)
	}
	second := b.sealed(nodeA, "two")
	b.opens(nodeA, first, "one")
	b.opens(nodeA, second, "two")
	if err := b.retire(nodeA, 2); !errors.Is(err, keeper.ErrRefused) {
		t.Errorf("the version that seals: %v", err)
	}
	b.ok(b.retire(nodeA, 1))
	b.refused(nodeA, first, keeper.Denied, keeper.KeyRetired)
	b.opens(nodeA, second, "two")
	b.ok(b.retire(nodeA, 1)) // again
	if err := b.retire(nodeB, 1); !errors.Is(err, keeper.ErrUnknown) {
		t.Error(err)
	}
	if _, err := b.RotateKey(t.Context(), op, nodeB); !errors.Is(err, keeper.ErrUnknown) {
		t.Error(err)
	}
	b.ok(b.Approve(t.Context(), op, nodeB, keeper.Approval{})) // known, and without a key
	if err := b.retire(nodeB, 1); !errors.Is(err, keeper.ErrNoKey) || errors.Is(err, keeper.ErrUnknown) {
		t.Error(err)
	}
	if _, err := b.RotateKey(t.Context(), op, nodeB); !errors.Is(err, keeper.ErrNoKey) || errors.Is(err, keeper.ErrUnknown) {
		t.Error(err)
	}
	for want := uint32(3); want < 6; want++ {
		if version, err := b.RotateKey(t.Context(), op, nodeA); err != nil || version != want {
			t.Errorf("version %d, %v", version, err)
		}
	}
	if n, err := b.RetireKeys(t.Context(), op, nodeA, 5); err != nil || n != 3 {
		t.Errorf("%d retired, %v", n, err)
	}
	b.refused(nodeA, second, keeper.Denied, keeper.KeyRetired)
}

// TestForget looks for the wrapped key in the file, too.
func TestForget(t *testing.T) {
	b := start(t, open())
	raw, other := b.sealed(nodeA, "data"), b.sealed(nodeB, "other")
	b.opens(nodeA, raw, "data")
	e, err := b.store.Get(t.Context(), "node/"+nodeA, 0)
	b.ok(err)
	at := bytes.Index(e.Value, []byte(`"wrapped":"`))
	wrapped := e.Value[at+11 : at+60]
	path := filepath.Join(b.dir, "kms.db")
	if text, _ := os.ReadFile(path); at < 0 || !bytes.Contains(text, wrapped) {
		t.Fatal("the wrapped key is not where this test looks for it")
	}
	for _, confirm := range []string{"", "yes", nodeB} {
		if err := b.forget(nodeA, confirm); !errors.Is(err, keeper.ErrRefused) {
			t.Errorf("confirmed by %q: %v", confirm, err)
		}
	}
	b.opens(nodeA, raw, "data")
	b.ok(b.forget(nodeA, strings.ToUpper(nodeA)))
	if text, _ := os.ReadFile(path); bytes.Contains(text, wrapped) {
		t.Error("the wrapped key is still in the file")
	}
	b.refused(nodeA, raw, keeper.Denied, policy.NodeForgotten)
	b.sealRefused(nodeA, 32, keeper.Denied, policy.NodeForgotten)
	b.ok(b.Approve(t.Context(), op, nodeA, keeper.Approval{}))
	b.refused(nodeA, raw, keeper.Denied, keeper.KeyRetired)
	again := b.sealed(nodeA, "anew")
	b.opens(nodeA, again, "anew")
	b.refused(nodeA, raw, keeper.Denied, keeper.KeyRetired)
	if info, err := b.Info(t.Context(), nodeA); err != nil || len(info.Keys) != 1 || info.Keys[0].Version != 2 {
		t.Errorf("%+v, %v", info, err)
	}
	b.opens(nodeB, other, "other")
	b.ok(b.Revoke(t.Context(), op, nodeB))
	b.ok(b.forget(nodeB, nodeB))
	b.refused(nodeB, other, keeper.Revoked, policy.NodeRevoked)
	if err := b.forget(nodeC, nodeC); !errors.Is(err, keeper.ErrUnknown) {
		t.Error(err)
	}
}

// TestRewrap rotates the KEK under nodes that go on, and destroys the old version.
func TestRewrap(t *testing.T) {
	b := start(t, open())
	raw := map[string][]byte{}
	for _, node := range []string{nodeA, nodeB, nodeC} {
		raw[node] = b.sealed(node, node)
	}
	if _, err := b.RotateKey(t.Context(), op, nodeA); err != nil {
		t.Fatal(err)
	}
	old, err := b.keys.Current(t.Context())
	b.ok(err)
	if r, err := b.Rewrap(t.Context(), op, nil); err != nil || r != (keeper.Rewrapped{Kept: 4}) {
		t.Errorf("%+v, %v", r, err)
	}
	_, err = b.keys.Rotate(t.Context())
	b.ok(err)
	if err := b.RetireKEK(t.Context(), op, old, b.keys); !errors.Is(err, keeper.ErrRefused) || !strings.Contains(err.Error(), "4 node keys") {
		t.Errorf("in use: %v", err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				b.opens(nodeB, raw[nodeB], nodeB)
			}
		}
	})
	r, err := b.Rewrap(t.Context(), op, nil)
	close(stop)
	wg.Wait()
	if err != nil || r != (keeper.Rewrapped{Renewed: 4}) {
		t.Fatalf("%+v, %v", r, err)
	}
	b.ok(b.RetireKEK(t.Context(), op, old, b.keys))
	if use, err := b.KEKUse(t.Context()); err != nil || len(use) != 1 || use[old] != 0 {
		t.Errorf("%v, %v", use, err)
	}
	dir := b.dir
	b.stop()
	again := startIn(t, dir, open())
	for node, raw := range raw {
		again.opens(node, raw, node)
	}
}

// TestRewrapFails stops at each call to the KEK: all still opens, and the next
// Rewrap finishes.
func TestRewrapFails(t *testing.T) {
	for _, call := range []string{"wrap", "unwrap", "swap", "swap, stored", "list"} {
		b := start(t, open())
		raw := map[string][]byte{}
		for _, node := range []string{nodeA, nodeB} {
			raw[node] = b.sealed(node, node)
		}
		_, err := b.keys.Rotate(t.Context())
		b.ok(err)
		for nth := 1; ; nth++ {
			b.failing(func(c string, n int) bool { return c == call && n == nth })
			r, err := b.Rewrap(t.Context(), op, nil)
			b.failing(nil)
			for node, raw := range raw {
				b.opens(node, raw, node)
			}
			if err == nil {
				if r.Failed != 0 || nth == 1 {
					t.Errorf("%s %d: %+v", call, nth, r)
				}
				break
			}
		}
		if use, err := b.KEKUse(t.Context()); err != nil || len(use) != 1 {
			t.Errorf("%s: %v, %v", call, use, err)
		}
		b.stop()
	}
}

// TestNoAnswerWithoutARecord: neither data nor blob leaves if the log fails.
func TestNoAnswerWithoutARecord(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	b.failing(only("append"))
	b.refused(nodeA, raw, keeper.Unavailable, keeper.NoAudit)
	b.refused(nodeB, raw, keeper.Unavailable, keeper.NoAudit)
	b.sealRefused(nodeA, 32, keeper.Unavailable, keeper.NoAudit)
	if err := b.Approve(t.Context(), op, nodeC, keeper.Approval{}); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("approved without a record: %v", err)
	}
	if _, err := b.Info(t.Context(), nodeC); !errors.Is(err, keeper.ErrUnknown) {
		t.Errorf("it was done all the same: %v", err)
	}
	// Shutting out does not wait for a full disk to be cleared.
	if err := b.Revoke(t.Context(), op, nodeA); err == nil || !strings.Contains(err.Error(), "not on record") {
		t.Errorf("revoke: %v", err)
	}
	b.failing(nil)
	b.refused(nodeA, raw, keeper.Revoked, policy.NodeRevoked)
}

// TestEveryFailure fails each call of a first seal and of an unseal, and looks
// that nothing was answered that does not hold.
func TestEveryFailure(t *testing.T) {
	for _, call := range []string{"get", "swap", "swap, stored", "wrap", "unwrap", "append"} {
		for nth := 1; ; nth++ {
			b := start(t, open())
			b.failing(func(c string, n int) bool { return c == call && n == nth })
			failed := false
			raw, err := b.Seal(t.Context(), from(nodeA), secret.Copy([]byte("data")))
			if err != nil {
				failed = true
				if keeper.CodeOf(err) != keeper.Unavailable || !errors.Is(err, errPlanned) || raw != nil {
					t.Fatalf("%s %d: seal: %v", call, nth, err)
				}
			} else if data, err := b.Unseal(t.Context(), from(nodeA), raw); err != nil {
				failed = true
				if keeper.CodeOf(err) != keeper.Unavailable || !errors.Is(err, errPlanned) || data != nil {
					t.Fatalf("%s %d: unseal: %v", call, nth, err)
				}
			}
			b.failing(nil)
			dir := b.dir
			b.stop()
			again := startIn(t, dir, open())
			if raw != nil {
				again.opens(nodeA, raw, "data")
			}
			again.opens(nodeA, again.sealed(nodeA, "more"), "more")
			again.stop()
			if !failed {
				if nth == 1 {
					t.Fatalf("%s was never called", call)
				}
				break
			}
		}
	}
}

// TestMovedKey puts one node's wrapped key into another one's record, as someone
// with the store and not the KEK could.
func TestMovedKey(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	b.sealed(nodeB, "other")
	a, err := b.store.Get(t.Context(), "node/"+nodeA, 0)
	b.ok(err)
	other, err := b.store.Get(t.Context(), "node/"+nodeB, 0)
	b.ok(err)
	_, err = b.store.Swap(t.Context(), "node/"+nodeB, other.Revision, a.Value)
	b.ok(err)
	b.refused(nodeB, raw, keeper.Unavailable, keeper.KEKRefuses)
}

func TestDamagedRecord(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	for _, bad := range []string{"x", `{"format":2}`, `{"format":1,"policy":{"state":"approved"},"made":"2026-01-01T00:00:00Z","deny":true}`} {
		e, err := b.store.Get(t.Context(), "node/"+nodeA, 0)
		b.ok(err)
		_, err = b.store.Swap(t.Context(), "node/"+nodeA, e.Revision, []byte(bad))
		b.ok(err)
		b.refused(nodeA, raw, keeper.Unavailable, keeper.NoStore)
		b.sealRefused(nodeA, 32, keeper.Unavailable, keeper.NoStore)
	}
	for info, err := range b.Nodes(t.Context()) {
		if err == nil || info.Node != canonical(t, nodeA) {
			t.Errorf("%+v, %v", info, err)
		}
	}
}

func TestTooManyNodes(t *testing.T) {
	o := open()
	o.MaxNodes = 2
	b := start(t, o)
	b.sealed(nodeA, "a")
	b.sealed(nodeB, "b")
	b.sealRefused(nodeC, 32, keeper.RateLimited, keeper.TooMany)
	b.sealed(nodeA, "known ones go on")
	dir := b.dir
	b.stop()
	again := startIn(t, dir, o)
	again.sealRefused(nodeC, 32, keeper.RateLimited, keeper.TooMany)
	again.ok(again.Approve(t.Context(), op, nodeC, keeper.Approval{}))
	again.sealed(nodeC, "by an operator")
}

// TestTwoKeepersOneStore: what one changes the other one obeys, and forgets.
func TestTwoKeepersOneStore(t *testing.T) {
	b := start(t, open())
	other, err := keeper.New(t.Context(), keeper.Options{
		Store: b.store, KEK: countedKEK{b.counter, b.keys}, Audit: b.log, Rules: policy.Rules{Enrol: policy.Open}, Now: b.clock,
	})
	b.ok(err)
	defer other.Close()
	raw := b.sealed(nodeA, "data")
	data, err := other.Unseal(t.Context(), from(nodeA), raw)
	b.ok(err)
	data.Wipe()
	b.ok(b.Freeze(t.Context(), op, nodeA))
	if _, err := other.Unseal(t.Context(), from(nodeA), raw); keeper.CodeOf(err) != keeper.Frozen {
		t.Fatalf("the other one: %v", err)
	}
	if n, err := other.Forget(t.Context(), op, nodeA, nodeA); err != nil || n != 1 {
		t.Errorf("%d keys destroyed, %v", n, err)
	}
	b.refused(nodeA, raw, keeper.Denied, policy.NodeForgotten)
}

// TestRevokeUnderLoad: no unseal that begins after Revoke returned is allowed.
func TestRevokeUnderLoad(t *testing.T) {
	b := start(t, open())
	raw := b.sealed(nodeA, "data")
	var wg sync.WaitGroup
	revoked := make(chan struct{})
	for range 6 {
		wg.Go(func() {
			for {
				var over bool
				select {
				case <-revoked:
					over = true
				default:
				}
				data, err := b.Unseal(t.Context(), from(nodeA), raw)
				data.Wipe()
				if over {
					if keeper.CodeOf(err) != keeper.Revoked {
						t.Errorf("after the revocation: %v", err)
					}
					return
				}
				if err != nil && keeper.CodeOf(err) != keeper.Revoked {
					t.Error(err)
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	err := b.Revoke(t.Context(), op, nodeA)
	close(revoked)
	wg.Wait()
	b.ok(err)
}

// TestNoSecretOnRecord searches the log for what was sealed, in all spellings.
func TestNoSecretOnRecord(t *testing.T) {
	b := start(t, open())
	const data = "0123456789abcdef-a-secret-of-32b"
	raw := b.sealed(nodeA, data)
	b.opens(nodeA, raw, data)
	b.refused(nodeC, raw, keeper.Denied, policy.UnknownNode)
	b.failing(only("unwrap"))
	b.Unseal(t.Context(), from(nodeB), raw)
	b.failing(nil)
	b.refused(data, raw, keeper.Malformed, keeper.BadRequest) // as a node's name
	names, err := filepath.Glob(filepath.Join(b.dir, "audit", "*"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		b.ok(err)
		for _, bad := range []string{data, data[:12], hex.EncodeToString([]byte(data))[:20], base64.StdEncoding.EncodeToString([]byte(data))[:16], base64.StdEncoding.EncodeToString(raw)[40:60], hex.EncodeToString(raw)[40:60]} {
			if strings.Contains(string(text), bad) {
				t.Errorf("%s shows %q", name, bad)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	if _, err := keeper.New(t.Context(), keeper.Options{}); err == nil {
		t.Error("nothing is enough")
	}
	b := start(t, open())
	o := keeper.Options{Store: b.store, KEK: b.keys, Audit: b.log, Rules: policy.Rules{Enrol: "x"}}
	if _, err := keeper.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "enrol") {
		t.Errorf("wrong rules: %v", err)
	}
	b.ok(b.Ready(t.Context()))
	b.failing(only("get"))
	if err := b.Ready(t.Context()); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("ready without a store: %v", err)
	}
	b.failing(nil)
	b.ok(b.log.Close())
	if err := b.Ready(t.Context()); keeper.CodeOf(err) != keeper.Unavailable {
		t.Errorf("ready without a log: %v", err)
	}
}
