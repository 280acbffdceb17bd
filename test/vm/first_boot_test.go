//go:build vm

package vm_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// TestFirstBoot brings a node up on a blank disk, and again.
func TestFirstBoot(t *testing.T) {
	t.Parallel()
	d := newNodeDisk(t)
	config := machineConfig{state: keySet{0: byNodeID, 1: "state word"}, ephemeral: keySet{0: "ephemeral word"}}
	files := []string{"/var/file", "/system/state/other"}

	blank := d.sum(t)
	first := bootNode(t, d.Disk, node.Maintenance)
	if d.sum(t) != blank {
		t.Error("a node in maintenance writes to the disk")
	}
	first.configure(t, config, node.Auto)
	was := first.open(t, true, "STATE", "EPHEMERAL")
	for _, path := range files {
		first.put(t, path)
	}
	first.PowerOff()
	d.openWith(t, "STATE", config.state)
	d.openWith(t, "EPHEMERAL", config.ephemeral)
	if value := d.tag(t, 9); !strings.Contains(value, `"KeyNodeID":{}`) || !strings.Contains(value, "state word") {
		t.Errorf("META does not say how STATE opens: %q", value)
	}

	second := bootNode(t, d.Disk, node.Running)
	is := second.open(t, false, "STATE", "EPHEMERAL")
	for i, v := range is.Volumes {
		if v.UUID == "" || v.UUID != was.Volumes[i].UUID {
			t.Errorf("%s was the volume %q and is %q", v.Name, was.Volumes[i].UUID, v.UUID)
		}
	}
	for _, path := range files {
		second.kept(t, path)
	}
	second.sameAsCryptsetup(t, "/var", "EPHEMERAL", "/dev/vda3", "ephemeral word")
	second.sameAsCryptsetup(t, "/system/state", "STATE", "/dev/vda2", "state word")
	second.PowerOff()
}

// sameAsCryptsetup compares what the kernel has of a volume with what cryptsetup
// loads for it.
func (g nodeGuest) sameAsCryptsetup(t *testing.T, dir, label, device, word string) {
	t.Helper()
	name := "luks2-" + label
	table := func() string {
		return g.run(t, "dmsetup", "table", "--showkeys", name) + "\n" +
			g.run(t, "dmsetup", "info", "--columns", "--noheadings", "--options", "uuid,readonly,suspended", name)
	}
	ours := table()
	g.do(t, "unmount", wire.Mount{Target: dir}, nil)
	g.run(t, "cryptsetup", "close", name)
	g.feed(t, word, "cryptsetup", "open", "--type", "luks2", "--key-file", "-", device, name)
	if diff := cmp.Diff(table(), ours); diff != "" {
		t.Errorf("%s: what cryptsetup loads (-) and what we load (+):\n%s", label, diff)
	}
	g.run(t, "cryptsetup", "close", name)
}
