//go:build vm

package vm_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// formerDir is where a node has the configurations whose keys headers may have.
const formerDir = "/system/state/cryptctl/former"

// modesNode is a node whose configurations are brought in all modes, and whose logs
// go to the host.
type modesNode struct {
	disk *nodeDisk
	logs *nodeLogs
}

// config is a configuration whose keys end in a word, with fields of the encryption
// of EPHEMERAL beside them.
func (n modesNode) config(word string, fields ...string) string {
	c := n.keys(word)
	text := c.String()
	at := strings.LastIndex(text, "  keys:\n") // EPHEMERAL's is the last document
	for _, f := range fields {
		text = text[:at] + "  " + f + "\n" + text[at:]
	}
	return n.logs.configured(text)
}

func (n modesNode) keys(word string) machineConfig {
	return machineConfig{
		documents: true,
		state:     keySet{0: "state " + word, 1: byNodeID},
		ephemeral: keySet{0: "ephemeral " + word},
	}
}

func (n modesNode) boot(t *testing.T, phase node.Phase) nodeGuest {
	t.Helper()
	c := nodeConfig(t, n.disk.Disk)
	c.Args, c.Append = append(c.Args, networkArgs()...), slices.Concat(c.Append, networkWords(), []string{"noded.try=8s"})
	return bootAs(t, c, phase)
}

// TestModes brings configurations to a running node in modes no-reboot, staged and
// try, keeps a trial and cuts the power in another, and follows the node's logs
// meanwhile.
func TestModes(t *testing.T) {
	t.Parallel()
	n := modesNode{newNodeDisk(t), newNodeLogs(t)}
	g := n.boot(t, node.Maintenance)
	g.bring(t, n.config("one"), node.Auto)
	g.open(t, true, servedVolumes...)
	g.put(t, "/var/file")
	n.logs.arrive(t)
	n.refused(t, g)
	n.atOnce(t, g)
	n.takenBack(t, g)
	n.confirmed(t, g)
	n.staged(t, g)

	g = n.bootWithoutLogs(t)
	dead, waited := g.untilRunning(t), g.waitedFor(nowhere)
	n.logs.abandon()
	if a := g.bring(t, n.config("three"), node.NoReboot); len(a.Changes) > 0 {
		t.Errorf("to send logs elsewhere is a change of volumes: %+v", a.Changes)
	}
	n.cutOnTrial(t, g)

	g = n.boot(t, node.Running)
	n.inForce(t, g, "three", "crash", "two")
	if former := g.run(t, "ls", formerDir); former != "" {
		t.Errorf("former configurations stay when all slots are in step: %s", former)
	}
	g.kept(t, "/var/file")
	g.PowerOff()
	alive := g.untilRunning(t)
	t.Logf("from the start of the node daemon until the node was up: %s with dead log destinations, %s with others", dead, alive)
	// That nobody is there shows after 3 s at the earliest. A busy host may be slower.
	if waited && dead > alive+max(2*time.Second, alive) {
		t.Errorf("dead log destinations held the boot up: it took %s, and %s with others", dead, alive)
	}
	n.logs.withoutSecrets(t)
}

// refused brings what needs a wipe, a boot, and new keys.
func (n modesNode) refused(t *testing.T, g nodeGuest) {
	t.Helper()
	before := n.written(t, g)
	text := n.config("refused", "cipher: xchacha12,aes-adiantum-plain64", "blockSize: 1024", "options: [same_cpu_crypt]")
	ran, err := g.Run(text, "cryptctl", "apply", "-f", "-", "--mode", string(node.NoReboot), "--json")
	if err != nil || ran.Code != 1 {
		t.Fatalf("what needs a wipe: exit %d, %v\n%s%s", ran.Code, err, ran.Out, ran.Err)
	}
	want := []string{
		"EPHEMERAL, encryption.cipher: cipher xchacha12,aes-adiantum-plain64 (wipe)",
		"EPHEMERAL, encryption.blockSize: another sector size: 1024 bytes (wipe)",
		"EPHEMERAL, encryption.options: options of the mapping (next boot)",
	}
	if said := "the change cannot take effect now: " + strings.Join(want, "; ") + "; apply it in mode staged, then reset"; !strings.Contains(ran.Err, said) {
		t.Errorf("it is refused so: %s\nwant: %s", ran.Err, said)
	}
	var a node.Applied
	decode(t, ran.Out, &a)
	var all []string
	for _, d := range a.Changes {
		all = append(all, d.String())
	}
	want = append(want, "EPHEMERAL, encryption.keys[slot=0]: keys (now)", "STATE, encryption.keys[slot=0]: keys (now)")
	if !slices.Equal(all, want) {
		t.Errorf("the changes are %q\nwant %q", all, want)
	}
	if key := regexp.MustCompile(`(state|ephemeral) (one|refused)`).FindString(ran.Out + ran.Err); key != "" {
		t.Errorf("the key %q is shown", key)
	}
	if a.Reboot || !slices.Equal(before, n.written(t, g)) {
		t.Errorf("it is refused, and something is changed: %+v", a.Status)
	}
}

