package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
)

// Operator is who changes something, and why. All of it goes on record.
type Operator struct {
	Name   string     // proven by the front
	Role   string     // the same
	Serial string     // of the certificate, in hex
	Source netip.Addr // may be left out
	Reason string     // in the operator's words; kept with the node
}

// Event begins the record of what the operator does.
func (o Operator) Event(op string) audit.Event {
	e := audit.Event{Op: op, Actor: o.Name, Role: o.Role, Serial: o.Serial, Outcome: "begun", Reason: o.Reason}
	if o.Source.IsValid() {
		e.Address = o.Source.Unmap().String()
	}
	return e
}

// intent is a change that an operator wants.
type intent struct {
	by    Operator
	event audit.Event
}

// change is a change with the values that are asked for.
func (o Operator) change(op string, asked ...value) intent {
	e := o.Event(op)
	e.After = join(asked)
	return intent{o, e}
}

// edit changes a node's record, with a record of the intention before and of the
// outcome after, which has what was changed. Those that shut a node out are made even
// if they cannot be put on record, and say so; all others are not.
func (k *Keeper) edit(ctx context.Context, want intent, node string, change func(blob.Node, *record) error) error {
	id, err := blob.ParseNode(node)
	if err != nil {
		return malformed("", err)
	}
	event := want.event
	event.Node = string(id)
	noted := k.note(event)
	if noted != nil && event.Op != "revoke" && event.Op != "freeze" {
		return unavailable(id, NoAudit, noted)
	}
	var before, after string
	err = k.change(ctx, id, func(id blob.Node, r *record) error {
		old := r.clone()
		if err := change(id, r); err != nil {
			return err
		}
		if want.by.Reason != "" || r.Policy.State != old.Policy.State { // it does not outlive what it explained
			r.Comment = want.by.Reason
		}
		before, after = difference(old.values(), r.values())
		return nil
	})
	if err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	} else {
		event.Outcome, event.Before, event.After = "done", before, after
	}
	if late := errors.Join(noted, k.note(event)); late != nil && err == nil {
		k.owe(event, late)
		return unavailable(id, NoAudit, fmt.Errorf("the change is made and not on record yet: %w", late))
	}
	return err
}

func (k *Keeper) note(e audit.Event) error {
	e.Time = k.o.Now()
	return k.o.Audit.Append(e)
}

func (k *Keeper) change(ctx context.Context, id blob.Node, change func(blob.Node, *record) error) error {
	for range attempts {
		n, err := k.node(ctx, id, 0)
		if err != nil {
			return err
		}
		rec := k.draft(n)
		if err := change(id, rec); err != nil {
			return err
		}
		if err := rec.Policy.Check(); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if err := k.save(ctx, n, rec); !errors.Is(err, store.ErrConflict) {
			return err
		}
	}
	return unavailable(id, NoStore, errBusy)
}

func stateName(r *record) string {
	if r.Policy.State == policy.Unknown {
		return "not known"
	}
	return string(r.Policy.State)
}
