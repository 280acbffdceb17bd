//go:build vm

package vm_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/cryptctl/cryptctl/node"
)

// TestManyVolumes opens eight user volumes beside STATE and EPHEMERAL in one boot.
func TestManyVolumes(t *testing.T) {
	t.Parallel()
	config := machineConfig{state: keySet{0: byNodeID}, ephemeral: keySet{0: byNodeID, 1: "ephemeral word"}, users: map[string]keySet{}}
	var users, names []string
	for i := range 8 {
		name := fmt.Sprintf("data%d", i)
		users, names = append(users, name), append(names, "u-"+name)
		config.users[name] = keySet{0: byNodeID, 1: name + " word"}
	}
	names = append(names, "STATE", "EPHEMERAL")
	d := newNodeDisk(t, users...)
	g := bootNode(t, d.Disk, node.Maintenance)
	g.configure(t, config, node.Auto)
	g.open(t, true, names...)
	for _, name := range users {
		g.put(t, "/var/mnt/"+name+"/file")
	}
	g.PowerOff()

	g = bootNode(t, d.Disk, node.Running)
	g.open(t, false, names...)
	derivations, err := strconv.Atoi(g.Expect(`noded: the boot took (\d+) key derivations\n`)[1])
	if err != nil || derivations > 2*len(names) {
		t.Errorf("%d key derivations for %d volumes with two keys at most (%v)", derivations, len(names), err)
	}
	t.Logf("SUMMARY %d volumes opened and their slots checked with %d key derivations", len(names), derivations)
	for _, name := range users {
		g.kept(t, "/var/mnt/"+name+"/file")
	}
	g.PowerOff()
	for _, name := range users {
		d.openWith(t, "u-"+name, map[int]string{0: nodeUUID + "u-" + name, 1: name + " word"})
	}
}
