package node

import (
	"slices"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/volume"
)

// settle forgets former configurations that no header needs any more.
func (n *Node) settle() {
	if err := n.forget(); err != nil {
		n.notice("former configurations stay: %v", err)
	}
}

func (n *Node) forget() error {
	f := n.files()
	stored, err := f.config(n.read)
	if err != nil || stored == nil || !stored.text.Equal(n.config.text) || !stored.text.Equal(n.base().text) {
		return err // another one is staged, or to be gone back to: its volumes have these keys
	}
	known, err := f.identities()
	if err != nil {
		return err
	}
	kept := []*machine{n.config}
	for _, old := range n.former() {
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

// former are the configurations whose keys headers may still have. Who runs the node
// is told of those that cannot be read: they may have the only key of a volume.
func (n *Node) former() []*machine {
	all, unread := n.files().former(n.read)
	for _, err := range unread {
		n.notice("a former configuration cannot be read, and is kept: %v; a volume that only its keys open stays closed until it can", err)
	}
	return all
}

// needs reports whether a former configuration has keys that a header may have
// and no other one has. A volume that is recorded as none was wiped, or is plain.
func (n *Node) needs(old *machine, kept []*machine, known map[string]*volume.Identity) bool {
	return slices.ContainsFunc(old.Volumes, func(e config.Encryption) bool {
		if e.Volume == stateName || n.inStep[e.Volume] == n.config { // STATE has its candidates in META
			return false
		}
		if id, seen := known[e.Volume]; seen && id == nil {
			return false
		}
		return !slices.ContainsFunc(kept, func(m *machine) bool {
			return m.encryption(e.Volume) != nil && len(keyFields(e.Volume, old, m)) == 0
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
