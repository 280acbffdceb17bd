package interop_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks"
)

// Outcomes of a change of a key that was cut off, by what opens afterwards.
const (
	onlyOld = "old"
	onlyNew = "new"
	both    = "both"
	neither = "NEITHER"
)

const (
	oldPass = "the old passphrase"
	newPass = "the new passphrase"
)

// outcome asks cryptsetup what a slot, or any with -1, opens with.
func (d *disk) outcome(slot int) string {
	d.Helper()
	return classify(d.opensThere(oldPass, slot), d.opensThere(newPass, slot))
}

func classify(opensOld, opensNew bool) string {
	switch {
	case opensOld && opensNew:
		return both
	case opensOld:
		return onlyOld
	case opensNew:
		return onlyNew
	}
	return neither
}

// filled returns a volume of cryptsetup's with so many keyslots, of which 0 has
// the old passphrase.
func filled(t *testing.T, n int) *disk {
	d := theirs(t, plain(), oldPass)
	// The first change of ours wipes cryptsetup's random filling.
	changes := []luks.Change{luks.SetToken(0, []byte(`{"type":"x","keyslots":[]}`))}
	for slot := 1; slot < n; slot++ {
		d.keys[slot] = fmt.Sprintf("pass %d", slot)
		changes = append(changes, luks.AddKeyslot(slot, d.sealNew(d.keys[slot]), nil))
	}
	d.commit(changes...)
	return d
}

// killed runs luksChangeKey on a copy of the disk and kills it before its n-th
// write to the image. It reports false when there are fewer writes.
func killed(t *testing.T, d *disk, n int, flags []string) (after *disk, cut bool) {
	t.Helper()
	after = d.copy(t)
	args := []string{
		"-f", "-qq", "-o", filepath.Join(t.TempDir(), "trace"), "-P", after.path, "-e", "trace=write,pwrite64",
		"-e", fmt.Sprintf("inject=write,pwrite64:signal=SIGKILL:when=%d", n),
		program(t, "cryptsetup"), "-q", "luksChangeKey", "--key-file", keyFile(t, oldPass), after.path, keyFile(t, newPass),
	}
	r := run(t, patience, "strace", slices.Concat(args, d.shape.costFlags(), flags)...)
	if r.code != 0 && r.signal != unix.SIGKILL {
		t.Fatalf("cryptsetup under strace: exit %d\n%s", r.code, r.out)
	}
	return after, r.code != 0
}

// sweep is one row of the table: what opens after a change that was cut off
// before its 1st, 2nd, ... write, and last after one that was not.
type sweep struct {
	name     string
	slots    int // in use
	run      func(t *testing.T, d *disk) []string
	outcomes []string
}

// TestCutOff changes a key and is cut off before each write: cryptsetup by a
// signal, we by a device that stops. Ours must always leave a passphrase that
// opens the volume; what cryptsetup leaves is shown beside it.
func TestCutOff(t *testing.T) {
	peer := func(look int, flags ...string) func(*testing.T, *disk) []string {
		return func(t *testing.T, d *disk) []string { return killSweep(t, d, look, flags) }
	}
	whole := func(t *testing.T, d *disk) []string { return cutSweep(t, d, false) }
	torn := func(t *testing.T, d *disk) []string { return cutSweep(t, d, true) }
	rows := []*sweep{
		{name: "cryptsetup, 1 slot in use", slots: 1, run: peer(-1)},
		{name: "cryptsetup, 1 slot in use, --key-slot", slots: 1, run: peer(-1, "--key-slot", "0")},
		{name: "cryptsetup, 32 in use", slots: luks.MaxSlots, run: peer(0)},
		{name: "cryptsetup, 32 in use, --key-slot", slots: luks.MaxSlots, run: peer(0, "--key-slot", "0")},
		{name: "we, 1 slot in use", slots: 1, run: whole},
		{name: "we, 1 slot in use, that write half done", slots: 1, run: torn},
		{name: "we, 32 in use", slots: luks.MaxSlots, run: whole},
		{name: "we, 32 in use, that write half done", slots: luks.MaxSlots, run: torn},
	}
	t.Run("sweep", func(t *testing.T) {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel()
				r.outcomes = r.run(t, filled(t, r.slots))
				if n := len(r.outcomes); n < 3 || r.outcomes[n-1] != onlyNew {
					t.Errorf("it was not run as meant: %v", r.outcomes)
				}
			})
		}
	})
	var text strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&text, "\n%-40s", r.name)
		for _, o := range r.outcomes {
			fmt.Fprintf(&text, " %-7s", o)
		}
	}
	t.Logf("what opens after a change of a key that was cut off before write 1, 2, ... and, last, one that was not%s", text.String())
}

// killSweep kills luksChangeKey before each of its writes and looks for the key
// in a slot, or in any with -1.
func killSweep(t *testing.T, d *disk, look int, flags []string) (outcomes []string) {
	t.Helper()
	for n := 1; ; n++ {
		after, cut := killed(t, d, n, flags)
		outcomes = append(outcomes, after.outcome(look))
		if n == 1 && (!cut || outcomes[0] != onlyOld) {
			t.Errorf("killed before the first write: %v, %s", cut, outcomes[0])
		}
		if !cut {
			return outcomes
		}
	}
}

// cutSweep replaces the key of slot 0 with our engine and cuts the power at each
// write.
func cutSweep(t *testing.T, d *disk, torn bool) (outcomes []string) {
	t.Helper()
	sealed := d.sealNew(newPass)
	for n := 0; ; n++ {
		after := d.copy(t)
		h, err := luks.Read(&cutter{Device: after.open(), left: n, torn: torn})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.Commit(luks.ReplaceKeyslot(0, sealed, nil))
		if err != nil && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		here := classify(after.opensHere(oldPass, 0), after.opensHere(newPass, 0))
		there := after.outcome(0)
		switch {
		case here == neither || there == neither:
			t.Errorf("cut off before write %d: neither passphrase opens (we: %s, cryptsetup: %s)", n+1, here, there)
		case here != there:
			t.Errorf("cut off before write %d: we see %s, cryptsetup %s", n+1, here, there)
		case err == nil && here != onlyNew:
			t.Errorf("a finished change leaves %s", here)
		}
		for slot, pass := range d.keys {
			if slot%10 == 1 && !after.opensHere(pass, slot) {
				t.Errorf("cut off before write %d: slot %d is lost", n+1, slot)
			}
		}
		outcomes = append(outcomes, here)
		if err == nil {
			return outcomes
		}
	}
}

var errCut = errors.New("the power is cut")

// cutter is a device that stops before a write, or in the middle of it.
type cutter struct {
	luks.Device
	left int
	torn bool
}

func (c *cutter) WriteAt(p []byte, off int64) (int, error) {
	if c.left > 0 {
		c.left--
		return c.Device.WriteAt(p, off)
	}
	if c.torn {
		c.torn = false
		if n, err := c.Device.WriteAt(p[:len(p)/2], off); err != nil {
			return n, err
		}
	}
	return 0, errCut
}
