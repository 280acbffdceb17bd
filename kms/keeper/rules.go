package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
)

const rulesName = "rules"

// storedRules are the rules of one revision of their record; 0: those of Options.
type storedRules struct {
	revision uint64
	checked  uint64 // as in known
	rules    policy.Rules
}

// rulesRecord is what is stored. It is read strictly, as nodes are.
type rulesRecord struct {
	Format int          `json:"format"`
	Rules  policy.Rules `json:"rules"`
}

func parseRules(text []byte) (policy.Rules, error) {
	var r rulesRecord
	if err := strictly(text, &r); err != nil {
		return policy.Rules{}, err
	}
	if r.Format != recordFormat {
		return policy.Rules{}, fmt.Errorf("format %d, known is %d; it needs a newer program", r.Format, recordFormat)
	}
	return r.Rules, r.Rules.Check()
}

// rulesAt returns the rules as they were at most age ago.
func (k *Keeper) rulesAt(ctx context.Context, age time.Duration) (policy.Rules, error) {
	r, err := k.loadRules(ctx, age)
	return r.rules, err
}

func (k *Keeper) loadRules(ctx context.Context, age time.Duration) (storedRules, error) {
	now, r := k.generation(), *k.rules.Load()
	if now > 0 && r.checked == now {
		return r, nil
	}
	e, err := k.get(ctx, rulesName, age)
	switch {
	case errors.Is(err, store.ErrNotFound):
		r = storedRules{rules: k.o.Rules}
	case err != nil:
		return storedRules{}, unavailable("", NoStore, err)
	case r.revision != e.Revision:
		rules, err := parseRules(e.Value)
		if err != nil {
			return storedRules{}, unavailable("", NoStore, fmt.Errorf("record of the rules: %w", err))
		}
		r = storedRules{revision: e.Revision, rules: rules}
	}
	r.checked = now
	k.rules.Store(&r)
	return r, nil
}

// Rules returns the rules for all nodes.
func (k *Keeper) Rules(ctx context.Context) (policy.Rules, error) { return k.rulesAt(ctx, 0) }

// SetRules replaces the rules for all nodes, on all servers of the store, and
// returns those before.
func (k *Keeper) SetRules(ctx context.Context, by Operator, rules policy.Rules) (before policy.Rules, err error) {
	if err := rules.Check(); err != nil {
		return before, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return k.ChangeRules(ctx, by, func(policy.Rules) (policy.Rules, error) { return rules, nil })
}

// ChangeRules is SetRules for who changes a part of the rules: change makes the new
// ones of those in force, or refuses, and nothing comes between.
func (k *Keeper) ChangeRules(ctx context.Context, by Operator, change func(policy.Rules) (policy.Rules, error)) (before policy.Rules, err error) {
	r, err := k.loadRules(ctx, 0)
	if err != nil {
		return before, err
	}
	rules, wrong := change(r.rules)
	event := by.Event("set-policy")
	if wrong == nil {
		event.Before, event.After = difference(ruleValues(r.rules), ruleValues(rules))
	}
	if err := k.note(event); err != nil {
		return r.rules, unavailable("", NoAudit, err)
	}
	if err = wrong; err == nil {
		err = k.storeRules(ctx, r.revision, rules)
	}
	if event.Outcome = "done"; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	return r.rules, errors.Join(err, k.note(event))
}

func (k *Keeper) storeRules(ctx context.Context, revision uint64, rules policy.Rules) error {
	if err := rules.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	text, err := json.Marshal(rulesRecord{recordFormat, rules})
	if err == nil {
		_, err = k.swap(ctx, rulesName, revision, text)
	}
	if errors.Is(err, store.ErrConflict) {
		err = fmt.Errorf("the rules were changed by someone else at the same time: %w: %w", ErrChanged, err)
	}
	return err
}

// Trial is what a dry run puts in the place of what is in force.
type Trial struct {
	At     time.Time     // default now
	Rules  *policy.Rules // for all nodes
	Node   *policy.Node  // of this one
	Rested bool          // as if the node had unsealed nothing of late
}

// DryRun says what the policy would answer, without answering, counting or
// registering anything.
func (k *Keeper) DryRun(ctx context.Context, req Request, op policy.Op, trial Trial) (policy.Decision, error) {
	id, err := blob.ParseNode(req.Node)
	if err != nil {
		return policy.Decision{}, malformed("", err)
	}
	n, err := k.node(ctx, id, 0)
	if err != nil {
		return policy.Decision{}, err
	}
	rules, err := k.rulesAt(ctx, 0)
	if err != nil {
		return policy.Decision{}, err
	}
	node, at := n.policy(), trial.At
	if trial.Rules != nil {
		rules = *trial.Rules
	}
	if trial.Node != nil {
		node = *trial.Node
	}
	if at.IsZero() {
		at = k.o.Now()
	}
	var bucket policy.Bucket
	if !trial.Rested {
		bucket = k.cache.bucket(id)
	}
	return policy.Decide(rules, node, policy.Request{Op: op, Source: req.Source}, bucket, at), nil
}
