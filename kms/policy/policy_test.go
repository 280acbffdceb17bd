package policy_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/kms/policy"
)

var now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func nets(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

func TestDecide(t *testing.T) {
	home := netip.MustParseAddr("10.1.2.3")
	spent := policy.Bucket{FullAt: now.Add(10 * time.Minute)}
	for _, tt := range []struct {
		name   string
		rules  policy.Rules
		node   policy.Node
		req    policy.Request
		bucket policy.Bucket
		want   policy.Decision
	}{
		{
			name: "approved unseals", node: policy.Node{State: policy.Approved}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "approved seals", node: policy.Node{State: policy.Approved}, req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "open: the first seal registers", rules: policy.Rules{Enrol: policy.Open}, req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "rules.enrol", Register: policy.Approved},
		},
		{
			name: "open: an import registers", rules: policy.Rules{Enrol: policy.Open}, req: policy.Request{Op: policy.Import},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "rules.enrol", Register: policy.Approved},
		},
		{
			name: "open: an unseal does not", rules: policy.Rules{Enrol: policy.Open}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.UnknownNode, Rule: "node.state"},
		},
		{
			name: "zero rules are the allow-list", req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Reason: policy.PendingApproval, Rule: "rules.enrol", Register: policy.Pending},
		},
		{
			name: "allow-list: an import is pending", rules: policy.Rules{Enrol: policy.AllowList}, req: policy.Request{Op: policy.Import},
			want: policy.Decision{Reason: policy.PendingApproval, Rule: "rules.enrol", Register: policy.Pending},
		},
		{
			name: "an enrolment that does not exist", rules: policy.Rules{Enrol: "opne"}, req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Reason: policy.Invalid, Rule: "rules.enrol"},
		},
		{
			name: "pending", rules: policy.Rules{Enrol: policy.Open}, node: policy.Node{State: policy.Pending}, req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Reason: policy.PendingApproval, Rule: "node.state"},
		},
		{
			name: "frozen", node: policy.Node{State: policy.Frozen}, req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Reason: policy.NodeFrozen, Rule: "node.state"},
		},
		{
			name: "revoked", node: policy.Node{State: policy.Revoked}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.NodeRevoked, Rule: "node.state"},
		},
		{
			name: "forgotten stays out under open enrolment", rules: policy.Rules{Enrol: policy.Open},
			node: policy.Node{State: policy.Forgotten}, req: policy.Request{Op: policy.Seal},
			want: policy.Decision{Reason: policy.NodeForgotten, Rule: "node.state"},
		},
		{
			name: "a state that does not exist", node: policy.Node{State: "fine"}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.Invalid, Rule: "node.state"},
		},
		{
			name: "an op that does not exist", node: policy.Node{State: policy.Approved}, req: policy.Request{Op: "open"},
			want: policy.Decision{Reason: policy.Invalid, Rule: "request.op"},
		},
		{
			name: "approval over", node: policy.Node{State: policy.Approved, Until: now}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.ApprovalEnded, Rule: "node.until"},
		},
		{
			name: "approval not over", node: policy.Node{State: policy.Approved, Until: now.Add(1)}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "approval not begun", node: policy.Node{State: policy.Approved, Since: now.Add(1), Until: now.Add(2)}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.ApprovalEnded, Rule: "node.since"},
		},
		{
			name: "approval begins", node: policy.Node{State: policy.Approved, Since: now, Until: now.Add(1)}, req: policy.Request{Op: policy.Unseal},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "inside both networks", rules: policy.Rules{Networks: nets("10.0.0.0/8")}, node: policy.Node{State: policy.Approved, Networks: nets("192.0.2.0/24", "10.1.2.0/24")},
			req:  policy.Request{Op: policy.Unseal, Source: home},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "inside, as IPv6 sees it", node: policy.Node{State: policy.Approved, Networks: nets("10.1.2.0/24")},
			req:  policy.Request{Op: policy.Unseal, Source: netip.MustParseAddr("::ffff:10.1.2.3")},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "inside, with a zone", node: policy.Node{State: policy.Approved, Networks: nets("fe80::/10")},
			req:  policy.Request{Op: policy.Unseal, Source: netip.MustParseAddr("fe80::1%eth0")},
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state"},
		},
		{
			name: "outside of the node's", node: policy.Node{State: policy.Approved, Networks: nets("10.1.3.0/24")},
			req:  policy.Request{Op: policy.Unseal, Source: home},
			want: policy.Decision{Reason: policy.WrongNetwork, Rule: "node.networks"},
		},
		{
			name: "outside of the rules'", rules: policy.Rules{Enrol: policy.Open, Networks: nets("192.0.2.0/24")},
			req:  policy.Request{Op: policy.Seal, Source: home},
			want: policy.Decision{Reason: policy.WrongNetwork, Rule: "rules.networks"},
		},
		{
			name: "a source that is not known is in no network", node: policy.Node{State: policy.Approved, Networks: nets("0.0.0.0/0", "::/0")},
			req:  policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.WrongNetwork, Rule: "node.networks"},
		},
		{
			name: "one of six an hour", rules: policy.Rules{Limit: policy.Limit{PerHour: 6, Burst: 2}}, node: policy.Node{State: policy.Approved},
			req: policy.Request{Op: policy.Unseal}, bucket: spent,
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state", Bucket: policy.Bucket{FullAt: now.Add(20 * time.Minute)}, Took: policy.Token(10 * time.Minute)},
		},
		{
			name: "the rules' limit reached", rules: policy.Rules{Limit: policy.Limit{PerHour: 6, Burst: 1}}, node: policy.Node{State: policy.Approved},
			req: policy.Request{Op: policy.Unseal}, bucket: spent,
			want: policy.Decision{Reason: policy.RateLimited, Rule: "rules.limit", RetryAfter: 10 * time.Minute, Bucket: spent},
		},
		{
			name: "the node's own limit counts", rules: policy.Rules{Limit: policy.Limit{PerHour: 6}}, node: policy.Node{State: policy.Approved, Limit: policy.Limit{PerHour: 12, Burst: 1}},
			req: policy.Request{Op: policy.Import}, bucket: spent,
			want: policy.Decision{Reason: policy.RateLimited, Rule: "node.limit", RetryAfter: 5 * time.Minute, Bucket: policy.Bucket{FullAt: now.Add(5 * time.Minute)}},
		},
		{
			name: "seals are not counted", rules: policy.Rules{Limit: policy.Limit{PerHour: 6, Burst: 1}}, node: policy.Node{State: policy.Approved},
			req: policy.Request{Op: policy.Seal}, bucket: spent,
			want: policy.Decision{Allow: true, Reason: policy.OK, Rule: "node.state", Bucket: spent},
		},
		{
			name: "a refusal takes no token", rules: policy.Rules{Limit: policy.Limit{PerHour: 6}}, node: policy.Node{State: policy.Frozen},
			req:  policy.Request{Op: policy.Unseal},
			want: policy.Decision{Reason: policy.NodeFrozen, Rule: "node.state"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := policy.Decide(tt.rules, tt.node, tt.req, tt.bucket, now)
			if tt.bucket == (policy.Bucket{}) && tt.rules.Limit == (policy.Limit{}) && got.Bucket != tt.bucket {
				t.Errorf("no limit, and the bucket became %v", got.Bucket)
			}
			if diff := cmp.Diff(tt.want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func states() []policy.State {
	return []policy.State{policy.Unknown, policy.Pending, policy.Approved, policy.Frozen, policy.Revoked, policy.Forgotten, "other"}
}

func draw(t *rapid.T) (policy.Rules, policy.Node, policy.Request, policy.Bucket, time.Time) {
	networks := rapid.SampledFrom([][]netip.Prefix{nil, nets("10.0.0.0/8"), nets("2001:db8::/32", "192.0.2.0/24")})
	limit := rapid.Custom(func(t *rapid.T) policy.Limit {
		return policy.Limit{PerHour: rapid.IntRange(-1, 5000).Draw(t, "per hour"), Burst: rapid.IntRange(-1, 50).Draw(t, "burst")}
	})
	moment := rapid.Custom(func(t *rapid.T) time.Time {
		return now.Add(time.Duration(rapid.Int64Range(-3e13, 3e13).Draw(t, "ns")))
	})
	rules := policy.Rules{Enrol: rapid.SampledFrom([]policy.Enrolment{"", policy.Open, policy.AllowList, "x"}).Draw(t, "enrol"), Networks: networks.Draw(t, "rules"), Limit: limit.Draw(t, "all")}
	node := policy.Node{State: rapid.SampledFrom(states()).Draw(t, "state"), Networks: networks.Draw(t, "node"), Limit: limit.Draw(t, "own")}
	if rapid.Bool().Draw(t, "until?") {
		node.Until = moment.Draw(t, "until")
	}
	source := rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.9.9.9"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}).Draw(t, "source")
	req := policy.Request{Op: rapid.SampledFrom([]policy.Op{policy.Seal, policy.Unseal, policy.Import, ""}).Draw(t, "op"), Source: source}
	return rules, node, req, policy.Bucket{FullAt: moment.Draw(t, "bucket")}, moment.Draw(t, "now")
}

func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rules, node, req, bucket, at := draw(t)
		d := policy.Decide(rules, node, req, bucket, at)
		if again := policy.Decide(rules, node, req, bucket, at); d != again {
			t.Fatalf("the same question, two answers: %+v, %+v", d, again)
		}
		if d.Allow != (d.Reason == policy.OK) || d.Rule == "" {
			t.Fatalf("%+v", d)
		}
		enrols := node.State == policy.Unknown && rules.Enrol == policy.Open && req.Op != policy.Unseal
		if d.Allow && node.State != policy.Approved && !enrols {
			t.Fatalf("a node that is %q was allowed", node.State)
		}
		if d.Allow && !node.Until.IsZero() && !at.Before(node.Until) && node.State == policy.Approved {
			t.Fatal("allowed after the end of its approval")
		}
		if d.Register != policy.Unknown && node.State != policy.Unknown {
			t.Fatalf("a %q node was registered again", node.State)
		}
		if !d.Allow && (d.Took != 0 || d.Bucket.FullAt.After(bucket.FullAt) || d.Bucket != bucket && d.Reason != policy.RateLimited) {
			t.Fatal("a refusal took a token")
		}
		if (d.RetryAfter > 0) != (d.Reason == policy.RateLimited) {
			t.Fatalf("%+v", d)
		}
		if d.Reason == policy.RateLimited {
			if again := policy.Decide(rules, node, req, d.Bucket, at.Add(d.RetryAfter)); again.Reason == policy.RateLimited {
				t.Fatalf("came back after %v as told, and: %+v", d.RetryAfter, again)
			}
			if early := policy.Decide(rules, node, req, d.Bucket, at.Add(d.RetryAfter-1)); early.Allow {
				t.Fatal("one nanosecond early, and allowed")
			}
		}
	})
}

