package keeper_test

import (
	"context"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/secret"
)

// held stops those who come, once, until a test lets them go on.
type held struct{ in, goOn chan struct{} }

func hold() held { return held{make(chan struct{}, 1), make(chan struct{})} }

func (h held) stop() {
	select {
	case h.in <- struct{}{}:
		<-h.goOn
	default:
	}
}

// heldKEK is slow to unwrap.
type heldKEK struct {
	*kek.Keyset
	held
}

func (k heldKEK) Unwrap(ctx context.Context, wrapped, bound []byte) (*secret.Bytes, error) {
	key, err := k.Keyset.Unwrap(ctx, wrapped, bound)
	k.stop()
	return key, err
}

// heldAudit is slow to sync.
type heldAudit struct {
	*countedAudit
	held
}

func (a heldAudit) Append(e audit.Event) error {
	err := a.countedAudit.Append(e)
	a.stop()
	return err
}

// TestLateAnswer holds an unseal up, in the KEK or in the audit log, while its node
// is shut out. What was decided before that is not what leaves, and the last record
// says what did.
func TestLateAnswer(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(b *bench) error
		code   keeper.Code // "": answered
		reason policy.Reason
	}{
		{"nothing", func(*bench) error { return nil }, "", ""},
		{"revoked", func(b *bench) error { return b.Revoke(b.t.Context(), op, nodeA) }, keeper.Revoked, policy.NodeRevoked},
		{"forgotten", func(b *bench) error { return b.forget(nodeA, nodeA) }, keeper.Denied, policy.NodeForgotten},
		{"another network", func(b *bench) error {
			_, err := b.SetRules(b.t.Context(), op, policy.Rules{Networks: elsewhere})
			return err
		}, keeper.Denied, policy.WrongNetwork},
		{"retired", func(b *bench) error {
			_, err := b.RotateKey(b.t.Context(), op, nodeA)
			b.ok(err)
			return b.retire(nodeA, 1)
		}, keeper.Denied, keeper.KeyRetired},
	} {
		for _, slow := range []string{"kek", "audit"} {
			t.Run(tt.name+", slow "+slow, func(t *testing.T) {
				o := open()
				o.Rules.Limit = policy.Limit{PerHour: 6, Burst: 1}
				b := start(t, o)
				raw := b.sealed(nodeA, "data")
				h := hold()
				o.Store, o.KEK, o.Audit, o.Now = b.store, b.keys, b.log, b.clock
				if slow == "kek" {
					o.KEK = heldKEK{b.keys, h}
				} else {
					o.Audit = heldAudit{b.log, h}
				}
				other, err := keeper.New(t.Context(), o)
				b.ok(err)
				defer other.Close()
				var data *secret.Bytes
				done := make(chan error)
				go func() {
					data, err = other.Unseal(t.Context(), from(nodeA), raw)
					done <- err
				}()
				<-h.in
				b.ok(tt.change(b))
				b.pass(keeper.MaxAge + time.Millisecond)
				close(h.goOn)
				err = <-done
				if tt.code != "" {
					b.judge(data != nil, err, tt.code, tt.reason)
				} else if err != nil || string(data.Bytes()) != "data" || b.recorded().Outcome != "allowed" {
					t.Errorf("%v, on record %+v", err, b.recorded())
				}
				other.Release(data)
			})
		}
	}
}
