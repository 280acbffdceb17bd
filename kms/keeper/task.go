package keeper

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// task is one request on its way.
type task struct {
	req      Request
	node     blob.Node
	decision policy.Decision // that allowed it
	op       policy.Op       // that it allowed
	admitted time.Time       // when what it was decided by was read; zero: it was not allowed
	event    audit.Event     // what will be on record
	tries    int
	known    bool // there is a record of the node
}

// giveBack returns the token that the task took, once.
func (k *Keeper) giveBack(t *task) {
	k.cache.giveBack(t.node, t.decision)
	t.decision = policy.Decision{}
}

func (k *Keeper) begin(op string, req Request) *task {
	e := audit.Event{Time: k.o.Now(), Op: op, Actor: req.Actor}
	if req.Source != (netip.Addr{}) {
		e.Address = req.Source.Unmap().String()
	}
	return &task{req: req, event: e}
}

// parse reads the node's name. Before that, nothing of the name is on record: it
// is any text of any stranger.
func (t *task) parse() (err error) {
	if t.node, err = blob.ParseNode(t.req.Node); err != nil {
		return malformed("", err)
	}
	t.event.Node = string(t.node)
	return nil
}

// end puts the answer on record and returns it; without the record there is no
// answer but Unavailable. A token is for data that was given: who comes with a
// node's name and a blob that does not open uses up nothing of the node's.
//
// The KEK may have been slow, and so may the record: the answer is what is decided
// when it leaves, and so is the last record of it.
func (k *Keeper) end(ctx context.Context, t *task, err error) error {
	if err == nil {
		err = k.confirm(ctx, t)
	}
	answer := k.record(t, asError(t, err))
	if answer == nil {
		if err := k.confirm(ctx, t); err != nil {
			t.event.Detail = "the record before this one said allowed; nothing was given out"
			answer = k.record(t, asError(t, err))
		}
	}
	if t.known {
		k.cache.saw(t.node, t.event.Time, t.req.Source, answer == nil && t.event.Op != "seal")
	}
	if answer == nil {
		return nil // not the nil *Error
	}
	return answer
}

// record puts an answer on record, and returns the one to give.
func (k *Keeper) record(t *task, answer *Error) *Error {
	t.event.Outcome = "allowed"
	if answer != nil {
		t.event.Outcome, t.event.Code = string(answer.Code), string(answer.Reason)
		if answer.Code == Unavailable {
			t.event.Detail = answer.Err.Error()
		}
		k.giveBack(t) // now, not once it is on record: the node may be waiting for it
	}
	if err := k.o.Audit.Append(t.event); err != nil {
		k.giveBack(t)
		return unavailable(t.node, NoAudit, err)
	}
	return answer
}

// confirm decides once more if what was decided by is old by now. It takes no token.
func (k *Keeper) confirm(ctx context.Context, t *task) error {
	now := k.o.Now()
	if t.admitted.IsZero() || now.Sub(t.admitted) <= readAge {
		return nil
	}
	return k.decideAgain(ctx, t, now)
}

func (k *Keeper) decideAgain(ctx context.Context, t *task, now time.Time) error {
	n, err := k.node(ctx, t.node, 0)
	if err != nil {
		return err
	}
	rules, err := k.rulesAt(ctx, 0)
	if err != nil {
		return err
	}
	d := policy.Decide(rules, n.policy(), policy.Request{Op: t.op, Source: t.req.Source}, policy.Bucket{}, now)
	switch t.event.Rule = d.Rule; {
	case !d.Allow:
		return refusal(t.node, d)
	case n.has(t.event.KeyVersion):
		t.admitted = now
		return nil
	case t.op == policy.Unseal:
		return denied(t.node, KeyRetired, nil)
	}
	return unavailable(t.node, NoStore, errors.New("the key that sealed it was retired meanwhile; try again"))
}

// asError makes every error one of ours; what has no code is our own trouble.
func asError(t *task, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return unavailable(t.node, NoStore, err)
}
