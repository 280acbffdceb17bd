//go:build vm

package vm_test

import (
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/node"
)

// TestRotation changes the keys of a node: in the steps that the guides of Talos
// ask for, over boots, and in one command while it runs.
func TestRotation(t *testing.T) {
	t.Parallel()
	d := newNodeDisk(t)
	keys := func(state, ephemeral keySet) machineConfig { return machineConfig{state: state, ephemeral: ephemeral} }
	one := keys(keySet{0: "state one"}, keySet{0: "ephemeral one"})
	both := keys(keySet{0: "state one", 1: "state two"}, keySet{0: "ephemeral one", 1: "ephemeral two"})
	two := keys(keySet{1: "state two"}, keySet{1: "ephemeral two"})
	three := keys(keySet{0: "state three", 1: byNodeID}, keySet{1: "ephemeral three"})

	g := bootNode(t, d.Disk, node.Maintenance)
	g.configure(t, one, node.Auto)
	g.open(t, true, "STATE", "EPHEMERAL")
	g.put(t, "/var/file")
	for _, step := range []struct {
		from, to machineConfig
		former   []string
	}{
		{one, both, nil},
		{both, two, []string{" one"}},
	} {
		g.configure(t, step.to, node.Staged)
		g.PowerOff()
		d.matches(t, step.from) // staged: not yet
		g = bootNode(t, d.Disk, node.Running)
		g.open(t, false, "STATE", "EPHEMERAL")
		g.kept(t, "/var/file")
		d.matches(t, step.to, step.former...)
	}

	a := g.configure(t, three, node.NoReboot)
	if a.Reboot || len(a.Changes) != 2 {
		t.Errorf("a change of keys is not what it is taken for: %+v", a)
	}
	g.open(t, false, "STATE", "EPHEMERAL")
	g.kept(t, "/var/file")
	d.matches(t, three, " one", " two")
	g.Kill() // what was answered for is on the disk
	g = bootNode(t, d.Disk, node.Running)
	g.open(t, false, "STATE", "EPHEMERAL")
	g.kept(t, "/var/file")
	g.PowerOff()
}

// matches fails unless META, STATE and EPHEMERAL have exactly the keys of a
// configuration, and none that ends so. The machine may run: headers are written
// through.
func (d *nodeDisk) matches(t *testing.T, c machineConfig, former ...string) {
	t.Helper()
	for label, keys := range map[string]keySet{"STATE": c.state, "EPHEMERAL": c.ephemeral} {
		var gone []string
		for _, end := range former {
			gone = append(gone, strings.ToLower(label)+end)
		}
		d.openWith(t, label, keys, gone...)
	}
	tag9, candidates := d.tag(t, 9), d.tag(t, 193)
	for _, word := range c.state {
		if word != byNodeID && !strings.Contains(tag9, word) {
			t.Errorf("META does not know a key that STATE has: %s", tag9)
		}
	}
	for _, end := range former {
		if strings.Contains(tag9+candidates, "state"+end) {
			t.Errorf("META still has a key that STATE has no more: %s, candidates %s", tag9, candidates)
		}
	}
}
