package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/store"
)

// kekName is the record of which versions of the key-encryption key all servers of
// the store use. Each may have a keyset file of its own, and they are copied by
// hand: what is wrapped by a version that others lack would open here only, and a
// version that was destroyed here would live on there.
const kekName = "kek"

type kekRecord struct {
	Format  int      `json:"format"`
	Current string   `json:"current"`           // the newest version that wraps, at any server
	Retired []string `json:"retired,omitempty"` // they unwrap nothing any more, whoever still has them
}

// versioned is a KEK that servers may have copies of. A [kek.Keyset] is one.
type versioned interface {
	Versions() (kek.Versions, error)
}

// kekState returns the record and its revision; the zero ones if there is none.
func (k *Keeper) kekState(ctx context.Context, age time.Duration) (r kekRecord, revision uint64, err error) {
	e, err := k.get(ctx, kekName, age)
	if errors.Is(err, store.ErrNotFound) {
		return kekRecord{}, 0, nil
	}
	if err == nil {
		err = strictly(e.Value, &r)
	}
	if err == nil && r.Format != recordFormat {
		err = fmt.Errorf("format %d, known is %d; it needs a newer program", r.Format, recordFormat)
	}
	if err != nil {
		return kekRecord{}, 0, unavailable("", NoStore, fmt.Errorf("record of the key-encryption key: %w", err))
	}
	return r, e.Revision, nil
}

// changeKEK edits the record until nobody comes between. change reports whether
// there is something to store.
func (k *Keeper) changeKEK(ctx context.Context, change func(*kekRecord) (bool, error)) error {
	for range attempts {
		r, revision, err := k.kekState(ctx, 0)
		if err != nil {
			return err
		}
		r.Retired = slices.Clone(r.Retired)
		if wanted, err := change(&r); err != nil || !wanted {
			return err
		}
		r.Format = recordFormat
		text, err := json.Marshal(r)
		if err != nil {
			return err
		}
		if _, err = k.swap(ctx, kekName, revision, text); err == nil || !errors.Is(err, store.ErrConflict) {
			if err != nil {
				return unavailable("", NoStore, err)
			}
			return nil
		}
	}
	return unavailable("", NoStore, errBusy)
}

// agree says why this server must not wrap: its keyset lacks the version that
// others wrap by. If it is the one that has a newer version, the others learn that.
func (k *Keeper) agree(ctx context.Context) error {
	v, ok := k.o.KEK.(versioned)
	if !ok {
		return nil // it is one for all servers
	}
	return k.changeKEK(ctx, func(r *kekRecord) (bool, error) {
		current, err := r.fits(v)
		if err != nil {
			return false, noKEK("", err)
		}
		changed := r.Current != current
		r.Current = current
		return changed, nil
	})
}

// fits returns the version that wraps here, or why the keyset here is not that of
// the record.
func (r kekRecord) fits(v versioned) (current string, err error) {
	have, err := v.Versions() // read anew, if the file was replaced
	if err != nil {
		return "", err
	}
	known := r.Current == ""
	for _, one := range have {
		known = known || one.Name == r.Current
		if one.Current {
			current = one.Name
		}
	}
	if !known || slices.Contains(r.Retired, current) {
		return "", fmt.Errorf("the servers of this store wrap by version %s of the key-encryption key, and the keyset here does not have it: copy the keyset file of the server that rotated it, or bring back one that was kept; if none is left anywhere, cryptctl kms serve --lost-kek %s goes on without it: %w",
			r.Current, r.Current, kek.ErrVersion)
	}
	return current, nil
}

// CheckKEK says why no key can be wrapped here: the keyset is not that of the
// store, or cannot be read. A store that is not there is an error, too.
func (k *Keeper) CheckKEK(ctx context.Context) error {
	problem, err := k.checkKEK(ctx, 0)
	if err == nil && problem != nil {
		err = noKEK("", problem)
	}
	return err
}

// checkKEK returns what is wrong with the keyset, or an error of the store.
func (k *Keeper) checkKEK(ctx context.Context, age time.Duration) (problem, err error) {
	v, ok := k.o.KEK.(versioned)
	if !ok {
		return nil, nil
	}
	r, _, err := k.kekState(ctx, age)
	if err != nil {
		return nil, err
	}
	_, problem = r.fits(v)
	return problem, nil
}

