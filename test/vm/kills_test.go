//go:build vm

package vm_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// kill is what a machine does when it is killed.
type kill struct {
	name   string
	within int // it is killed before one of so many operations; 0: at a random time
	config machineConfig
	mode   node.Mode // how it is applied
	reset  bool      // EPHEMERAL, before the power is cut
	boot   bool      // a boot is what is cut
	wiped  bool      // EPHEMERAL is wiped by it, now or on the next boot
}

func kills() []kill {
	c := cutConfigs()
	return []kill{
		{name: "format", within: 150, config: c[0], mode: node.Auto},
		{name: "rotation", within: 90, config: c[1], mode: node.NoReboot},
		{name: "trial", within: 40, config: c[2], mode: node.Try},
		{name: "boot into a staged rotation", within: 80, config: c[3], mode: node.Staged, boot: true},
		{name: "rotations, at any time", config: c[0], mode: node.NoReboot},
		{name: "rotations, at any time", config: c[1], mode: node.NoReboot},
		{name: "wipe", within: 30, config: c[4], mode: node.Staged, reset: true, wiped: true},
		{name: "boot that makes EPHEMERAL plain", within: 60, config: c[4], mode: node.Staged, reset: true, boot: true, wiped: true},
	}
}

// TestKills kills one node again and again, and each time loses what its disk had
// not flushed. The next boot must find all that was synced before.
func TestKills(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(2, 4))
	d := newNodeDisk(t, "data")
	r := machine.Record(t, d.Disk)
	all := kills()
	g := bootNode(t, d.Disk, node.Maintenance)
	for i, k := range all {
		at := len(r.Ops())
		g.dies(t, d, r, k, random)
		t.Logf("%s: killed after %d operations", k.name, len(r.Ops())-at)
		if err := r.Restart(func(machine.Op) bool { return i%3 == 0 || i%3 == 1 && random.IntN(2) == 0 }); err != nil {
			t.Fatal(err)
		}
		g = nodeGuest{boot(t, nodeConfig(t, d.Disk))}
		g.recovers(t, k, i == 0)
	}
	g.PowerOff()
	t.Logf("SUMMARY %d real kills", len(all))
}

// dies has a machine do something and kills it meanwhile.
func (g nodeGuest) dies(t *testing.T, d *nodeDisk, r *machine.Recording, k kill, random *rand.Rand) {
	t.Helper()
	g.do(t, "write", wire.File{Path: "/tmp/machine.yaml", Content: []byte(k.config.String())}, nil)
	cut := func() { r.CutAt(len(r.Ops()) + random.IntN(max(k.within, 1))) }
	run := func(argv ...string) { g.Run("", argv...) } // it may be killed under way
	if k.mode == node.Staged {
		g.configure(t, k.config, node.Staged)
	}
	if k.boot {
		if k.reset {
			g.reset(t, "EPHEMERAL")
		} else {
			g.PowerOff()
		}
		cut()
		g = nodeGuest{start(t, nodeConfig(t, d.Disk))}
		g.Until(`noded: the boot took`) // unless it is killed before
		g.Kill()
		return
	}
	if k.within == 0 {
		time.AfterFunc(time.Duration(random.IntN(2500))*time.Millisecond, g.Kill)
	} else {
		cut()
	}
	if k.reset {
		run("cryptctl", "reset", "--system-labels-to-wipe", "EPHEMERAL", "--yes")
	} else {
		run("cryptctl", "apply", "-f", "/tmp/machine.yaml", "--mode", string(k.mode))
	}
	g.Kill()
}

// recovers looks at a node after a kill, and gives it what the next one needs.
func (g nodeGuest) recovers(t *testing.T, k kill, first bool) {
	t.Helper()
	phase := g.Expect(`noded: (running|maintenance|failed): (.*)\n`)
	if first && phase[1] == string(node.Maintenance) {
		g.configure(t, k.config, node.Auto)
	}
	s := g.status(t)
	bad, waits := unsound(s, k.wiped)
	if s.Phase != node.Running || bad != "" {
		t.Fatalf("after a kill during %q the node is %s (%s), %s is not open: %+v", k.name, s.Phase, s.Reason, bad, s.Volumes)
	}
	if waits {
		return // the next boot finds the files
	}
	if !first {
		g.kept(t, dataFile)
	}
	if !first && !k.wiped {
		g.kept(t, varFile)
	}
	g.put(t, dataFile)
	g.put(t, varFile)
}
