//go:build vm

package vm_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// stage is a part of a recording: what the node did, and what must be true after
// a power cut in it.
type stage struct {
	name     string
	from, to int           // operations
	cuts     int           // how many are made in it
	config   machineConfig // the goal; given to a node that waits for a configuration
	waits    bool          // it may wait for one
	wiped    bool          // EPHEMERAL may be refused, since it waits for its wipe
	kept     []string      // files that were synced before and must be there
}

// cut is one power cut.
type cut struct {
	*stage
	at    int
	loses string // what becomes of writes after the last flush: none, all or some are lost
	image string
}

func (c cut) String() string {
	return fmt.Sprintf("%s, cut before operation %d (%d to %d), %s lost", c.name, c.at, c.from, c.to, c.loses)
}

// recorder is a node whose writes are recorded.
type recorder struct {
	*machine.Recording
	stages []*stage
}

// stage records what an act does.
func (r *recorder) stage(s stage, act func()) {
	s.from = len(r.Ops())
	act()
	s.to = len(r.Ops())
	r.stages = append(r.stages, &s)
}

// The configurations of the recorded node, in this order. Each changes all keys,
// so that none is left to open what is not in step; the last two need a wipe.
func cutConfigs() (c [6]machineConfig) {
	for i := range c {
		word := func(name string) string { return fmt.Sprintf("%s word %d", name, i) }
		c[i] = machineConfig{
			state:     keySet{0: word("state"), 1: word("other")},
			ephemeral: keySet{0: word("ephemeral"), 2: word("more")},
			users:     map[string]keySet{"data": {0: word("data")}},
		}
		if i >= 4 {
			c[i].ephemeral = nil
		}
	}
	c[5].state, c[5].users = nil, c[4].users // what STATE knew of former keys is wiped with it
	return c
}

const dataFile, varFile = "/var/mnt/data/kept", "/var/kept"

// record has a node do all that writes, while its disk remembers.
func record(t *testing.T, d *nodeDisk) *recorder {
	r := &recorder{Recording: machine.Record(t, d.Disk)}
	c, both := cutConfigs(), []string{dataFile, varFile}
	g := bootNode(t, d.Disk, node.Maintenance)
	r.stage(stage{name: "format", cuts: 24, config: c[0], waits: true}, func() {
		g.configure(t, c[0], node.Auto)
		g.open(t, true, "STATE", "EPHEMERAL", "u-data")
	})
	g.put(t, dataFile)
	g.put(t, varFile)
	r.stage(stage{name: "rotation", cuts: 24, config: c[1], kept: both}, func() {
		g.configure(t, c[1], node.Auto)
	})
	r.stage(stage{name: "staging", cuts: 6, config: c[2], kept: both}, func() {
		g.configure(t, c[2], node.Staged)
		g.PowerOff()
	})
	r.stage(stage{name: "boot into a staged rotation", cuts: 16, config: c[2], kept: both}, func() {
		g = bootNode(t, d.Disk, node.Running)
		g.open(t, false, "STATE", "EPHEMERAL", "u-data")
	})
	r.stage(stage{name: "trial and its end", cuts: 16, config: c[2], kept: both}, func() {
		g.configure(t, c[3], node.Try)
		for g.status(t).Trial {
			time.Sleep(100 * time.Millisecond)
		}
	})
	g.configure(t, c[4], node.Staged)
	r.stage(stage{name: "EPHEMERAL to plain", cuts: 16, config: c[4], wiped: true, kept: both[:1]}, func() {
		g.reset(t, "EPHEMERAL")
		g = bootNode(t, d.Disk, node.Running)
		g.open(t, true, "EPHEMERAL")
	})
	g.put(t, varFile)
	r.stage(stage{name: "STATE to plain", cuts: 18, config: c[5], waits: true, kept: both}, func() {
		g.reset(t, "STATE")
		g = bootNode(t, d.Disk, node.Maintenance)
		g.configure(t, c[5], node.Auto)
		g.open(t, true, "STATE")
	})
	for _, path := range both {
		g.kept(t, path)
	}
	g.PowerOff()
	return r
}

// points chooses cuts in a stage. Where the disk is flushed often the node means
// something by it, so that stretches between flushes count alike.
func (r *recorder) points(s *stage, random *rand.Rand) (cuts []cut) {
	var stretches [][2]int
	start := s.from
	for i, op := range r.Ops()[s.from:s.to] {
		if at := s.from + i + 1; op.Flush || at == s.to {
			stretches = append(stretches, [2]int{start, at})
			start = at
		}
	}
	for i := range s.cuts {
		in := stretches[i*len(stretches)/s.cuts]
		at := in[0] + 1 + random.IntN(in[1]-in[0])
		cuts = append(cuts, cut{stage: s, at: at, loses: []string{"some", "all", "none"}[i%3]})
	}
	return cuts
}

// make makes the image that a cut leaves.
func (r *recorder) make(c *cut, dir string, random *rand.Rand) error {
	c.image = filepath.Join(dir, fmt.Sprintf("cut%d-%s", c.at, c.loses))
	return r.Image(c.image, c.at, func(machine.Op) bool {
		return c.loses == "all" || c.loses == "some" && random.IntN(2) == 0
	})
}

