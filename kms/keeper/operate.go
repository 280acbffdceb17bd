package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
)

// Errors of operators' changes.
var (
	// ErrUnknown: there is no such node, or no such version of its key.
	ErrUnknown = errors.New("not known")
	// ErrRefused: the change is not possible as things are; the text says why.
	ErrRefused = errors.New("refused")
)

// Operator is who changes something, and why. All of it goes on record.
type Operator struct {
	Name   string     // proven by the front
	Source netip.Addr // may be left out
	Reason string     // in the operator's words; kept with the node
}

func (o Operator) event(op string) audit.Event {
	e := audit.Event{Op: op, Actor: o.Name, Outcome: "begun", Detail: o.Reason}
	if o.Source.IsValid() {
		e.Source = o.Source.Unmap().String()
	}
	return e
}

// Approval is what an operator grants. It replaces what was granted before.
type Approval struct {
	Until    time.Time // zero: without end. With one it is not good before it was given either, less an hour
	Networks []netip.Prefix
	Limit    policy.Limit
	// Keep leaves the node's own networks and limit as they are.
	Keep bool
	// Reinstate is needed for a node that is revoked.
	Reinstate bool
	// Judge, if not nil, is asked with the node as it is, and nothing comes between
	// its answer and the change; an error refuses the approval.
	Judge func(policy.Node) error
}

// clockSkew is how far the clocks of servers on one store may differ.
const clockSkew = time.Hour

// Approve lets a node in: one that is pending, frozen or forgotten, or one that
// was never seen.
func (k *Keeper) Approve(ctx context.Context, by Operator, node string, a Approval) error {
	return k.edit(ctx, "approve", by, node, func(_ blob.Node, r *record) error {
		if r.Policy.State == policy.Revoked && !a.Reinstate {
			return fmt.Errorf("%w: it is revoked; say that it shall be reinstated", ErrRefused)
		}
		if a.Judge != nil {
			if err := a.Judge(r.Policy); err != nil {
				return err
			}
		}
		networks, limit := a.Networks, a.Limit
		if a.Keep {
			networks, limit = r.Policy.Networks, r.Policy.Limit
		}
		r.Policy = policy.Node{State: policy.Approved, Until: a.Until.UTC(), Networks: networks, Limit: limit}
		r.Approved = k.o.Now().UTC()
		if a.Until.IsZero() {
			r.Policy.Until = time.Time{}
		} else {
			r.Policy.Since = r.Approved.Add(-clockSkew)
		}
		return nil
	})
}

// Freeze holds a node for now. Its keys, limits and networks are kept.
func (k *Keeper) Freeze(ctx context.Context, by Operator, node string) error {
	return k.edit(ctx, "freeze", by, node, func(_ blob.Node, r *record) error {
		if r.Policy.State != policy.Approved && r.Policy.State != policy.Frozen {
			return fmt.Errorf("%w: only an approved node can be frozen, it is %s", ErrRefused, stateName(r))
		}
		r.Policy.State = policy.Frozen
		return nil
	})
}

// Thaw takes back a Freeze.
func (k *Keeper) Thaw(ctx context.Context, by Operator, node string) error {
	return k.edit(ctx, "thaw", by, node, func(_ blob.Node, r *record) error {
		if r.Policy.State != policy.Frozen {
			return fmt.Errorf("%w: it is not frozen, it is %s", ErrRefused, stateName(r))
		}
		r.Policy.State = policy.Approved
		return nil
	})
}

// Revoke shuts a node out, also one that was never seen. Its keys are kept, so
// that it can be reinstated; to destroy them, forget it.
func (k *Keeper) Revoke(ctx context.Context, by Operator, node string) error {
	return k.edit(ctx, "revoke", by, node, func(_ blob.Node, r *record) error {
		r.Policy.State = policy.Revoked
		return nil
	})
}

// RotateKey gives a node a new version of its key. What it sealed before still
// opens until that version is retired.
func (k *Keeper) RotateKey(ctx context.Context, by Operator, node string) (version uint32, err error) {
	err = k.edit(ctx, "rotate-key", by, node, func(id blob.Node, r *record) error {
		if len(r.Keys) == 0 {
			return fmt.Errorf("%w: node %s has no key yet", ErrUnknown, id)
		}
		if err := k.addKey(ctx, id, r); err != nil {
			return err
		}
		version = r.Last
		return nil
	})
	return version, err
}

