package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/kms/store"
)

// op is one Swap.
type op struct {
	name  string
	old   uint64
	value []byte

	revision uint64
	err      error // of this op alone
}

// group is the ops that share one transaction.
type group struct {
	ops  []*op
	done chan struct{}
	err  error // of all; set before done is closed
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// Swap replaces a value and returns when it is synced.
func (d *DB) Swap(ctx context.Context, name string, old uint64, value []byte) (uint64, error) {
	if err := errors.Join(store.CheckName(name), store.CheckValue(value), ctx.Err()); err != nil {
		return 0, err
	}
	o := &op{name: name, old: old, value: value}
	d.mu.Lock()
	g := d.next
	g.ops = append(g.ops, o)
	d.mu.Unlock()
	// Not given up when ctx ends: someone has to lead the group.
	select {
	case <-g.done:
	case d.turn <- struct{}{}:
		d.lead(g)
		<-d.turn
	}
	if g.err != nil {
		return 0, fmt.Errorf("%s: %w: %w", name, store.ErrUnavailable, g.err)
	}
	return o.revision, o.err
}

// lead commits g, unless the one who had the turn before did.
func (d *DB) lead(g *group) {
	d.mu.Lock()
	if d.next != g {
		d.mu.Unlock()
		return
	}
	d.next = newGroup()
	d.mu.Unlock()

	d.swap.RLock()
	g.err = d.write(g.ops)
	d.generation.Add(1)
	d.swap.RUnlock()
	close(g.done)
}

// write commits ops. After an error of the disk the file is as it was before; if
// that is not certain it is not used any more: a sync that failed once succeeds the
// next time, without what the kernel has thrown away.
func (d *DB) write(ops []*op) error {
	if err := d.usable(); err != nil {
		return err
	}
	var newest uint64
	var before error // it failed before anything was written
	err := d.commit(d.db, func(tx *bolt.Tx) error {
		before = apply(tx, ops)
		newest = tx.Bucket(records).Sequence()
		return before
	})
	if err == nil {
		err = durable.Check(d.lock)
	}
	switch {
	case errors.Is(before, errNothing):
		return nil
	case err == nil:
		d.durable.Store(newest)
	case before == nil && !harmless(err):
		d.unusable.CompareAndSwap(nil, &err)
		return d.usable()
	}
	return err
}

// harmless reports whether an error says that there was no room for a page. That is
// found before the commit's last page, which makes the others count, is written.
func harmless(err error) bool {
	p, ok := errors.AsType[*fs.PathError](err)
	return ok && p.Op == "write" && (errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EFBIG))
}

var errNothing = errors.New("nothing to write")

// apply does the ops in order. One that conflicts does not hinder the others.
func apply(tx *bolt.Tx, ops []*op) error {
	b, written := tx.Bucket(records), false
	for _, o := range ops {
		var now uint64
		if raw := b.Get([]byte(o.name)); len(raw) >= 8 {
			now = binary.BigEndian.Uint64(raw)
		}
		if now != o.old {
			o.err = fmt.Errorf("%s: %w", o.name, store.ErrConflict)
			continue
		}
		revision, err := b.NextSequence()
		if err != nil {
			return err
		}
		raw := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(o.value)), revision)
		if err := b.Put([]byte(o.name), append(raw, o.value...)); err != nil {
			return err
		}
		o.revision, written = revision, true
	}
	if !written {
		return errNothing // rolled back: no sync for nothing
	}
	return nil
}
