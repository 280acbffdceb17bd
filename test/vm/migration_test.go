//go:build vm

package vm_test

import (
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/node"
)

// TestMigration takes EPHEMERAL and STATE from plain to encrypted and back, as
// Talos' documentation describes it. Only what is wiped by name loses its data.
func TestMigration(t *testing.T) {
	t.Parallel()
	d := newNodeDisk(t, "data")
	plain := machineConfig{state: keySet{0: byNodeID}, users: map[string]keySet{"data": {0: "data word"}}}
	encrypted := plain
	encrypted.ephemeral = keySet{0: "ephemeral word"}
	const data, inVar, inState = "/var/mnt/data/file", "/var/file", "/system/state/other"

	g := bootNode(t, d.Disk, node.Maintenance)
	g.configure(t, plain, node.Auto)
	g.open(t, true, "STATE", "EPHEMERAL", "u-data")
	for _, path := range []string{data, inVar, inState} {
		g.put(t, path)
	}

	for _, to := range []machineConfig{encrypted, plain} {
		refused := g.refuses(t, to)
		if !strings.Contains(refused, "staged") || !strings.Contains(refused, "reset") {
			t.Errorf("the refusal does not say how to go on: %s", refused)
		}
		g.configure(t, to, node.Staged)
		g.reset(t, "EPHEMERAL")
		g = bootNode(t, d.Disk, node.Running)
		g.migrated(t, "EPHEMERAL", to.ephemeral != nil, inVar, "STATE", "u-data")
		for _, path := range []string{data, inState} {
			g.kept(t, path)
		}
		g.put(t, inVar)
	}

	open := plain
	open.state = nil
	for _, to := range []machineConfig{open, plain} {
		g.reset(t, "STATE")
		g = bootNode(t, d.Disk, node.Maintenance)
		g.configure(t, to, node.Auto)
		g.migrated(t, "STATE", to.state != nil, inState, "EPHEMERAL", "u-data")
		for _, path := range []string{data, inVar} {
			g.kept(t, path)
		}
	}
	g.PowerOff()
	g = bootNode(t, d.Disk, node.Running)
	g.open(t, false, "STATE", "EPHEMERAL", "u-data")
	g.PowerOff()
}

// migrated fails unless a volume was made anew, encrypted or not, without the file
// that was in it, and the others were not.
func (g nodeGuest) migrated(t *testing.T, label string, encrypted bool, file string, others ...string) {
	t.Helper()
	if v := volumeOf(t, g.open(t, true, label), label); v.Encrypted != encrypted {
		t.Errorf("%s after the migration: %+v", label, v)
	}
	g.open(t, false, others...)
	if g.exists(t, file) {
		t.Errorf("%s was wiped and has its data", label)
	}
}

// refuses returns why a configuration cannot take effect at once.
func (g nodeGuest) refuses(t *testing.T, c machineConfig) string {
	t.Helper()
	ran, err := g.Run(c.String(), "cryptctl", "apply", "-f", "-", "--mode", string(node.Auto))
	if err != nil || ran.Code == 0 {
		t.Fatalf("a change that needs a wipe takes effect at once: %+v, %v", ran, err)
	}
	return ran.Err
}