// atOnce changes keys, and nothing else.
func (n modesNode) atOnce(t *testing.T, g nodeGuest) {
	t.Helper()
	if a := g.bring(t, n.config("two"), node.NoReboot); a.Reboot || len(a.Changes) != 2 {
		t.Errorf("a change of keys is not what it is taken for: %+v", a)
	}
	n.inForce(t, g, "two", "one", "refused")
}

// takenBack has keys on trial until their time is over.
func (n modesNode) takenBack(t *testing.T, g nodeGuest) {
	t.Helper()
	if a := g.bring(t, n.config("trial"), node.Try); !a.Status.Trial {
		t.Fatalf("nothing is on trial: %+v", a)
	}
	if got := g.file(t, "/system/state/config.yaml"); got != n.config("two") {
		t.Errorf("what is on trial is what the next boot would have:\n%s", got)
	}
	if !g.opens(t, "EPHEMERAL", "ephemeral trial") || g.opens(t, "EPHEMERAL", "ephemeral two") {
		t.Error("the keys on trial are not in force")
	}
	if g.run(t, "ls", formerDir) == "" {
		t.Error("keys are on trial that are written down nowhere")
	}
	if g.reverted() > 0 {
		t.Fatal("the trial was over before it was looked at: the machine is too slow for noded.try")
	}
	for deadline := time.Now().Add(20 * time.Second); g.now(t).Trial; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what is on trial is not taken back")
		}
	}
	n.inForce(t, g, "two", "trial")
	if g.reverted() != 1 {
		t.Errorf("the node says %d times that a trial is over", g.reverted())
	}
}

// confirmed has keys on trial for as long as was asked, and keeps them.
func (n modesNode) confirmed(t *testing.T, g nodeGuest) {
	t.Helper()
	var a node.Applied
	decode(t, g.feed(t, n.config("kept"), "cryptctl", "apply", "-f", "-", "--mode", string(node.Try), "--timeout", "10m", "--json"), &a)
	if tag := n.disk.tag(t, 9); !a.Status.Trial || !strings.Contains(tag, "state two") || strings.Contains(tag, "state kept") {
		t.Errorf("on trial %v, and META has: %s", a.Status.Trial, tag)
	}
	if a := g.bring(t, n.config("kept"), node.NoReboot); a.Status.Trial {
		t.Errorf("what is kept is still on trial: %+v", a)
	}
	n.inForce(t, g, "kept", "two", "trial")
}

// staged brings keys that are in force when the machine was off.
func (n modesNode) staged(t *testing.T, g nodeGuest) {
	t.Helper()
	before := n.written(t, g)
	a := g.bring(t, n.config("three"), node.Staged)
	if after := n.written(t, g); after[0] != n.config("three") || !slices.Equal(before[1:], after[1:]) {
		t.Error("a staged configuration is not stored, or changes META or a header")
	}
	if v := volumeOf(t, a.Status, "EPHEMERAL"); !slices.Equal(v.Pending, []string{"keys (next boot)"}) {
		t.Errorf("what is staged is shown as %q", v.Pending)
	}
	if !g.opens(t, "EPHEMERAL", "ephemeral kept") || g.opens(t, "EPHEMERAL", "ephemeral three") {
		t.Error("a staged key is in force")
	}
	g.PowerOff()
}

