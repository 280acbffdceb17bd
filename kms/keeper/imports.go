package keeper

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/secret"
)

// imports lists the reference blobs of a node.
func (k *Keeper) imports(ctx context.Context, id blob.Node) iter.Seq2[importItem, error] {
	return func(yield func(importItem, error) bool) {
		for item, err := range k.o.Store.List(ctx, importPrefix) {
			if err != nil {
				yield(importItem{}, unavailable(id, NoStore, err))
				return
			}
			i, err := parseImported(item.Value)
			if err != nil {
				err = unavailable(id, NoStore, fmt.Errorf("record %s: %w", item.Name, err))
			} else if i.Node != id || len(i.Blob) == 0 {
				continue
			}
			if !yield(importItem{item.Name, item.Revision, i}, err) {
				return
			}
		}
	}
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
		if err != nil || b.KeyVersion >= below {
			continue
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
