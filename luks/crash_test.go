package luks_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
)

// cutCase is one operation whose every power cut is tried.
type cutCase struct {
	name    string
	slots   int // of the volume before; default 3
	prepare func(v *cutVolume)
	run     func(v *cutVolume, d *lukstest.Disk) error
	small   bool // tried with 16 KiB of metadata only
	faults  bool // tried with faults too

	// again is set where a cut may leave no header that opens: after it the same
	// operation, done anew, must succeed. Formats also leave their marker.
	again  bool
	format bool
}

func cutCases() []cutCase {
	change := func(changes func(v *cutVolume) []luks.Change) func(*cutVolume, *lukstest.Disk) error {
		return func(v *cutVolume, d *lukstest.Disk) error {
			_, err := v.read(d).Commit(changes(v)...)
			return err
		}
	}
	add := change(func(v *cutVolume) []luks.Change {
		return []luks.Change{luks.AddKeyslot(luks.AnySlot, v.seal("dora"), cutToken(3))}
	})
	replace := change(func(v *cutVolume) []luks.Change {
		return []luks.Change{luks.ReplaceKeyslot(1, v.seal("bert, new"), cutToken(1, "new"))}
	})
	mixed := change(func(v *cutVolume) []luks.Change {
		return []luks.Change{
			luks.RemoveKeyslot(0), luks.RemoveToken(0),
			luks.AddKeyslot(5, v.seal("dora"), cutToken(5)),
			luks.ReplaceKeyslot(1, v.seal("bert, new"), nil), luks.SetToken(1, cutToken(1, "new")),
			luks.SetFlags("allow-discards"),
		}
	})
	erase := func(v *cutVolume, d *lukstest.Disk) error { _, err := v.read(d).Erase(); return err }
	repair := func(_ *cutVolume, d *lukstest.Disk) error { _, _, err := luks.Repair(d); return err }

	cases := []cutCase{
		{name: "add", run: add, faults: true},
		{name: "replace", run: replace},
		{name: "remove", run: change(func(*cutVolume) []luks.Change {
			return []luks.Change{luks.RemoveKeyslot(2), luks.RemoveToken(2)}
		})},
		{name: "token", run: change(func(*cutVolume) []luks.Change { return []luks.Change{luks.SetToken(0, cutToken(0, "new"))} })},
		{name: "priority", run: change(func(*cutVolume) []luks.Change { return []luks.Change{luks.SetPriority(1, luks.PriorityPrefer)} })},
		{name: "flags", run: change(func(*cutVolume) []luks.Change {
			return []luks.Change{luks.SetFlags("allow-discards"), luks.SetConfig("example", json.RawMessage(`{"a":1}`))}
		})},
		{name: "mixed", run: mixed, faults: true},
		{name: "replace with 32 of 32 ids in use", slots: 32, run: replace},
		{name: "erase", run: erase, faults: true},
		{name: "erase after an erase that was cut", prepare: afterCut(erase, 2, 0), run: erase, small: true},
		{name: "restore", prepare: cutBackup, run: cutRestore, faults: true},
		{name: "restore over an unreadable header", prepare: func(v *cutVolume) { cutBackup(v); v.damage(0); v.damage(v.metadata) }, run: cutRestore, again: true, faults: true},
		{name: "restore of another layout", prepare: func(v *cutVolume) { cutBackup(v); v.disk = otherLayout(v) }, run: cutRestore, again: true},
		{name: "format", prepare: func(v *cutVolume) { v.disk = v.blank() }, run: cutFormat, again: true, format: true},
		{name: "format over a volume", prepare: func(v *cutVolume) { v.disk = otherLayout(v) }, run: cutFormat, again: true, format: true, faults: true},
	}
	for _, start := range []struct {
		name    string
		prepare func(*cutVolume)
		faults  bool
	}{
		// The writes of a replacement: area, primary, secondary, zeros.
		{"a torn area", afterCut(replace, 0, 100), false},
		{"a torn primary", afterCut(replace, 1, 5), true},
		{"a stale secondary", afterCut(replace, 2, 0), false},
		{"a torn secondary", afterCut(replace, 2, 5), false},
		{"a half wiped area", afterCut(replace, 3, 100), false},
		{"a stale primary", stalePrimary(replace), true},
		{"two copies of one number", sameNumber, false},
	} {
		cases = append(cases,
			cutCase{name: "add after " + start.name, prepare: start.prepare, run: add, small: true, faults: start.faults},
			cutCase{name: "repair of " + start.name, prepare: start.prepare, run: repair, small: true, faults: start.faults})
	}
	for n := range 4 {
		cases = append(cases, cutCase{name: fmt.Sprintf("add after a replacement that was killed before sync %d", n+1), run: afterKill(replace, add, n), small: true})
	}
	return cases
}

