//go:build vm

package vm_test

import (
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
)

// servedNode is a node in whose volumes slot 1 is a key server's, of each another
// one.
type servedNode struct {
	disk             *nodeDisk
	tpm              *machine.TPM
	state, ephemeral *keyServer
}

var servedVolumes = []string{"STATE", "EPHEMERAL"}

// config has a passphrase in slot 0 and the TPM's key in slot 2: its latch makes the
// node see to its slots before it is up.
func (n servedNode) config() machineConfig {
	weak := sealed("allowWeakPolicy: true, options: {pcrs: []}")
	return machineConfig{
		documents: true,
		state:     keySet{0: "state word", 1: n.state.key(), 2: weak},
		ephemeral: keySet{0: "ephemeral word", 1: n.ephemeral.key(), 2: weak},
	}
}

func (n servedNode) boot(t *testing.T, phase node.Phase) nodeGuest {
	t.Helper()
	c := nodeConfig(t, n.disk.Disk)
	c.TPM, c.Args, c.Append = n.tpm, append(c.Args, networkArgs()...), append(c.Append, networkWords()...)
	return bootAs(t, c, phase)
}

// slotSums tell whether the key servers' slots are as they were.
func (n servedNode) slotSums(t *testing.T) (sums []string) {
	t.Helper()
	for _, name := range servedVolumes {
		sums = append(sums, n.disk.slotSum(t, name, 1))
	}
	return sums
}

// TestKeyServer brings a node up with key servers that answer, cannot be reached,
// and refuse.
func TestKeyServer(t *testing.T) {
	t.Parallel()
	n := servedNode{newNodeDisk(t), machine.NewTPM(t), newKeyServer(t), newKeyServer(t)}
	n.state.operate("approve")
	n.ephemeral.operate("approve")
	g := n.boot(t, node.Maintenance)
	g.configure(t, n.config(), node.Auto)
	g.open(t, true, servedVolumes...)
	g.put(t, "/var/file")
	g.PowerOff()
	before := n.slotSums(t)

	n.opensAlone(t)
	dead := n.deadServers(t)
	alive := n.refusingServers(t)
	t.Logf("from the start of the node daemon until the node was up: %s with dead key servers, %s with others", dead, alive)
	// On a busy host both take longer. The shortest time limit of an answer is 10 s.
	if limit := min(max(3*time.Second, alive), 8*time.Second); dead > alive+limit {
		t.Errorf("dead key servers held the boot up: it took %s, and %s with others", dead, alive)
	}
	if !slices.Equal(before, n.slotSums(t)) {
		t.Error("the slots of the key servers' keys are others")
	}
}

// opensAlone boots with the key servers' keys alone.
func (n servedNode) opensAlone(t *testing.T) {
	t.Helper()
	n.disk.withoutSlot(t, 0, servedVolumes...)
	n.disk.withoutSlot(t, 2, servedVolumes...)
	g := n.boot(t, node.Running)
	s := g.open(t, false, servedVolumes...)
	for _, name := range servedVolumes {
		v := volumeOf(t, s, name)
		if v.Slot != 1 {
			t.Errorf("%s was opened by slot %d", name, v.Slot)
		}
		became(t, v, 0, keys.Added, "not there")
		became(t, v, 1, keys.Kept, "opens")
		became(t, v, 2, keys.Added, "not there")
	}
	g.kept(t, "/var/file")
	g.PowerOff()
}

// deadServers boots while nobody listens where one key server was, and the other
// one takes calls and says nothing. Then both are back. It returns how long the boot
// took.
func (n servedNode) deadServers(t *testing.T) time.Duration {
	t.Helper()
	n.state.way.refuse()
	n.ephemeral.way.silence()
	g := n.boot(t, node.Running)
	s := g.now(t)
	if s.Phase != node.Running || !s.Latched {
		t.Errorf("the node is %s, latched %v", s.Phase, s.Latched)
	}
	for _, name := range servedVolumes {
		v := volumeOf(t, s, name)
		if v.Phase != node.VolumeOpen || v.Slot == 1 || !slices.Equal(v.Asking, []int{1}) || len(v.Errors) > 0 {
			t.Errorf("%s: %+v", name, v)
		}
		became(t, v, 0, keys.Kept, "opens")
		became(t, v, 1, keys.WasBlocked, "has not answered yet")
		became(t, v, 2, keys.Kept, "opens")
	}
	g.kept(t, "/var/file")
	n.state.way.lead(n.state.address("nodes"))
	n.ephemeral.way.lead(n.ephemeral.address("nodes"))
	s = g.open(t, false, servedVolumes...)
	for _, name := range servedVolumes {
		for slot := range 3 {
			became(t, volumeOf(t, s, name), slot, keys.Kept, "opens")
		}
	}
	g.PowerOff()
	return g.untilRunning(t)
}

// refusingServers boots after one key server has revoked the node, and while the
// other one, in which it is frozen, answers random bytes as the reference server
// does. It returns how long the boot took.
func (n servedNode) refusingServers(t *testing.T) time.Duration {
	t.Helper()
	n.state.operate("revoke")
	n.ephemeral.operate("freeze")
	n.ephemeral.stop()
	n.ephemeral.start("--oracle-hiding")
	g := n.boot(t, node.Running)
	s := g.status(t)
	for name, reason := range map[string]string{"STATE": "denied", "EPHEMERAL": "does not open the slot, which stays"} {
		v := volumeOf(t, s, name)
		if v.Phase != node.VolumeOpen || len(v.Errors) != 1 {
			t.Errorf("%s: %+v", name, v)
		}
		became(t, v, 0, keys.Kept, "opens")
		became(t, v, 1, keys.WasBlocked, reason)
		became(t, v, 2, keys.Kept, "opens")
	}
	g.kept(t, "/var/file")
	g.PowerOff()
	for _, s := range []*keyServer{n.state, n.ephemeral} {
		s.stop()
	}
	n.state.audited(`unseal.*revoked`)
	n.ephemeral.audited(`unseal.*frozen`)
	return g.untilRunning(t)
}

// untilRunning is how long the node took to come up, by its own clock.
func (g nodeGuest) untilRunning(t *testing.T) time.Duration {
	t.Helper()
	var at []time.Time
	for _, phase := range []node.Phase{node.Booting, node.Running} {
		line := regexp.MustCompile(`time=(\S+) level=INFO msg=node phase=` + string(phase) + ` `).FindStringSubmatch(g.Console.String())
		if line == nil {
			t.Fatalf("the node does not say when it is %s", phase)
		}
		stamp, err := time.Parse(time.RFC3339Nano, line[1])
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, stamp)
	}
	return at[1].Sub(at[0])
}