// TestPowerCuts cuts the power of a node while it formats, rotates, stages,
// tries, migrates and writes META, and boots what is left.
func TestPowerCuts(t *testing.T) {
	random := rand.New(rand.NewPCG(4, 2))
	d := newNodeDisk(t, "data")
	r := record(t, d)
	var cuts []cut
	for _, s := range r.stages {
		chosen := r.points(s, random)
		t.Logf("%s: %d writes and flushes, %d cuts", s.name, s.to-s.from, len(chosen))
		cuts = append(cuts, chosen...)
	}
	if len(cuts) < 100 {
		t.Fatalf("only %d cuts", len(cuts))
	}
	t.Run("boot", func(t *testing.T) {
		for batch := range slices.Chunk(cuts, (len(cuts)+7)/8) {
			seed := random.Uint64()
			t.Run(fmt.Sprintf("from %d", batch[0].at), func(t *testing.T) {
				t.Parallel() // two at a time keep both processors busy
				r.judge(t, batch, rand.New(rand.NewPCG(seed, 0)))
			})
		}
	})
	where := map[string]int{}
	for _, c := range cuts {
		where[d.labelOf(r.Ops()[c.at-1])]++
	}
	t.Logf("SUMMARY %d power cuts judged, made from a recording of %d writes and flushes; right after %v", len(cuts), len(r.Ops()), where)
}

// judge boots images of cuts one after the other in one machine.
func (r *recorder) judge(t *testing.T, cuts []cut, random *rand.Rand) {
	dir, err := os.MkdirTemp("", "cuts-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := machine.Config{Args: []string{"-uuid", nodeUUID}, CPUs: 1, Deadline: 8 * time.Minute}
	for i := range cuts {
		if err := r.make(&cuts[i], dir, random); err != nil {
			t.Fatal(err)
		}
		config.Disks = append(config.Disks, &machine.Disk{Path: cuts[i].image})
	}
	g := boot(t, config)
	for i, c := range cuts {
		g.judge(t, c, fmt.Sprintf("/dev/vd%c", 'a'+i))
	}
	g.empty(t)
	g.PowerOff()
}

// bootDisk boots a disk as a node does, with its mount points below /r.
func (g *guest) bootDisk(t *testing.T, device string, more ...string) (s node.Status, ran wire.Ran) {
	t.Helper()
	ran, err := g.Run("", append([]string{"cryptctl", "boot", "--disk", device, "--root", "/r", "--cost", "light", "--once", "--json"}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	decode(t, ran.Out, &s)
	return s, ran
}

// judge boots what a cut left: the node must reach its goal or be where it was.
func (g *guest) judge(t *testing.T, c cut, device string) {
	t.Helper()
	s, ran := g.bootDisk(t, device)
	if ran.Code == 3 && c.waits {
		g.do(t, "write", wire.File{Path: "/tmp/machine.yaml", Content: []byte(c.config.String())}, nil)
		s, ran = g.bootDisk(t, device, "--file", "/tmp/machine.yaml")
	}
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s\nstatus: %+v\n%s", c, fmt.Sprintf(format, args...), s, ran.Err)
	}
	if ran.Code != 0 || s.Phase != node.Running {
		fail("the node is %s, exit code %d", s.Phase, ran.Code)
	}
	bad, waits := unsound(s, c.wiped)
	if bad != "" {
		fail("%s is not open", bad)
	}
	if waits {
		g.opensByHand(t, device+"4", "/r"+dataFile)
	} else {
		for _, path := range c.kept {
			g.kept(t, "/r"+path)
		}
	}
	if t.Failed() {
		t.Fatalf("at %s", c)
	}
	g.shut(t)
}

// unsound names a volume that is not open and in step. EPHEMERAL may be refused
// while it waits for its wipe; then the volume that is mounted in it waits too.
func unsound(s node.Status, wiped bool) (bad string, waits bool) {
	for _, name := range []string{"EPHEMERAL", "STATE", "u-data"} {
		at := slices.IndexFunc(s.Volumes, func(v node.VolumeStatus) bool { return v.Name == name })
		if at < 0 {
			return name, waits
		}
		v := s.Volumes[at]
		switch {
		case v.Phase == node.VolumeOpen && len(v.Errors) == 0:
		case wiped && name == "EPHEMERAL" && v.Phase == node.VolumeRefused:
			waits = true
		case waits && name == "u-data" && strings.Contains(strings.Join(v.Errors, ""), "waits for EPHEMERAL"):
		default:
			return name, waits
		}
	}
	return "", waits
}

// opensByHand opens a volume that waits with a key of some configuration, and
// looks for the file that is in it.
func (g *guest) opensByHand(t *testing.T, device, path string) {
	t.Helper()
	for _, c := range cutConfigs() {
		ran, err := g.Run(c.users["data"][0], "cryptsetup", "open", "--type", "luks2", "--key-file", "-", device, "by-hand")
		if err != nil {
			t.Fatal(err)
		}
		if ran.Code == 0 {
			g.do(t, "mount", wire.Mount{Source: "/dev/mapper/by-hand", Target: filepath.Dir(path), Type: "ext4"}, nil)
			g.kept(t, path)
			return
		}
	}
	t.Errorf("no key opens %s", device)
}

// shut unmounts and closes what bootDisk has opened, without the program that is
// tested.
func (g *guest) shut(t *testing.T) {
	t.Helper()
	var mounts wire.File
	g.do(t, "read", wire.File{Path: "/proc/mounts"}, &mounts)
	var below []string
	for line := range strings.Lines(string(mounts.Content)) {
		if dir := strings.Fields(line)[1]; strings.HasPrefix(dir, "/r/") {
			below = append(below, dir)
		}
	}
	for _, dir := range slices.Backward(below) {
		g.do(t, "unmount", wire.Mount{Target: dir}, nil)
	}
	g.run(t, "dmsetup", "remove_all")
}
