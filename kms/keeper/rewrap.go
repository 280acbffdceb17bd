package keeper

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/secret"
)

// Rewrapped says what a Rewrap did, in node keys.
type Rewrapped struct {
	Renewed int
	Kept    int // wrapped by the current version already
	Failed  int // see the error
}

// rewrapper is a KEK that renews a wrapped key without giving it out. It may say
// that it cannot.
type rewrapper interface {
	Rewrap(ctx context.Context, wrapped, associated []byte) (renewed []byte, ok bool, err error)
}

// Rewrap wraps all node keys by the current version of the key-encryption key.
// Nodes notice nothing. It may be called again, and goes on after a failure: the
// error joins those of single nodes. progress, if not nil, is called after each.
func (k *Keeper) Rewrap(ctx context.Context, by Operator, progress func(Rewrapped)) (r Rewrapped, err error) {
	current, err := k.current(ctx)
	if err == nil {
		err = k.agree(ctx)
	}
	if err != nil {
		return r, err
	}
	event := by.Event("rewrap")
	if err := k.note(event); err != nil {
		return r, unavailable("", NoAudit, err)
	}
	var problems []error // the first ten
	failures := 0
	for info, err := range k.Nodes(ctx) {
		if err == nil {
			err = k.rewrapNode(ctx, info, current, &r)
		}
		if err != nil {
			r.Failed++
			if problems = append(problems, err); len(problems) > 10 {
				problems = problems[:10]
			}
			if !errors.Is(err, kek.ErrVersion) { // that one's keys are lost, not those of others
				failures++
			}
		}
		if progress != nil {
			progress(r)
		}
		if ctx.Err() != nil || failures > 10 {
			break // the KEK, or the store, is gone
		}
	}
	event.Outcome, event.Detail = "done", fmt.Sprintf("to %s: %d renewed, %d kept, %d failed", current, r.Renewed, r.Kept, r.Failed)
	return r, errors.Join(append(problems, ctx.Err(), k.note(event))...)
}

func (k *Keeper) current(ctx context.Context) (string, error) {
	rotator, ok := k.o.KEK.(kek.Rotator)
	if !ok {
		return "", fmt.Errorf("%w: this key-encryption key has no versions", ErrRefused)
	}
	current, err := rotator.Current(ctx)
	if err != nil {
		return "", unavailable("", NoKEK, err)
	}
	return current, nil
}

func (k *Keeper) rewrapNode(ctx context.Context, info Info, current string, r *Rewrapped) error {
	old := 0
	for _, key := range info.Keys {
		if key.KEK != current {
			old++
		}
	}
	if r.Kept += len(info.Keys) - old; old == 0 {
		return nil
	}
	err := k.change(ctx, info.Node, func(id blob.Node, rec *record) error {
		for i, key := range rec.Keys {
			if kek.Version(key.Wrapped) == current {
				continue
			}
			renewed, err := k.renew(ctx, id, rec, key)
			if err != nil {
				return err
			}
			rec.Keys[i].Wrapped = renewed
		}
		return nil
	})
	if err == nil {
		r.Renewed += old
	}
	return err
}

// renew wraps one key anew, and proves that it is the same one before the old
// wrapping is given up.
func (k *Keeper) renew(ctx context.Context, id blob.Node, rec *record, key nodeKey) ([]byte, error) {
	bound := associated(id, key.Version)
	if re, ok := k.o.KEK.(rewrapper); ok {
		k.asked.kek.Add(1)
		renewed, ok, err := re.Rewrap(ctx, key.Wrapped, bound)
		if err != nil {
			return nil, noKEK(id, err)
		}
		if ok {
			return renewed, k.proveRenewed(ctx, id, rec, key, renewed)
		}
	}
	plain, err := k.unwrap(ctx, id, rec, key.Version)
	if err != nil {
		return nil, err
	}
	defer plain.Wipe()
	renewed, err := k.wrap(ctx, plain, bound)
	if err != nil {
		return nil, noKEK(id, err)
	}
	return renewed, k.proveRenewed(ctx, id, rec, key, renewed)
}

func (k *Keeper) proveRenewed(ctx context.Context, id blob.Node, rec *record, key nodeKey, renewed []byte) error {
	var pair [2]*secret.Bytes
	defer func() { pair[0].Wipe(); pair[1].Wipe() }()
	for i, wrapped := range [][]byte{key.Wrapped, renewed} {
		one := *rec
		one.Keys = []nodeKey{{Version: key.Version, Wrapped: bytes.Clone(wrapped)}}
		var err error
		if pair[i], err = k.unwrap(ctx, id, &one, key.Version); err != nil {
			return err
		}
	}
	if !pair[0].Equal(pair[1]) {
		return unavailable(id, NoKEK, fmt.Errorf("key version %d came back as another key when it was wrapped anew; nothing was changed", key.Version))
	}
	return nil
}

// KEKUse counts the node keys that each version of the key-encryption key wraps.
func (k *Keeper) KEKUse(ctx context.Context) (map[string]int, error) {
	use := map[string]int{}
	for info, err := range k.Nodes(ctx) {
		if err != nil {
			return nil, err
		}
		for _, key := range info.Keys {
			use[key.KEK]++
		}
	}
	return use, nil
}

// Retirer destroys versions of a key-encryption key. A [kek.Keyset] is one.
type Retirer interface {
	Disable(version string) error
	Enable(version string) error
	Destroy(version string) error
}

// RetireKEK destroys a version of the key-encryption key that wraps nothing any
// more. All wrapped copies of node keys that it made, in backups too, are dead
// afterwards. It is disabled first and counted then: a key that is being stored
// meanwhile is either counted, or its Seal finds that it cannot be unwrapped and
// gives out no blob.
func (k *Keeper) RetireKEK(ctx context.Context, by Operator, version string, keys Retirer) error {
	event := by.Event("retire-kek")
	event.Before = "version=" + version
	if err := k.note(event); err != nil {
		return unavailable("", NoAudit, err)
	}
	err := k.retireKEK(ctx, version, keys)
	if event.Outcome = "done"; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	return errors.Join(err, k.note(event))
}

func (k *Keeper) retireKEK(ctx context.Context, version string, keys Retirer) error {
	if err := k.agree(ctx); err != nil {
		return err
	}
	if err := k.unused(ctx, version); err != nil {
		return err // without having disabled what is in use
	}
	if err := keys.Disable(version); err != nil {
		return err
	}
	err := k.setRetired(ctx, version, true) // for servers with a keyset of their own
	if err == nil {
		err = k.unused(ctx, version)
	}
	if err != nil {
		return errors.Join(err, k.setRetired(ctx, version, false), keys.Enable(version))
	}
	return keys.Destroy(version)
}

func (k *Keeper) unused(ctx context.Context, version string) error {
	use, err := k.KEKUse(ctx)
	if err == nil && use[version] > 0 {
		err = fmt.Errorf("%w: %d node keys are wrapped by version %s; rewrap first", ErrRefused, use[version], version)
	}
	return err
}
