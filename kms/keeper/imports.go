package keeper

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// imports lists the reference blobs of a node.
func (k *Keeper) imports(ctx context.Context, id blob.Node) iter.Seq2[importItem, error] {
	return func(yield func(importItem, error) bool) {
		for item, err := range k.o.Store.List(ctx, importsOf(id)) {
			if err != nil {
				yield(importItem{}, unavailable(id, NoStore, err))
				return
			}
			name := importPrefix + strings.TrimPrefix(item.Name, importsOf(id))
			i, revision, err := k.imported(ctx, id, name, 0)
			if err == nil && (i == nil || i.Node != id || len(i.Blob) == 0) {
				continue // it was not stored, or another node was faster
			}
			if !yield(importItem{name, revision, i}, err) {
				return
			}
		}
	}
}

// importsOf begins the names of a node's reference blobs.
func importsOf(id blob.Node) string { return importsPrefix + string(id) + "/" }

// listImport makes the name by which a node's reference blob is found. It is there
// before the blob: what is listed and not there does no harm.
func (k *Keeper) listImport(ctx context.Context, id blob.Node, name string) error {
	_, err := k.swap(ctx, importsOf(id)+strings.TrimPrefix(name, importPrefix), 0, []byte("{}"))
	if err != nil && !errors.Is(err, store.ErrConflict) { // it is there
		return unavailable(id, NoStore, err)
	}
	return nil
}

type importItem struct {
	name     string
	revision uint64
	*imported
}

// resealImports seals a node's reference blobs of the versions below one under the
// newest one.
func (k *Keeper) resealImports(ctx context.Context, id blob.Node, below uint32) error {
	n, err := k.node(ctx, id, 0)
	if err != nil || n.rec == nil {
		return err
	}
	t := &task{node: id}
	for i, err := range k.imports(ctx, id) {
		if err != nil {
			return err
		}
		b, err := blob.Parse(i.Blob)
		if err != nil || b.KeyVersion >= below || !n.has(b.KeyVersion) {
			continue // the last: it opens never again, with or without this
		}
		var data *secret.Bytes
		if data, err = k.openWith(ctx, t, n, b); err == nil {
			i.Blob, err = k.sealWith(ctx, t, n, data)
			data.Wipe()
		}
		if err == nil {
			err = k.saveImport(ctx, i.name, i.revision, i.imported)
		}
		if err != nil && !errors.Is(err, store.ErrConflict) { // it was just sealed by someone else
			return err
		}
	}
	return nil
}

// destroyImports leaves of a node's reference blobs only whose they were.
func (k *Keeper) destroyImports(ctx context.Context, id blob.Node) error {
	for i, err := range k.imports(ctx, id) {
		if err != nil {
			return err
		}
		i.Blob = nil
		if err := k.saveImport(ctx, i.name, i.revision, i.imported); err != nil {
			return err
		}
	}
	return nil
}
