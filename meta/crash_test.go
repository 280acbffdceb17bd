package meta_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/meta"
)

// cutCase is a change of META whose every power cut is tried: the old values are
// read afterwards or the new ones.
type cutCase struct {
	name    string
	image   []byte
	changes content // nil: repaired
	reset   bool    // repaired with Reset; before it nothing can be read
	faults  bool    // for TestFaults too; the others write in the same orders
}

func cutCases() []cutCase {
	a, b := copyOf(entry{6, "old"}, entry{9, large("a")}), copyOf(entry{6, "older"}, entry{9, large("b")})
	legacy := legacyOf(entry{6, "legacy 6"}, entry{7, "legacy 7"}, entry{8, "legacy 8"})
	set := content{6: "new", 9: large("c"), 12: "x"}
	unfinished := torn(a, make([]byte, 512), 1)
	copy(unfinished[300*512:], make([]byte, copyLength)) // its end never arrived
	return []cutCase{
		{name: "first write", image: imageOf(nil, nil, nil), changes: set, faults: true},
		{name: "first write beside legacy values", image: imageOf(nil, nil, legacy), changes: content{6: "new", 7: "", 9: "x"}},
		{name: "first write after one that was cut off", image: imageOf(unfinished, nil, nil), changes: set},
		{name: "change", image: imageOf(a, a, nil), changes: set, faults: true},
		{name: "delete", image: imageOf(a, a, nil), changes: content{6: "", 9: ""}},
		{name: "change with copy 1 broken", image: imageOf(broken(b), a, nil), changes: set, faults: true},
		{name: "change with copy 2 broken", image: imageOf(a, broken(b), nil), changes: set, faults: true},
		{name: "change with copy 1 zeros", image: imageOf(nil, a, nil), changes: set},
		{name: "change with copy 2 zeros", image: imageOf(a, nil, nil), changes: set},
		{name: "change of copies that differ", image: imageOf(a, b, nil), changes: set, faults: true},
		{name: "change with legacy values", image: imageOf(a, a, legacy), changes: set},
		{name: "delete from legacy only", image: imageOf(a, a, legacy), changes: content{7: ""}, faults: true},
		{name: "delete from legacy with copy 2 broken", image: imageOf(a, broken(b), legacy), changes: content{7: ""}},
		{name: "delete from both", image: imageOf(a, a, legacy), changes: content{6: ""}},
		{name: "delete from legacy and set", image: imageOf(a, a, legacy), changes: content{7: "", 8: "", 9: "null"}, faults: true},
		{name: "delete from all and set, copies differ", image: imageOf(a, b, legacy), changes: content{6: "", 7: "", 12: "x"}},
		{name: "delete from the second legacy sector", image: imageOf(a, a, append(garbage(512), legacy...)), changes: content{6: "", 7: "", 12: "x"}},
		{name: "repair of copy 1", image: imageOf(broken(b), a, nil)},
		{name: "repair of copy 2", image: imageOf(a, broken(b), nil)},
		{name: "repair of copies that differ", image: imageOf(a, b, nil), faults: true},
		{name: "repair of a first write", image: imageOf(unfinished, nil, nil)},
		{name: "reset", image: imageOf(broken(a), broken(b), nil), reset: true},
	}
}

// large is a value of many sectors.
func large(c string) string { return strings.Repeat(c, 20_000) }

// after returns what a change makes of values.
func (c cutCase) after(before content) content {
	after := content{}
	for tag, value := range before {
		after[tag] = value
	}
	for tag, value := range c.changes {
		after[tag] = value
		if value == "" {
			delete(after, tag)
		}
	}
	return after
}

// prepare returns what makes the change, with the Meta that was edited.
func (c cutCase) prepare(t testing.TB, d meta.Device) (*meta.Meta, func() error) {
	if c.changes == nil {
		return nil, func() error {
			_, err := meta.Repair(d, meta.RepairOptions{Reset: c.reset})
			return err
		}
	}
	m := mustRead(t, d)
	edit(t, m, c.changes)
	return m, m.Commit
}

