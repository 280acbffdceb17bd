package keeper

import (
	"errors"
	"net/netip"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// task is one request on its way.
type task struct {
	req      Request
	node     blob.Node
	decision policy.Decision // that allowed it
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
		e.Source = req.Source.Unmap().String()
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
// answer but Unavailable. What is not the node's doing costs it no token.
func (k *Keeper) end(t *task, err error) error {
	answer := asError(t, err)
	t.event.Outcome = "allowed"
	if answer != nil {
		t.event.Outcome, t.event.Reason = string(answer.Code), string(answer.Reason)
		if answer.Code == Unavailable {
			t.event.Detail = answer.Err.Error()
		}
	}
	if err := k.o.Audit.Append(t.event); err != nil {
		answer = unavailable(t.node, NoAudit, err)
	}
	if t.known {
		k.cache.saw(t.node, t.event.Time, t.req.Source, answer == nil && t.event.Op != "seal")
	}
	if answer == nil {
		return nil
	}
	if answer.Code == Unavailable {
		k.giveBack(t)
	}
	return answer
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