// bootWithoutLogs boots into what was staged while no log can be sent; then they all
// arrive.
func (n modesNode) bootWithoutLogs(t *testing.T) nodeGuest {
	t.Helper()
	n.logs.cut(t)
	g := n.boot(t, node.Running)
	n.logs.back(t, g)
	n.inForce(t, g, "three", "kept", "two", "one", "trial")
	g.kept(t, "/var/file")
	n.logs.arrive(t)
	n.logs.complete(t, g)
	return g
}

// cutOnTrial has keys on trial when the power fails.
func (n modesNode) cutOnTrial(t *testing.T, g nodeGuest) {
	t.Helper()
	a := g.bring(t, n.config("crash"), node.Try)
	g.Kill()
	if !a.Status.Trial || g.reverted() > 0 {
		t.Fatal("the trial was over before the power was cut")
	}
	for _, label := range servedVolumes { // else this cut proves nothing
		n.disk.openWith(t, label, map[string]keySet{"STATE": n.keys("crash").state, "EPHEMERAL": n.keys("crash").ephemeral}[label])
	}
	if tag := n.disk.tag(t, 9); !strings.Contains(tag, "state three") || strings.Contains(tag, "state crash") {
		t.Errorf("META has keys on trial for those in force: %s", tag)
	}
}

// inForce fails unless the node is up with exactly the keys of a word, in its
// headers, in META and for cryptsetup, and none of former ones.
func (n modesNode) inForce(t *testing.T, g nodeGuest, word string, former ...string) {
	t.Helper()
	s := g.status(t)
	for _, label := range servedVolumes {
		if v := volumeOf(t, s, label); v.Phase != node.VolumeOpen || len(v.Errors)+len(v.Pending) > 0 {
			t.Fatalf("%s is not as it should be: %+v", label, v)
		}
		name := strings.ToLower(label) + " "
		if !g.opens(t, label, name+word) || g.opens(t, label, name+former[0]) {
			t.Errorf("cryptsetup: the key %q of %s does not open it, or %q does", word, label, former[0])
		}
	}
	var ends []string
	for _, f := range former {
		ends = append(ends, " "+f)
	}
	n.disk.matches(t, n.keys(word), ends...)
	if got := g.file(t, "/system/state/config.yaml"); got != n.config(word) {
		t.Errorf("the configuration of the next boot is\n%s\nand not that of %q", got, word)
	}
}

// written is what a mode may change: the stored configuration, META, and headers.
func (n modesNode) written(t *testing.T, g nodeGuest) []string {
	t.Helper()
	all := []string{g.file(t, "/system/state/config.yaml"), n.disk.sum(t, "META")}
	f, err := os.Open(n.disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, label := range servedVolumes {
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(f, n.disk.part(t, label).Offset, 16<<20)); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("%x", h.Sum(nil)))
	}
	return all
}

// bring applies a configuration as it is.
func (g nodeGuest) bring(t *testing.T, text string, mode node.Mode) (a node.Applied) {
	t.Helper()
	decode(t, g.feed(t, text, "cryptctl", "apply", "-f", "-", "--mode", string(mode), "--json"), &a)
	return a
}

// opens reports whether a key opens a volume, by cryptsetup.
func (g nodeGuest) opens(t *testing.T, label, word string) bool {
	t.Helper()
	device := map[string]string{"STATE": "/dev/vda2", "EPHEMERAL": "/dev/vda3"}[label]
	ran, err := g.Run(word, "cryptsetup", "open", "--test-passphrase", "--type", "luks2", "--key-file", "-", device)
	if err != nil || ran.Code != 0 && ran.Code != 2 { // 2: no key opens it
		t.Fatalf("cryptsetup: exit %d, %v\n%s", ran.Code, err, ran.Err)
	}
	return ran.Code == 0
}

// file returns what a file holds.
func (g nodeGuest) file(t *testing.T, path string) string {
	t.Helper()
	f := wire.File{Path: path}
	g.do(t, "read", f, &f)
	return string(f.Content)
}

// reverted is how often the node said that a trial is over.
func (g nodeGuest) reverted() int {
	return strings.Count(g.Console.String(), `msg="the configuration on trial is taken back"`)
}

// waitedFor reports whether a log destination had failed before the node was up.
func (g nodeGuest) waitedFor(address string) bool {
	failed := g.Expect(`(?s)^(.*)log records wait for their destination" destination=tcp://` + regexp.QuoteMeta(address))
	return !strings.Contains(failed[1], "noded: running:")
}