// TestBucketNeverGivesMore counts what any sequence of requests gets against
// what a limit promises: a burst, and the rate from then on.
func TestBucketNeverGivesMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := policy.Limit{PerHour: rapid.IntRange(1, 100_000).Draw(t, "per hour"), Burst: rapid.IntRange(1, 20).Draw(t, "burst")}
		var b policy.Bucket
		at, taken := now, 0
		for _, step := range rapid.SliceOfN(rapid.Int64Range(0, int64(20*time.Minute)), 1, 60).Draw(t, "steps") {
			at = at.Add(time.Duration(step))
			after, took, wait := b.Take(l, at)
			if wait > 0 {
				continue
			}
			if back := after.Return(took); !back.FullAt.Equal(b.FullAt) && !(b.Full(at) && back.Full(at)) {
				t.Fatalf("a token put back into %v gives %v", after, back)
			}
			b, taken = after, taken+1
			if most := l.Burst + int(at.Sub(now)/(time.Hour/time.Duration(l.PerHour))); taken > most {
				t.Fatalf("%d in %v, at most %d", taken, at.Sub(now), most)
			}
		}
		if taken == 0 {
			t.Fatal("nothing was ever given")
		}
	})
}

func TestBucketAfterTheClockWasSetBack(t *testing.T) {
	l := policy.Limit{PerHour: 60, Burst: 3}
	far := policy.Bucket{FullAt: now.Add(1000 * time.Hour)}
	after, _, wait := far.Take(l, now)
	if wait != time.Minute {
		t.Errorf("waits %v, want a minute", wait)
	}
	if _, _, wait = after.Take(l, now.Add(time.Minute)); wait != 0 {
		t.Errorf("came back as told, and waits %v", wait)
	}
	if !far.Full(now.Add(1000*time.Hour)) || far.Full(now) {
		t.Error("Full")
	}
}

