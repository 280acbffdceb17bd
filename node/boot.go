package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/volume"
)

// Boot brings the node up as far as it goes: to Running, or to Maintenance when
// it has no configuration yet. Its error says why STATE did not open; what is
// wrong with other volumes is in the status. On a running node it tries again
// what failed; a staged configuration waits for the next start.
func (n *Node) Boot(ctx context.Context) error {
	defer n.begin()()
	if n.trial != nil {
		return fmt.Errorf("%w: a configuration is on trial", ErrPhase)
	}
	if n.config != nil {
		return n.again(ctx)
	}
	err := n.boot(ctx)
	if err != nil {
		n.phase(Failed, err.Error())
	}
	return err
}

// again opens what is not open, and gives every header the keys of the
// configuration in force.
func (n *Node) again(ctx context.Context) error {
	notes, err := n.readNotes()
	if err != nil {
		return err
	}
	if err := n.wipe(ctx, notes); err != nil {
		return err
	}
	return n.activate(ctx, n.config, false)
}

func (n *Node) boot(ctx context.Context) error {
	n.phase(Booting, "")
	device, err := n.opts.System.Find(metaName)
	if err != nil {
		return err
	}
	n.meta = device
	notes, err := n.readNotes()
	if err != nil {
		return err
	}
	for _, damage := range notes.damage {
		n.notice("META: %s; meta repair mends it", damage)
	}
	if n.uuid = n.opts.UUID; notes.uuid != "" {
		n.uuid = notes.uuid
	}
	if slices.Contains(notes.wiping, stateName) {
		if err := n.wipe(ctx, notes); err != nil {
			return err
		}
	}
	if n.state == nil {
		if err := n.openState(ctx, notes); err != nil {
			return n.noState(ctx, err)
		}
	}
	// Only now: that a volume was wiped has to be noted in STATE.
	if err := n.wipe(ctx, notes); err != nil {
		return err
	}
	stored, err := n.files().config(n.read)
	switch {
	case err != nil:
		return fmt.Errorf("the stored machine configuration: %w; apply another one", err)
	case stored == nil && n.opts.Config == nil:
		n.phase(Maintenance, "STATE is open and holds no machine configuration: apply one")
		return nil
	case stored == nil:
		return n.install(ctx, n.opts.Config)
	}
	n.follow(ctx, stored)
	return nil
}

// noState is for a STATE that did not open: an empty one means a node without a
// configuration.
func (n *Node) noState(ctx context.Context, err error) error {
	if n.blank = errors.Is(err, volume.ErrEmpty); !n.blank {
		n.failed(stateName, err)
		return err
	}
	n.view.volume(stateName, func(s *VolumeStatus) { s.Phase = VolumeWiped })
	if n.opts.Config != nil {
		return n.install(ctx, n.opts.Config)
	}
	n.phase(Maintenance, "STATE is empty: apply a machine configuration")
	return nil
}

// follow does what the configuration in force says.
func (n *Node) follow(ctx context.Context, m *machine) {
	n.config = m
	n.openOthers(ctx, m)
	n.phase(Running, "")
	n.syncState(ctx) // now: a key server that does not answer keeps no volume waiting
	n.syncOthers(ctx)
	n.settle()
}

func (n *Node) files() files { return files{n.mountPoint(stateName), n.before} }

// failed shows why a volume did not open.
func (n *Node) failed(name string, err error) {
	phase := VolumeFailed
	switch {
	case errors.Is(err, volume.ErrMissing):
		phase = VolumeMissing
	case errors.Is(err, volume.ErrContent), errors.Is(err, volume.ErrStranger), errors.Is(err, volume.ErrAmbiguous), isRefusal(err):
		phase = VolumeRefused
	}
	n.log.Error("volume", "name", name, "error", err)
	n.view.volume(name, func(s *VolumeStatus) { s.Phase, s.Errors = phase, []string{err.Error()} })
}

func isRefusal(err error) bool {
	var r *luks.Refusal
	return errors.As(err, &r)
}

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
	former := n.files().former(n.read)
	opened := map[string]*volume.Volume{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range m.names() {
		switch {
		case n.volumes[name] != nil:
			continue
		case slices.Contains(notes.wiping, name):
			n.failed(name, errors.New("its wipe is not finished: it ends with the next boot"))
			continue
		case err != nil && !slices.Contains(n.opts.Accept, name):
			n.failed(name, err)
			continue
		}
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
	enc := m.encryption(name)
	spec := volume.Spec{
		Name: name, Filesystem: m.filesystem(name), Known: known, MayFormat: enc != nil,
		Encryption: encryptionOf(n.machine(), enc, encryptions(former, name)...),
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

// encryptions returns how each configuration encrypts a volume.
func encryptions(all []*machine, name string) (out []*config.Encryption) {
	for _, m := range all {
		out = append(out, m.encryption(name))
	}
	return out
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
func (n *Node) syncOthers(ctx context.Context) {
	for _, name := range mountOrder(n.volumes, false) {
		v := n.volumes[name]
		if v.Spec.Encryption == nil || v.Locked == nil && v.Reconciled() {
			continue
		}
		if err := n.before("slots of " + name); err != nil {
			return
		}
		report, err := v.Reconcile(ctx)
		n.reconciled(name, report, err)
	}
}

// settle forgets former configurations that no header needs any more.
func (n *Node) settle() {
	if err := n.forget(); err != nil {
		n.notice("former configurations stay: %v", err)
	}
}

func (n *Node) forget() error {
	f := n.files()
	stored, err := f.config(n.read)
	if err != nil || stored == nil || !stored.text.Equal(n.config.text) {
		return err // another one is staged: its volumes have these keys
	}
	known, err := f.identities()
	if err != nil {
		return err
	}
	kept := []*machine{n.config}
	for _, old := range f.former(n.read) {
		if n.needs(old, kept, known) {
			kept = append(kept, old)
			continue
		}
		if err := f.dropFormer(old); err != nil {
			return err
		}
	}
	return nil
}

// needs reports whether a former configuration has keys that a header may have
// and no other one has. A volume that is not recorded was wiped.
func (n *Node) needs(old *machine, kept []*machine, known map[string]*volume.Identity) bool {
	return slices.ContainsFunc(old.Volumes, func(e config.Encryption) bool {
		if n.inStep[e.Volume] == n.config || known[e.Volume] == nil { // STATE has its candidates in META
			return false
		}
		return !slices.ContainsFunc(kept, func(m *machine) bool {
			has := m.encryption(e.Volume)
			return has != nil && sameKeyList(has, &e)
		})
	})
}

// needSalt reads the salt when there is one, and makes it when a key is locked to
// STATE. Former keys may need it, too.
func (n *Node) needSalt(m *machine) (err error) {
	if n.salt != nil {
		return nil
	}
	locked := slices.ContainsFunc(m.Volumes, func(e config.Encryption) bool {
		return slices.ContainsFunc(e.Keys, func(k config.Key) bool { return k.LockToState })
	})
	n.salt, err = n.files().salt(locked)
	return err
}