func (c cutCase) run(t testing.TB, d meta.Device) error {
	_, commit := c.prepare(t, d)
	return commit()
}

// before returns the values, none of what cannot be read.
func (c cutCase) before(t testing.TB) content {
	if c.reset {
		return content{}
	}
	return contentOf(t, mustRead(t, lukstest.DiskOf(c.image)))
}

// sampling keeps the run short: a copy has 512 sectors, and judging an image
// takes a SHA-256 of each copy. One change is cut at every fourth sector.
func (c cutCase) sampling() lukstest.Sampling {
	s := lukstest.Sampling{Stride: 48, Subsets: 6, Combinations: 6}
	if c.name == "change" {
		s.Stride = 4
	}
	return s
}

// TestPowerCut tries power cuts of every change, within each write and in every
// order that the disk may choose between two syncs.
func TestPowerCut(t *testing.T) {
	var total, ran atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, test := range cutCases() {
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				before := test.before(t)
				after := test.after(before)
				d := lukstest.DiskOf(test.image)
				err := test.run(t, d)
				if err != nil {
					t.Fatal(err)
				}
				if len(d.Ops()) == 0 {
					t.Fatal("the change writes nothing")
				}
				finished(t, test, d, after)
				n := 0
				for i, op := range d.Ops() { // short writes, which the sampling passes over
					for sectors := 1; len(op.Data) <= 4*512 && sectors*512 < len(op.Data); sectors++ {
						n++
						judge(t, fmt.Sprintf("%s, torn after %d sectors", op, sectors), d.Cut(i, sectors), test.reset, before, after)
					}
				}
				for c := range d.Crashes(test.sampling()) {
					n++
					got := judge(t, c.String(), c.Disk, test.reset, before, after)
					if n%29 == 0 { // what was cut off can be done again, or is done
						if cmp.Equal(got, after) {
							_, err = meta.Repair(c.Disk, meta.RepairOptions{})
						} else {
							err = test.run(t, c.Disk)
						}
						if err != nil {
							t.Errorf("%s: done again: %v", c, err)
						}
						finished(t, test, c.Disk, after)
					}
					if t.Failed() {
						t.FailNow()
					}
				}
				total.Add(int64(n))
				ran.Add(1)
			})
		}
	})
	fmt.Fprintf(os.Stdout, "meta: %d images after power cuts in %d changes\n", total.Load(), ran.Load())
	if everything := int(ran.Load()) == len(cutCases()); everything && total.Load() < 1200 {
		t.Errorf("only %d images: the sampling has become too thin", total.Load())
	}
}

// judge checks what is read after a crash: one of these contents. It returns it,
// or nil where nothing can be read and need not.
func judge(t *testing.T, what string, d meta.Device, reset bool, allowed ...content) content {
	t.Helper()
	m, err := meta.Read(d)
	if err != nil {
		if !reset {
			t.Errorf("%s: %v", what, err)
		}
		return nil
	}
	got := contentOf(t, m)
	if !slices.ContainsFunc(allowed, func(c content) bool { return cmp.Equal(c, got) }) {
		t.Errorf("%s: neither the old values nor the new ones; to the new (-want +got):\n%.2000s", what, cmp.Diff(allowed[len(allowed)-1], got))
	}
	return got
}

// finished checks a disk on which the change was made.
func finished(t *testing.T, c cutCase, d *lukstest.Disk, after content) {
	t.Helper()
	m := holds(t, d, after)
	for _, s := range m.Damage() {
		onlyLegacy := len(c.changes) == 1 && c.changes[7] == "" // writes no copies
		if !strings.Contains(s, "legacy") && !onlyLegacy {
			t.Errorf("%s: damage %q", c.name, s)
		}
	}
}

