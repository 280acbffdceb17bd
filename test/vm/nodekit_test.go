//go:build vm

package vm_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// nodeUUID is what the firmware of all nodes says.
const nodeUUID = "6f7a8b9c-0d1e-4f2a-8b3c-4d5e6f7a8b9c"

// keySet is the keys of a volume by slot: passphrases, byNodeID, sealed, or those of
// a keyServer.
type keySet map[int]string

const (
	byNodeID = "\x00nodeID"
	byTPM    = "\x00tpm "
	byKMS    = "\x00kms "
)

// sealed is a key that the TPM seals, with these settings.
func sealed(settings string) string { return byTPM + settings }

func (k keySet) yaml(indent string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sprovider: luks2\n%skeys:\n", indent, indent)
	for _, slot := range slices.Sorted(maps.Keys(k)) {
		how := "nodeID: {}"
		if settings, is := strings.CutPrefix(k[slot], byTPM); is {
			how = fmt.Sprintf("tpm: {%s}", settings)
		} else if endpoint, is := strings.CutPrefix(k[slot], byKMS); is {
			how = fmt.Sprintf("kms: {endpoint: %q}", endpoint)
		} else if k[slot] != byNodeID {
			how = fmt.Sprintf("static: {passphrase: %q}", k[slot])
		}
		fmt.Fprintf(&b, "%s- {slot: %d, %s}\n", indent, slot, how)
	}
	return b.String()
}

// machineConfig is a machine configuration; volumes without keys are plain.
type machineConfig struct {
	state, ephemeral keySet
	users            map[string]keySet
	documents        bool // STATE and EPHEMERAL have documents of their own
}

func (c machineConfig) String() string {
	var b strings.Builder
	b.WriteString("version: v1alpha1\nmachine:\n  type: worker\n")
	if len(c.state)+len(c.ephemeral) > 0 && !c.documents {
		b.WriteString("  systemDiskEncryption:\n")
	}
	for _, v := range []struct {
		name string
		keys keySet
	}{{"state", c.state}, {"ephemeral", c.ephemeral}} {
		switch {
		case len(v.keys) == 0:
		case c.documents:
			fmt.Fprintf(&b, "---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: %s\nencryption:\n%s", strings.ToUpper(v.name), v.keys.yaml("  "))
		default:
			fmt.Fprintf(&b, "    %s:\n%s", v.name, v.keys.yaml("      "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.users)) {
		fmt.Fprintf(&b, "---\napiVersion: v1alpha1\nkind: UserVolumeConfig\nname: %s\n", name)
		if keys := c.users[name]; len(keys) > 0 {
			b.WriteString("encryption:\n" + keys.yaml("  "))
		}
	}
	return b.String()
}

// nodeGuest is a machine whose process 1 is a node daemon.
type nodeGuest struct{ *guest }

// nodeConfig is a node with a disk.
func nodeConfig(t *testing.T, d *machine.Disk) machine.Config {
	t.Helper()
	initramfs, err := image.noded()
	if err != nil {
		t.Fatal(err)
	}
	return machine.Config{
		Initramfs: initramfs, Disks: []*machine.Disk{d}, Args: []string{"-uuid", nodeUUID},
		Append: []string{"noded.run=/bin/guest", "noded.cost=light", "noded.try=5s"},
	}
}

// bootNode boots a node and waits for the end of its boot, which must be in that
// phase.
func bootNode(t *testing.T, d *machine.Disk, phase node.Phase) nodeGuest {
	t.Helper()
	return bootAs(t, nodeConfig(t, d), phase)
}

// bootAs is bootNode with a machine of one's own.
func bootAs(t *testing.T, config machine.Config, phase node.Phase) nodeGuest {
	t.Helper()
	g := nodeGuest{boot(t, config)}
	got := g.Expect(`noded: (running|maintenance|failed): (.*)\n`)
	if got[1] != string(phase) {
		t.Fatalf("the node is %s (%s) and not %s", got[1], got[2], phase)
	}
	t.Logf("node: %s: %s", got[1], got[2])
	return g
}

// status returns the node's status once nothing is under way.
func (g nodeGuest) status(t *testing.T) (s node.Status) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s = g.now(t)
		waiting := slices.ContainsFunc(s.Volumes, func(v node.VolumeStatus) bool {
			return v.Phase == node.VolumeOpen && v.Encrypted && len(v.Slots)+len(v.Errors) == 0 || len(v.Asking) > 0
		})
		if s.Phase != node.Booting && (!waiting || s.Phase != node.Running) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node does not come to rest: %+v", s)
		}
	}
}

// now returns the node's status as it is.
func (g nodeGuest) now(t *testing.T) (s node.Status) {
	t.Helper()
	decode(t, g.run(t, "cryptctl", "status", "--json"), &s)
	return s
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in what should be JSON: %s", err, text)
	}
}

// volumeOf returns what a status says of a volume.
func volumeOf(t *testing.T, s node.Status, name string) node.VolumeStatus {
	t.Helper()
	at := slices.IndexFunc(s.Volumes, func(v node.VolumeStatus) bool { return v.Name == name })
	if at < 0 {
		t.Fatalf("nothing is said of %s: %+v", name, s)
	}
	return s.Volumes[at]
}

// open fails unless the volumes are open, without errors, and formatted in this
// boot or not.
func (g nodeGuest) open(t *testing.T, formatted bool, names ...string) node.Status {
	t.Helper()
	s := g.status(t)
	for _, name := range names {
		v := volumeOf(t, s, name)
		if v.Phase != node.VolumeOpen || v.Formatted != formatted || len(v.Errors)+len(v.Pending) > 0 {
			t.Fatalf("%s is not as it should be (open, formatted %v): %+v", name, formatted, v)
		}
	}
	return s
}

// configure applies a configuration.
func (g nodeGuest) configure(t *testing.T, c machineConfig, mode node.Mode) (a node.Applied) {
	t.Helper()
	g.do(t, "write", wire.File{Path: "/tmp/machine.yaml", Content: []byte(c.String())}, nil)
	decode(t, g.run(t, "cryptctl", "apply", "-f", "/tmp/machine.yaml", "--mode", string(mode), "--json"), &a)
	return a
}

// reset wipes volumes and reboots, which ends the machine.
func (g nodeGuest) reset(t *testing.T, labels string) {
	t.Helper()
	ran, err := g.Run("", "cryptctl", "reset", "--system-labels-to-wipe", labels, "--reboot", "--yes")
	if err == nil && ran.Code != 0 {
		t.Fatalf("reset %s: exit %d\n%s%s", labels, ran.Code, ran.Out, ran.Err)
	}
	if reason := g.Off(); reason != "guest-reset" {
		t.Fatalf("the machine did not reboot: %q", reason)
	}
}

// put writes a file, and kept fails unless it is there as put has written it.
func (g *guest) put(t *testing.T, path string) {
	t.Helper()
	g.do(t, "write", wire.File{Path: path, Content: content(path)}, nil)
}

func (g *guest) kept(t *testing.T, path string) {
	t.Helper()
	var f wire.File
	if err := g.Call("read", wire.File{Path: path}, &f); err != nil {
		t.Errorf("what was written is gone: %v", err)
	} else if string(f.Content) != string(content(path)) {
		t.Errorf("%s has %d bytes, and not what was written", path, len(f.Content))
	}
}

// content is what put writes, more than a block of it.
func content(path string) []byte {
	name := filepath.Base(path)
	return []byte(strings.Repeat(name+" ", 5000))
}
