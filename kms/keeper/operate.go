package keeper

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
)

// Errors of operators' changes.
var (
	// ErrUnknown: there is no such node, or no such version of its key.
	ErrUnknown = errors.New("not known")
	// ErrNoKey: the node is known and has no key: it never sealed, or was forgotten.
	ErrNoKey = errors.New("no key yet")
	// ErrRefused: the change is not possible as things are; the text says why.
	ErrRefused = errors.New("refused")
	// ErrChanged: it is not what the change was meant for any more. An ErrRefused.
	ErrChanged = fmt.Errorf("%w: look at it again", ErrRefused)
)

// Approval is what an operator grants. It replaces what was granted before.
type Approval struct {
	Until time.Time // zero: without end. With one it is not good before it was given either, less an hour
	// KeepUntil leaves the end that there is, if there is one; Until is not looked at.
	KeepUntil bool
	Networks  []netip.Prefix
	Limit     policy.Limit
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
	return k.edit(ctx, by.change("approve", a.asked()...), node, func(_ blob.Node, r *record) error {
		if r.Policy.State == policy.Revoked && !a.Reinstate {
			return fmt.Errorf("%w: it is revoked; reinstate it (cryptctl kms node approve --reinstate) if it is to be served again", ErrRefused)
		}
		if a.Judge != nil {
			if err := a.Judge(r.Policy); err != nil {
				return err
			}
		}
		until, networks, limit := a.Until.UTC(), a.Networks, a.Limit
		if a.KeepUntil {
			until = r.Policy.Until
		}
		if now := k.o.Now(); a.KeepUntil && !until.IsZero() && !now.Before(until) {
			return fmt.Errorf("%w: its approval ended at %s; give it a new end", ErrRefused, until.Format(time.RFC3339))
		}
		if a.Keep {
			networks, limit = r.Policy.Networks, r.Policy.Limit
		}
		r.Policy = policy.Node{State: policy.Approved, Until: until, Networks: networks, Limit: limit}
		r.Approved = k.o.Now().UTC()
		if until.IsZero() {
			r.Policy.Until = time.Time{}
		} else {
			r.Policy.Since = r.Approved.Add(-clockSkew)
		}
		return nil
	})
}

// Freeze holds a node for now. Its keys, limits and networks are kept.
func (k *Keeper) Freeze(ctx context.Context, by Operator, node string) error {
	return k.edit(ctx, by.change("freeze", value{"state", "frozen"}), node, func(_ blob.Node, r *record) error {
		if r.Policy.State != policy.Approved && r.Policy.State != policy.Frozen {
			return fmt.Errorf("%w: only an approved node can be frozen, it is %s", ErrRefused, stateName(r))
		}
		r.Policy.State = policy.Frozen
		return nil
	})
}

// Thaw takes back a Freeze.
func (k *Keeper) Thaw(ctx context.Context, by Operator, node string) error {
	return k.edit(ctx, by.change("thaw", value{"state", "approved"}), node, func(_ blob.Node, r *record) error {
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
	return k.edit(ctx, by.change("revoke", value{"state", "revoked"}), node, func(_ blob.Node, r *record) error {
		r.Policy.State = policy.Revoked
		return nil
	})
}

// RotateKey gives a node a new version of its key. What it sealed before still
// opens until that version is retired.
func (k *Keeper) RotateKey(ctx context.Context, by Operator, node string) (version uint32, err error) {
	err = k.edit(ctx, by.change("rotate-key"), node, func(id blob.Node, r *record) error {
		if len(r.Keys) == 0 {
			return keyless(id, r)
		}
		if err := k.addKey(ctx, id, r); err != nil {
			return err
		}
		version = r.Last
		return nil
	})
	return version, err
}

// keyless says of a node without a key whether it is known.
func keyless(id blob.Node, r *record) error {
	if r.Policy.State == policy.Unknown {
		return fmt.Errorf("%w: node %s", ErrUnknown, id)
	}
	return fmt.Errorf("node %s has %w; it gets one when it seals", id, ErrNoKey)
}

// SetPolicy replaces a node's own networks and limit. judge, if not nil, is as in
// [Approval].
func (k *Keeper) SetPolicy(ctx context.Context, by Operator, node string, networks []netip.Prefix, limit policy.Limit, judge func(policy.Node) error) error {
	return k.edit(ctx, by.change("set-policy", policyValues(networks, limit)...), node, func(id blob.Node, r *record) error {
		if r.Policy.State == policy.Unknown {
			return fmt.Errorf("%w: node %s", ErrUnknown, id)
		}
		if judge != nil {
			if err := judge(r.Policy); err != nil {
				return err
			}
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
	err = k.edit(ctx, by.change("retire-key", value{"below", strconv.Itoa(int(below))}), node, func(_ blob.Node, r *record) error {
		newest, ok := r.key(0)
		switch {
		case !ok:
			return keyless(id, r)
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
	err = k.edit(ctx, by.change("forget", value{"state", "forgotten"}), node, func(_ blob.Node, r *record) error {
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
