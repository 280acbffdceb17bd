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
		have, err := v.Versions() // read anew, if the file was replaced
		if err != nil {
			return false, noKEK("", err)
		}
		current, known := "", r.Current == ""
		for _, one := range have {
			known = known || one.Name == r.Current
			if one.Current {
				current = one.Name
			}
		}
		if !known || slices.Contains(r.Retired, current) {
			return false, noKEK("", fmt.Errorf("the servers of this store wrap by version %s of the key-encryption key, and the keyset here has another: copy the keyset file of the server that rotated it: %w", r.Current, kek.ErrVersion))
		}
		changed := r.Current != current
		r.Current = current
		return changed, nil
	})
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
