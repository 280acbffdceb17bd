package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/volume"
)

// openOthers opens all volumes but STATE at once, and mounts them one after the
// other. What fails is in the status.
func (n *Node) openOthers(ctx context.Context, m *machine) {
	known, err := n.files().identities()
	if err != nil {
		n.notice("which volume is which is not known, so that a stranger could be mounted: %v", err)
	}
	notes, noteErr := n.readNotes()
	if noteErr != nil {
		n.notice("which volumes are being wiped is not known: %v", noteErr)
		return // one of them could be formatted, used, and wiped
	}
	if err := n.needSalt(m); err != nil {
		n.notice("the salt of keys that are locked to STATE: %v", err)
	}
	former := n.former()
	opened := map[string]*volume.Volume{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range m.names() {
		switch {
		case n.volumes[name] != nil:
		case slices.Contains(notes.wiping, name):
			n.failed(name, errors.New("its wipe is not finished: it ends with the next boot"))
		case err != nil && !slices.Contains(n.opts.Accept, name):
			n.failed(name, err)
		default:
			wg.Go(func() {
				v, err := n.openOther(ctx, m, name, known[name], former)
				if err != nil {
					n.failed(name, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				opened[name] = v
			})
		}
	}
	wg.Wait()
	for _, name := range mountOrder(opened, false) {
		if err := n.take(ctx, opened[name]); err != nil {
			n.failed(name, errors.Join(err, opened[name].Close()))
		}
	}
}

// openOther opens one volume. Making a plain file system is noted in META, since
// a cut would leave what is neither empty nor a file system.
func (n *Node) openOther(ctx context.Context, m *machine, name string, known *volume.Identity, former []*machine) (*volume.Volume, error) {
	device, err := n.opts.System.Find(name)
	if err != nil {
		return nil, err
	}
	if slices.Contains(n.opts.Accept, name) {
		known = nil
	}
	spec := volume.Spec{
		Name: name, Filesystem: m.filesystem(name), Known: known, MayFormat: m.encryption(name) != nil,
		Encryption: n.encryptionOf(m, name, former),
	}
	v, err := n.opener().Open(ctx, device, spec)
	if err == nil || !errors.Is(err, volume.ErrEmpty) {
		return v, err
	}
	spec.MayFormat = true
	return n.openPlainNew(ctx, device, spec)
}

// openPlainNew makes the file system of a plain volume.
func (n *Node) openPlainNew(ctx context.Context, device string, spec volume.Spec) (*volume.Volume, error) {
	if err := n.noteWipe(spec.Name, true); err != nil {
		return nil, err
	}
	v, err := n.opener().Open(ctx, device, spec)
	if errors.Is(err, volume.ErrHalfMade) {
		return nil, err
	}
	return v, errors.Join(err, n.noteWipe(spec.Name, false))
}

// encryptionOf is how a configuration has a volume other than STATE encrypted. Its
// keys and those of former configurations trust the authorities of their own.
func (n *Node) encryptionOf(m *machine, name string, former []*machine) *volume.Encryption {
	trusting := func(m *machine) provide.Machine {
		out := n.machine()
		out.TrustedRoots = m.TrustedRoots
		return out
	}
	e := encryptionOf(trusting(m), m.encryption(name))
	for _, f := range former {
		addFormer(e, trusting(f), f.encryption(name))
	}
	return e
}

// take mounts an open volume and notes which one it is.
func (n *Node) take(ctx context.Context, v *volume.Volume) error {
	name := v.Spec.Name
	dir := n.mountPoint(name)
	if strings.HasPrefix(dir, n.mountPoint(ephemeralName)+"/") && n.volumes[ephemeralName] == nil {
		return fmt.Errorf("volume %s waits for %s: mounted before it, it would be hidden", name, ephemeralName)
	}
	if dir != "" || v.Filesystem == volume.Swap {
		if err := v.Mount(ctx, dir); err != nil {
			return err
		}
	}
	if v.Locked == nil {
		if err := n.files().record(name, v.Identity); err != nil {
			return fmt.Errorf("note which volume %s is: %w", name, err)
		}
	}
	n.volumes[name] = v
	n.opened(v)
	return nil
}

// syncOthers brings the slots of all volumes in line that were just opened.
func (n *Node) syncOthers(ctx context.Context, sync reconciler) {
	for _, name := range mountOrder(n.volumes, false) {
		v := n.volumes[name]
		if v.Spec.Encryption == nil || v.Locked == nil && v.Reconciled() {
			continue
		}
		if err := n.before("slots of " + name); err != nil {
			return
		}
		report, err := sync(v, ctx)
		n.reconciled(name, report, err)
	}
}