// LostKEK lets the store go on with the keyset here after version of the
// key-encryption key, which servers wrap by and the keyset does not have, was lost;
// "" stands for whatever version that is, as long as it wraps no node key. It
// returns how many node keys the version wraps: they open never again, and a node
// needs a new one to seal. It changes nothing if the keyset is that of the store.
func (k *Keeper) LostKEK(ctx context.Context, by Operator, version string) (lost int, err error) {
	v, ok := k.o.KEK.(versioned)
	switch {
	case !ok && version == "":
		return 0, nil // it is one for all servers
	case !ok:
		return 0, fmt.Errorf("%w: this key-encryption key is one for all servers, and keeps its versions itself", ErrRefused)
	}
	r, _, err := k.kekState(ctx, 0)
	if err != nil {
		return 0, err
	}
	_, problem := r.fits(v)
	switch {
	case problem == nil:
		return 0, nil
	case !errors.Is(problem, kek.ErrVersion):
		return 0, noKEK("", problem)
	case version != "" && version != r.Current:
		return 0, fmt.Errorf("%w: the version that the store needs is %s, not %s", ErrRefused, r.Current, version)
	}
	use, err := k.KEKUse(ctx)
	if err != nil {
		return 0, err
	}
	if lost = use[r.Current]; version == "" && lost > 0 {
		return lost, noKEK("", fmt.Errorf("%d node keys: %w", lost, problem))
	}
	event := by.Event("lost-kek")
	event.Before, event.Detail = "version="+r.Current, fmt.Sprintf("%d node keys", lost)
	if err := k.note(event); err != nil {
		return 0, unavailable("", NoAudit, err)
	}
	now, err := k.leaveKEK(ctx, r.Current)
	event.After = "version=" + now
	if event.Outcome = "done"; err != nil {
		event.Outcome, event.Detail = "failed", err.Error()
	}
	return lost, errors.Join(err, k.note(event))
}

// leaveKEK has the record name the version that wraps here in the place of one, and
// returns the new one. A keyset whose own was retired, a copy of long ago, gets
// another one first.
func (k *Keeper) leaveKEK(ctx context.Context, version string) (now string, err error) {
	err = k.changeKEK(ctx, func(r *kekRecord) (bool, error) {
		if now = r.Current; now != version {
			return false, nil // another server did it
		}
		current, err := k.current(ctx)
		if err == nil && slices.Contains(r.Retired, current) {
			current, err = k.o.KEK.(kek.Rotator).Rotate(ctx) // current found that it is one
		}
		if err == nil {
			now, r.Current = current, current
		}
		return err == nil, err
	})
	return now, err
}

// MissingKEK counts the node keys of each version of the key-encryption key that
// the keyset here does not have, or that was retired: they do not open.
func (k *Keeper) MissingKEK(ctx context.Context) (map[string]int, error) {
	v, ok := k.o.KEK.(versioned)
	if !ok {
		return nil, nil
	}
	have, err := v.Versions()
	if err != nil {
		return nil, noKEK("", err)
	}
	r, _, err := k.kekState(ctx, 0)
	if err != nil {
		return nil, err
	}
	use, err := k.KEKUse(ctx)
	for _, one := range have {
		if one.Enabled && !slices.Contains(r.Retired, one.Name) {
			delete(use, one.Name)
		}
	}
	return use, err
}

// setRetired says of a version that it is retired, or takes that back.
func (k *Keeper) setRetired(ctx context.Context, version string, retired bool) error {
	if _, ok := k.o.KEK.(versioned); !ok {
		return nil
	}
	return k.changeKEK(ctx, func(r *kekRecord) (bool, error) {
		at := slices.Index(r.Retired, version)
		switch {
		case retired == (at >= 0):
			return false, nil
		case retired:
			r.Retired = append(r.Retired, version)
		default:
			r.Retired = slices.Delete(r.Retired, at, at+1)
		}
		return true, nil
	})
}

// notRetired refuses a version that was retired, at this server or another one.
func (k *Keeper) notRetired(ctx context.Context, node blob.Node, version string, age time.Duration) error {
	if _, ok := k.o.KEK.(versioned); !ok {
		return nil
	}
	r, _, err := k.kekState(ctx, age)
	if err == nil && slices.Contains(r.Retired, version) {
		err = noKEK(node, fmt.Errorf("version %s was retired, and wraps the node's key: %w", version, kek.ErrVersion))
	}
	return err
}
