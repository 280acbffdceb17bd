package policy_test

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/kms/policy"
)

// TestTogether: what is shown as in force decides as the two policies do.
func TestTogether(t *testing.T) {
	networks := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b") & 3, 0, rapid.Byte().Draw(t, "d") & 3})
		return netip.PrefixFrom(a, rapid.SampledFrom([]int{8, 15, 16, 30, 31, 32}).Draw(t, "bits")).Masked()
	}), 0, 3)
	limit := rapid.Custom(func(t *rapid.T) policy.Limit { return policy.Limit{PerHour: rapid.IntRange(0, 2).Draw(t, "per hour")} })
	rapid.Check(t, func(t *rapid.T) {
		rules := policy.Rules{Networks: networks.Draw(t, "rules"), Limit: limit.Draw(t, "limit")}
		node := policy.Node{State: policy.Approved, Networks: networks.Draw(t, "node"), Limit: limit.Draw(t, "own")}
		e := policy.Together(rules, node)
		if e.Any && len(e.Networks) > 0 {
			t.Fatalf("%+v", e)
		}
		req := policy.Request{Op: policy.Unseal, Source: netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b") & 3, 0, rapid.Byte().Draw(t, "d") & 3})}
		now := time.Unix(1, 0)
		bucket := policy.Bucket{FullAt: now.Add(time.Duration(rapid.IntRange(0, 2).Draw(t, "taken")) * 31 * time.Minute)}
		want := policy.Decide(rules, node, req, bucket, now)
		shown := policy.Decide(policy.Rules{Networks: e.Networks}, policy.Node{State: policy.Approved, Limit: e.Limit}, req, bucket, now)
		if len(e.Networks) == 0 && !e.Any {
			shown = policy.Decision{Reason: policy.WrongNetwork}
		}
		if shown.Allow != want.Allow || shown.Reason != want.Reason || shown.RetryAfter != want.RetryAfter {
			t.Fatalf("%+v: %+v, want %+v", e, shown, want)
		}
		if want.Reason == policy.RateLimited && (want.Rule == "rules.limit") != e.Default {
			t.Fatalf("%+v: %s", e, want.Rule)
		}
	})
}