func TestCheck(t *testing.T) {
	many := slices.Repeat(nets("10.0.0.0/8"), 257)
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"zero rules", policy.Rules{}.Check(), ""},
		{"enrolment", policy.Rules{Enrol: "x"}.Check(), `"x" is neither`},
		{"host bits", policy.Rules{Networks: nets("10.1.2.3/8")}.Check(), "did you mean 10.0.0.0/8"},
		{"empty prefix", policy.Rules{Networks: []netip.Prefix{{}}}.Check(), "invalid prefix"},
		{"mapped", policy.Rules{Networks: nets("::ffff:10.0.0.0/104")}.Check(), "IPv4"},
		{"too many", policy.Rules{Networks: many}.Check(), "at most 256"},
		{"unknown state", policy.Node{}.Check(), "state"},
		{"good node", policy.Node{State: policy.Frozen, Networks: nets("2001:db8::/32"), Limit: policy.Limit{PerHour: 3, Burst: 1}}.Check(), ""},
		{"node's networks", policy.Node{State: policy.Frozen, Networks: many}.Check(), "at most 256"},
		{"rate", policy.Limit{PerHour: 1_000_001}.Check(), "per hour"},
		{"burst", policy.Limit{PerHour: 1, Burst: 10_001}.Check(), "burst"},
		{"burst alone", policy.Limit{Burst: 1}.Check(), "without"},
	} {
		if (tt.err == nil) != (tt.want == "") || tt.err != nil && !strings.Contains(tt.err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, tt.err, tt.want)
		}
	}
}

func TestJSON(t *testing.T) {
	in := policy.Node{State: policy.Approved, Until: now, Networks: nets("10.0.0.0/8"), Limit: policy.Limit{PerHour: 6, Burst: 2}}
	text, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"state":"approved","until":"2026-11-22T12:00:00Z","networks":["10.0.0.0/8"],"limit":{"per_hour":6,"burst":2}}`
	if string(text) != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	var out policy.Node
	if err := json.Unmarshal(text, &out); err != nil || !cmp.Equal(in, out, cmpopts.EquateComparable(netip.Prefix{})) {
		t.Errorf("%+v, %v", out, err)
	}
}