// TestFaults lets every single write and sync of a change fail once, writes
// half way. Commit then says so, and whoever goes on from there makes no power cut
// worse.
func TestFaults(t *testing.T) {
	thin := lukstest.Sampling{Stride: 512, Subsets: -1, Combinations: 1}
	var total atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, test := range cutCases() {
			if !test.faults {
				continue
			}
			t.Run(test.name, func(t *testing.T) {
				t.Parallel()
				before := test.before(t)
				after := test.after(before)
				whole := lukstest.DiskOf(test.image)
				if err := test.run(t, whole); err != nil {
					t.Fatal(err)
				}
				for n, op := range whole.Ops() {
					for _, next := range test.followers(n, whole.Ops()) {
						d := lukstest.DiskOf(test.image)
						d.Fail(lukstest.Fault{After: n, Sectors: len(op.Data) / 1024})
						m, commit := test.prepare(t, d)
						if err := commit(); err == nil || !strings.Contains(err.Error(), "META at byte") {
							t.Errorf("%s failed: %v", op, err)
						}
						allowed := []content{before, after}
						switch next {
						case "again":
							if err := commit(); err != nil {
								t.Error(err)
							}
							finished(t, test, d, after)
						case "repair":
							if _, err := meta.Repair(d, meta.RepairOptions{Reset: test.reset}); err != nil {
								t.Error(err)
							}
						case "more", "another":
							if next == "another" {
								m = mustRead(t, d)
							}
							edit(t, m, content{200: "more"})
							if err := m.Commit(); err != nil {
								t.Error(err)
							}
							allowed = append(allowed, contentOf(t, m))
						}
						for c := range d.Crashes(thin) {
							judge(t, c.String(), c.Disk, test.reset, allowed...)
							total.Add(1)
						}
						if t.Failed() {
							t.Fatalf("op %d, %s, failed; then %s", n+1, op, next)
						}
					}
				}
			})
		}
	})
	t.Logf("%d images", total.Load())
}

// followers returns who goes on after an operation failed: the same Meta again,
// or with more changes; Repair; or another Meta, which sees what the first left.
func (c cutCase) followers(n int, ops []lukstest.Op) []string {
	all := []string{"again", "repair", "more", "another"}
	switch {
	case c.changes == nil:
		return all[:2]
	case ops[n].Sync:
		return all
	}
	return all[:1]
}

// TestRetryWritesAll: after a failed sync the cache holds what the disk may not.
// A commit that is tried again relies on nothing that the first try wrote.
func TestRetryWritesAll(t *testing.T) {
	image := imageOf(copyOf(entry{6, "old"}), copyOf(entry{6, "old"}), legacyOf(entry{7, "legacy"}))
	change := cutCase{image: image, changes: content{6: "new", 7: ""}}
	whole := lukstest.DiskOf(image)
	if err := change.run(t, whole); err != nil {
		t.Fatal(err)
	}
	for n, op := range whole.Ops() {
		if !op.Sync {
			continue
		}
		d := lukstest.DiskOf(image)
		_, commit := change.prepare(t, d)
		d.Fail(lukstest.Fault{After: n})
		if commit() == nil {
			t.Fatal("a failed sync was overlooked")
		}
		done := len(d.Ops())
		if err := commit(); err != nil {
			t.Fatal(err)
		}
		for _, failed := range d.Ops()[:done] {
			again := slices.ContainsFunc(d.Ops()[done:], func(o lukstest.Op) bool {
				return !o.Sync && o.Offset == failed.Offset && len(o.Data) == len(failed.Data)
			})
			if !failed.Sync && !again {
				t.Errorf("op %d failed: %s was not done again", n+1, failed)
			}
		}
		sound(t, d, content{6: "new"})
	}
}

// TestLyingDisk: a write that is lost without an error is found by reading back.
func TestLyingDisk(t *testing.T) {
	for _, test := range cutCases() {
		if test.changes == nil {
			continue
		}
		whole := lukstest.DiskOf(test.image)
		if err := test.run(t, whole); err != nil {
			t.Fatal(err)
		}
		for n, op := range whole.Ops() {
			if op.Sync {
				continue
			}
			d := lukstest.DiskOf(test.image)
			d.Fail(lukstest.Fault{After: n, Silent: true})
			err := test.run(t, d)
			m, readErr := meta.Read(d)
			if err == nil && (readErr != nil || !cmp.Equal(contentOf(t, m), test.after(test.before(t)))) {
				t.Errorf("%s: %s lost: not noticed", test.name, op)
			}
		}
	}
}