// TestPowerCut tries every power cut of every operation that writes.
func TestPowerCut(t *testing.T) {
	sizes, sampling := []int64{16 << 10, 64 << 10}, lukstest.Sampling{}
	if testing.Short() {
		sizes, sampling = sizes[:1], lukstest.Sampling{Subsets: 4, Combinations: 4, Stride: 8}
	}
	var mu sync.Mutex
	total, ran, planned := 0, 0, 0
	t.Run("all", func(t *testing.T) {
		for _, metadata := range sizes {
			for _, test := range cutCases() {
				if test.small && metadata != sizes[0] {
					continue
				}
				planned++
				t.Run(fmt.Sprintf("%s, %d KiB", test.name, metadata>>10), func(t *testing.T) {
					t.Parallel()
					n := tryCuts(t, test, metadata, sampling)
					t.Logf("%d images", n)
					mu.Lock()
					defer mu.Unlock()
					total, ran = total+n, ran+1
				})
			}
		}
	})
	t.Logf("%d images after power cuts in %d operations", total, ran)
	fmt.Fprintf(os.Stdout, "luks: %d images after power cuts in %d operations\n", total, ran)
	if ran == planned && total < 10_000 && !testing.Short() {
		t.Errorf("only %d images: the sampling has become too thin", total)
	}
}

// tryCuts judges every image that a cut of one operation can leave.
func tryCuts(t *testing.T, test cutCase, metadata int64, sampling lukstest.Sampling) (n int) {
	v := newCutVolume(t, metadata, max(test.slots, 3))
	if test.prepare != nil {
		test.prepare(v)
	}
	v.learn(v.disk)
	v.disk = v.disk.Clone()
	v.start = v.disk.Bytes()
	before := v.outcome(v.disk)
	if err := test.run(v, v.disk); err != nil {
		t.Fatal(err)
	}
	v.learn(v.disk)
	after := v.outcome(v.disk)
	if err := errors.Join(v.unclean(v.read(v.disk), v.disk), v.outside(v.disk)); err != nil {
		t.Fatal(err)
	}
	if before.doc == after.doc && !strings.HasPrefix(test.name, "repair") && !strings.HasPrefix(test.name, "erase after") {
		t.Fatalf("the operation changes nothing: %v", v.disk.Ops())
	}
	j := &cutJudge{cutVolume: v, test: test, before: before, after: after}
	for c := range v.disk.Crashes(sampling) {
		n++
		j.judge(c.Disk, n, c)
		if j.bad > 5 {
			t.Fatal("and so on")
		}
	}
	return n
}

// TestFaults lets every single write and sync of an operation fail once, with
// and without an effect, and then lets a disk lie about it.
func TestFaults(t *testing.T) {
	for _, test := range cutCases() {
		if !test.faults {
			continue
		}
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			v := newCutVolume(t, 16<<10, max(test.slots, 3))
			if test.prepare != nil {
				test.prepare(v)
			}
			v.learn(v.disk)
			v.start = v.disk.Bytes()
			before := v.outcome(v.disk)
			whole := v.disk.Clone()
			if err := test.run(v, whole); err != nil {
				t.Fatal(err)
			}
			v.learn(whole)
			j := &cutJudge{cutVolume: v, test: test, before: before, after: v.outcome(whole), faults: true}
			for n, op := range whole.Ops() {
				faults := []lukstest.Fault{{}, {Silent: true}}
				if half := len(op.Data) / 2 / lukstest.SectorSize; !op.Sync {
					faults = append(faults, lukstest.Fault{Sectors: half}, lukstest.Fault{Sectors: -1}, lukstest.Fault{Sectors: half, Silent: true})
				}
				for _, f := range faults {
					f.After = n
					j.fault(f, op)
				}
			}
		})
	}
}

// TestReadsOnly: looking at a volume, and a change that changes nothing, write
// nothing.
func TestReadsOnly(t *testing.T) {
	v := newCutVolume(t, 16<<10, 3)
	d := v.disk.Clone()
	h := v.read(d)
	v.keys(h, d)
	var image strings.Builder
	if err := h.Backup(&image); err != nil {
		t.Fatal(err)
	}
	if _, err := luks.PlanRestore(d, v.read(lukstest.DiskOf([]byte(image.String())))); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Commit(luks.SetFlags()); err != nil {
		t.Fatal(err)
	}
	if _, done, err := luks.Repair(d); err != nil || len(done) > 0 {
		t.Errorf("repaired %q, %v", done, err)
	}
	if len(v.writes(d)) > 0 {
		t.Errorf("wrote %v", d.Ops())
	}
}
