package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// attempts is how often a change is tried again after someone else's.
const attempts = 16

var errBusy = errors.New("its record is being changed all the time; try again")

// Seal returns data as a blob for the node. The data stays the caller's. When it
// returns the blob, the key that opens it is durable.
func (k *Keeper) Seal(ctx context.Context, req Request, data *secret.Bytes) ([]byte, error) {
	t := k.begin("seal", req)
	raw, err := k.seal(ctx, t, data)
	if err := k.end(ctx, t, err); err != nil {
		return nil, err
	}
	return raw, nil
}

func (k *Keeper) seal(ctx context.Context, t *task, data *secret.Bytes) ([]byte, error) {
	if err := t.parse(); err != nil {
		return nil, err
	}
	if n := data.Len(); n < 1 || n > blob.MaxData {
		return nil, malformed(t.node, errDataSize(n))
	}
	n, err := k.admit(ctx, t, policy.Seal, 0)
	if err != nil {
		return nil, err
	}
	return k.sealWith(ctx, t, n, data)
}

// sealWith seals under the newest version of the node's key.
func (k *Keeper) sealWith(ctx context.Context, t *task, n *known, data *secret.Bytes) (raw []byte, err error) {
	newest, _ := n.rec.key(0)
	t.event.KeyVersion = newest.Version
	err = k.withKey(ctx, n, newest.Version, func(key *secret.Bytes) (err error) {
		raw, err = blob.Seal(key, newest.Version, t.node, data)
		return err
	})
	if err == nil { // the key may be a new one: who retires its KEK saw it, or this sees that
		err = k.notRetired(ctx, t.node, kek.Version(newest.Wrapped), 0)
	}
	if err != nil {
		return nil, err
	}
	return raw, nil
}

// admit asks the policy, and returns the node if it is allowed and has the key
// version, 0 for the newest one. For a seal or an import that means to register
// it, or to make its first key. The key is not handed on: whoever uses it unwraps
// what was stored, so a KEK version that was destroyed meanwhile is found before
// anything was sealed with it.
//
// A record that may be old is enough to say yes, never to say no: the blob may
// have been sealed a moment ago, at another server.
func (k *Keeper) admit(ctx context.Context, t *task, op policy.Op, version uint32) (*known, error) {
	age := readAge
	if op != policy.Unseal {
		age = 0
	}
	for range attempts {
		now := k.o.Now()
		n, err := k.node(ctx, t.node, age)
		if err != nil {
			return nil, err
		}
		rules, err := k.rulesAt(ctx, age)
		if err != nil {
			return nil, err
		}
		t.known = n.there()
		d := k.cache.decide(rules, n, policy.Request{Op: op, Source: t.req.Source}, now)
		t.event.Rule = d.Rule
		if d.Allow && n.has(version) {
			t.decision, t.op, t.admitted = d, op, now
			return n, nil
		}
		if d.Reason == policy.RateLimited { // counted here, not stored
			return nil, refusal(t.node, d)
		}
		k.cache.giveBack(t.node, d)
		switch {
		case age > 0:
			age = 0
		case !d.Allow && d.Register == policy.Unknown:
			return nil, refusal(t.node, d)
		case op == policy.Unseal:
			t.event.KeyVersion = version
			if n.rec == nil || version > n.rec.Last {
				return nil, denied(t.node, NotAuthentic, fmt.Errorf("its key never had a version %d here", version))
			}
			return nil, denied(t.node, KeyRetired, nil)
		default:
			if err := k.register(ctx, t, n, d); err != nil && !errors.Is(err, store.ErrConflict) {
				return nil, err
			} else if err == nil && !d.Allow {
				t.known = true // registered just now, and where from helps who approves
				return nil, refusal(t.node, d)
			}
		}
	}
	return nil, unavailable(t.node, NoStore, errBusy)
}

// register stores the state that the decision asks for, and a first key for a
// node that is allowed.
func (k *Keeper) register(ctx context.Context, t *task, n *known, d policy.Decision) error {
	rec := k.draft(n)
	if !n.there() {
		if err := k.room(ctx, n.node, t.req.Source, d.Allow); err != nil {
			return err
		}
	}
	if d.Register != policy.Unknown {
		rec.Policy.State = d.Register
	}
	if d.Allow {
		if err := k.addKey(ctx, n.node, rec); err != nil {
			return err
		}
	}
	return k.save(ctx, n, rec)
}
