package server

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// TestAnswerSaysWhat: reasons that share a code are told apart in words.
func TestAnswerSaysWhat(t *testing.T) {
	for _, c := range []struct {
		code   keeper.Code
		reason policy.Reason
		want   codes.Code
		text   string
	}{
		{keeper.RateLimited, policy.RateLimited, codes.ResourceExhausted, "too many unseals"},
		{keeper.RateLimited, keeper.TooMany, codes.ResourceExhausted, "no room for one more node"},
		{keeper.RateLimited, keeper.TooManyPending, codes.ResourceExhausted, "wait for approval"},
		{keeper.Unavailable, keeper.NoKEK, codes.Unavailable, "its key-encryption key is not available"},
		{keeper.Unavailable, keeper.KEKVersion, codes.Unavailable, "version that wrapped"},
		{keeper.Unavailable, keeper.KEKRefuses, codes.Unavailable, "does not open"},
	} {
		err := answer(&keeper.Error{Code: c.code, Reason: c.reason, RetryAfter: time.Minute})
		if s := status.Convert(err); s.Code() != c.want || !strings.Contains(s.Message(), c.text) {
			t.Errorf("%s: %v", c.reason, err)
		}
	}
}