// SetPolicy replaces a node's own networks and limit.
func (k *Keeper) SetPolicy(ctx context.Context, by Operator, node string, networks []netip.Prefix, limit policy.Limit) error {
	return k.edit(ctx, "set-policy", by, node, func(id blob.Node, r *record) error {
		if r.Policy.State == policy.Unknown {
			return fmt.Errorf("%w: node %s", ErrUnknown, id)
		}
		r.Policy.Networks, r.Policy.Limit = networks, limit
		return nil
	})
}

// RetireKeys destroys all versions of a node's key below one, and returns how
// many: what was sealed with them opens never again. Reference blobs of the node
// are sealed anew before.
func (k *Keeper) RetireKeys(ctx context.Context, by Operator, node string, below uint32) (destroyed int, err error) {
	id, err := blob.ParseNode(node)
	if err != nil {
		return 0, malformed("", err)
	}
	err = k.edit(ctx, "retire-keys", by, node, func(_ blob.Node, r *record) error {
		newest, ok := r.key(0)
		switch {
		case !ok:
			return fmt.Errorf("%w: node %s has no key", ErrUnknown, id)
		case below > newest.Version:
			return fmt.Errorf("%w: version %d seals; rotate the key first, or forget the node", ErrRefused, newest.Version)
		}
		if err := k.resealImports(ctx, id, below); err != nil {
			return err
		}
		kept := slices.DeleteFunc(slices.Clone(r.Keys), func(key nodeKey) bool { return key.Version < below })
		destroyed, r.Keys = len(r.Keys)-len(kept), kept
		return nil
	})
	if err != nil {
		return 0, err
	}
	return destroyed, k.scrub(ctx) // with nothing to destroy too: an earlier one may have failed here
}

// Forget destroys all of a node's keys, and returns how many: what it sealed opens
// never again, on no server. The node stays known, without keys, as forgotten, or
// as revoked if it was; an operator may approve it anew. confirm must be the
// node's UUID, written out by whoever wants this.
func (k *Keeper) Forget(ctx context.Context, by Operator, node, confirm string) (destroyed int, err error) {
	id, err := blob.ParseNode(node)
	if err != nil {
		return 0, malformed("", err)
	}
	if !strings.EqualFold(confirm, string(id)) {
		return 0, fmt.Errorf("%w: forgetting node %s destroys its keys for good; confirm with its UUID", ErrRefused, id)
	}
	err = k.edit(ctx, "forget", by, node, func(_ blob.Node, r *record) error {
		if len(r.Keys) == 0 && r.Policy.State == policy.Unknown {
			return fmt.Errorf("%w: node %s", ErrUnknown, id)
		}
		destroyed, r.Keys, r.Below = len(r.Keys), nil, r.Last+1
		if r.Policy.State != policy.Revoked {
			r.Policy = policy.Node{State: policy.Forgotten}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return destroyed, errors.Join(k.destroyImports(ctx, id), k.scrub(ctx))
}

// scrub cleans the store of what was just replaced, if it can.
func (k *Keeper) scrub(ctx context.Context) error {
	s, ok := k.o.Store.(store.Scrubber)
	if !ok {
		return nil
	}
	if err := s.Scrub(ctx); err != nil {
		return fmt.Errorf("the change is made; traces of what it destroyed may be left in the store: %w", err)
	}
	return nil
}

// edit changes a node's record, with a record of the intention before and of the
// outcome after. Those that shut a node out are made even if they cannot be put on
// record, and say so; all others are not.
func (k *Keeper) edit(ctx context.Context, op string, by Operator, node string, change func(blob.Node, *record) error) error {
	id, err := blob.ParseNode(node)
	if err != nil {
		return malformed("", err)
	}
	event := by.event(op)
	event.Node = string(id)
	noted := k.note(event)
	if noted != nil && op != "revoke" && op != "freeze" {
		return unavailable(id, NoAudit, noted)
	}
	err = k.change(ctx, id, func(id blob.Node, r *record) error {
		if by.Reason != "" {
			r.Comment = by.Reason
		}
		return change(id, r)
	})
	if event.Outcome = "done"; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	if after := errors.Join(noted, k.note(event)); after != nil && err == nil {
		return unavailable(id, NoAudit, fmt.Errorf("the change is made and not on record: %w", after))
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
