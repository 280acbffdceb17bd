package keeper

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// Unseal returns the data of a blob. The caller gives it to [Keeper.Release], or
// wipes it. A blob of the reference server, if those are imported, is sealed for
// the node that brings it first, and from then on opens for that node only and
// without the reference server's key.
func (k *Keeper) Unseal(ctx context.Context, req Request, raw []byte) (*secret.Bytes, error) {
	t := k.begin("unseal", req)
	data, err := k.unseal(ctx, t, raw)
	if err := k.end(ctx, t, err); err != nil {
		k.answers.give(data)
		return nil, err
	}
	return data, nil
}

// Release wipes data that Unseal returned, and keeps its locked memory for the
// next one: mapping and unmapping it costs more than all the rest of an Unseal.
// Nothing may use data afterwards.
func (k *Keeper) Release(data *secret.Bytes) { k.answers.give(data) }

func (k *Keeper) unseal(ctx context.Context, t *task, raw []byte) (*secret.Bytes, error) {
	if err := t.parse(); err != nil {
		return nil, err
	}
	b, err := blob.Parse(raw)
	if err != nil && len(raw) == blob.ReferenceSize {
		return k.unsealReference(ctx, t, raw)
	}
	if err != nil {
		return nil, malformed(t.node, err)
	}
	n, err := k.admit(ctx, t, policy.Unseal, b.KeyVersion)
	if err != nil {
		return nil, err
	}
	return k.openWith(ctx, t, n, b)
}

// openWith opens a blob with the version of the node's key that it names.
func (k *Keeper) openWith(ctx context.Context, t *task, n *known, b blob.Blob) (data *secret.Bytes, err error) {
	t.event.KeyVersion = b.KeyVersion
	data = k.answers.take(b.Size())
	err = k.withKey(ctx, n, b.KeyVersion, func(key *secret.Bytes) error {
		return b.OpenInto(data, key, t.node)
	})
	if err == nil {
		return data, nil
	}
	k.answers.give(data)
	if errors.Is(err, blob.ErrNotAuthentic) {
		return nil, denied(t.node, NotAuthentic, err)
	}
	return nil, err
}

// unsealReference opens a blob of the reference server: with the node's key if it
// was imported, or by importing it.
func (k *Keeper) unsealReference(ctx context.Context, t *task, raw []byte) (*secret.Bytes, error) {
	t.event.Op = "unseal-reference"
	sum := sha256.Sum256(raw)
	name := importPrefix + hex.EncodeToString(sum[:])
	for age := readAge; t.tries < attempts; age = 0 {
		t.tries++
		i, revision, err := k.imported(ctx, t.node, name, age)
		if err != nil {
			return nil, err
		}
		data, err := k.reference(ctx, t, raw, i, name, revision)
		if !errors.Is(err, store.ErrConflict) {
			return data, err
		}
	}
	return nil, unavailable(t.node, NoStore, errBusy)
}

// imported returns what is stored of a reference blob, nil if nothing is.
func (k *Keeper) imported(ctx context.Context, node blob.Node, name string, age time.Duration) (*imported, uint64, error) {
	e, err := k.get(ctx, name, age)
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, unavailable(node, NoStore, err)
	}
	i, err := parseImported(e.Value)
	if err != nil {
		return nil, 0, unavailable(node, NoStore, fmt.Errorf("record %s: %w", name, err))
	}
	return i, e.Revision, nil
}

func (k *Keeper) reference(ctx context.Context, t *task, raw []byte, i *imported, name string, revision uint64) (*secret.Bytes, error) {
	if i == nil {
		return k.importBlob(ctx, t, raw, name, revision)
	}
	var b blob.Blob
	if i.Node == t.node && len(i.Blob) > 0 {
		var err error
		if b, err = blob.Parse(i.Blob); err != nil {
			return nil, unavailable(t.node, NoStore, fmt.Errorf("record %s: %w", name, err))
		}
	}
	n, err := k.admit(ctx, t, policy.Unseal, b.KeyVersion)
	e, _ := errors.AsType[*Error](err)
	switch {
	case e != nil && e.Reason == KeyRetired && b.KeyVersion > 0:
		return k.sealedMeanwhile(ctx, t, raw, name, revision, err)
	case err != nil:
		return nil, err
	case i.Node != t.node:
		return nil, denied(t.node, Imported, nil)
	case len(i.Blob) == 0:
		return nil, denied(t.node, KeyRetired, nil)
	}
	return k.openWith(ctx, t, n, b)
}

// sealedMeanwhile handles an imported blob whose key version is gone: what was
// read of it may be old; or the version was retired between its being sealed and
// being stored, then it is imported once more.
func (k *Keeper) sealedMeanwhile(ctx context.Context, t *task, raw []byte, name string, revision uint64, retired error) (*secret.Bytes, error) {
	i, now, err := k.imported(ctx, t.node, name, 0)
	switch {
	case err != nil:
		return nil, err
	case now != revision:
		return nil, store.ErrConflict // read it again
	case k.o.Import == nil:
		return nil, retired
	}
	n, err := k.node(ctx, t.node, 0)
	if err != nil {
		return nil, err
	}
	b, err := blob.Parse(i.Blob)
	if err != nil || n.rec == nil || b.KeyVersion < n.rec.Below {
		return nil, retired // not by a rotation: the node was forgotten
	}
	return k.importBlob(ctx, t, raw, name, revision)
}

// importBlob opens a reference blob with its own key and stores its data, sealed
// for the node, before it answers.
func (k *Keeper) importBlob(ctx context.Context, t *task, raw []byte, name string, revision uint64) (*secret.Bytes, error) {
	if k.o.Import == nil {
		return nil, &Error{Code: Malformed, Node: t.node, Reason: ImportOff, Err: errors.New("a blob of the reference server; give its key file to import it")}
	}
	t.event.Op = "import"
	op := policy.Import
	data, notOpen := k.o.Import.Open(raw)
	if notOpen != nil {
		op = policy.Unseal // what does not open registers no one; the policy is asked first all the same
	}
	n, err := k.admit(ctx, t, op, 0)
	if e, _ := errors.AsType[*Error](err); notOpen != nil && (err == nil || e != nil && e.Reason == KeyRetired) {
		err = denied(t.node, NotAuthentic, notOpen)
	}
	var sealed []byte
	if err == nil {
		sealed, err = k.sealWith(ctx, t, n, data)
	}
	if err == nil {
		err = k.listImport(ctx, t.node, name)
	}
	if err == nil {
		err = k.saveImport(ctx, name, revision, &imported{Node: t.node, Blob: sealed})
	}
	if err == nil { // it may have been forgotten before there was a blob to destroy
		err = k.decideAgain(ctx, t, k.o.Now())
	}
	if err != nil {
		data.Wipe()
		if errors.Is(err, store.ErrConflict) {
			k.giveBack(t)
		}
		return nil, err
	}
	return data, nil
}

// saveImport stores i, or fails with ErrConflict.
func (k *Keeper) saveImport(ctx context.Context, name string, revision uint64, i *imported) error {
	i.Format, i.Made = recordFormat, k.o.Now().UTC()
	text, err := json.Marshal(i)
	if err != nil {
		return err
	}
	_, err = k.swap(ctx, name, revision, text)
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return unavailable(i.Node, NoStore, err)
	}
	return err
}

func errDataSize(n int) error {
	return fmt.Errorf("%d bytes of data; 1 to %d can be sealed", n, blob.MaxData)
}
