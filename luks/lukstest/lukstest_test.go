package lukstest_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
)

var (
	_ luks.Device = (*lukstest.Disk)(nil)
	_ luks.Locker = (*lukstest.Disk)(nil)
)

const sector = lukstest.SectorSize

func fill(sectors int, c byte) []byte { return bytes.Repeat([]byte{c}, sectors*sector) }

func write(t testing.TB, d *lukstest.Disk, at int64, p []byte) {
	t.Helper()
	if n, err := d.WriteAt(p, at); n != len(p) || err != nil {
		t.Fatalf("write: %d, %v", n, err)
	}
}

// letters gives the first byte of every sector.
func letters(d *lukstest.Disk) string {
	var s strings.Builder
	d.View(func(image []byte) {
		for at := 0; at < len(image); at += sector {
			s.WriteByte(max(image[at], '.'))
		}
	})
	return s.String()
}

// TestCrashes spells out every image of a small run.
func TestCrashes(t *testing.T) {
	d := lukstest.NewDisk(6 * sector)
	write(t, d, 0, fill(2, 'x'))
	d = d.Clone()
	write(t, d, 0, fill(2, 'a'))
	d.Sync()
	write(t, d, 2*sector, fill(2, 'b'))
	write(t, d, 4*sector, fill(1, 'c'))

	got := map[string]string{}
	for c := range d.Crashes(lukstest.Sampling{Subsets: 64}) {
		if _, known := got[letters(c.Disk)]; !known {
			got[letters(c.Disk)] = c.String()
		}
	}
	want := map[string]string{
		"xx....": "before op 1 of 4",
		"xa....": "during op 1 of 4, write of 1024 at 0, torn, with 1 of 2 sectors there (all but the first)",
		"ax....": "",
		"aa....": "",
		"aab...": "",
		"aa.b..": "",
		"aabb..": "after op 3 of 4, write of 1024 at 1024",
		"aabbc.": "after op 4 of 4, write of 512 at 2048",
		"aab.c.": "",
		"aa.bc.": "",
		"aa..c.": "up to op 4 of 4: op 3, write of 1024 at 1024, dropped",
	}
	for image, text := range want {
		if got[image] == "" || text != "" && got[image] != text {
			t.Errorf("%s: %q, want %q", image, got[image], text)
		}
		delete(got, image)
	}
	if len(got) > 0 {
		t.Errorf("images that no power cut leaves: %v", got)
	}
}

// TestOverlap: what was written last need not arrive last.
func TestOverlap(t *testing.T) {
	d := lukstest.NewDisk(2 * sector)
	write(t, d, 0, fill(1, 'a'))
	write(t, d, 0, fill(2, 'b'))
	text := ""
	for c := range d.Crashes(lukstest.Sampling{}) {
		if letters(c.Disk) == "ab" && strings.Contains(c.String(), "order") {
			text = c.String()
		}
	}
	if want := "up to op 2 of 2: in the order 2, 1"; text != want {
		t.Errorf("got %q, want %q", text, want)
	}
}

// TestSamples: too many writes for all combinations, and yet the same samples in
// every run; another seed gives others.
func TestSamples(t *testing.T) {
	d := lukstest.NewDisk(32 * sector)
	for i := range int64(16) {
		write(t, d, 2*i*sector, fill(2, 'a'+byte(i)))
	}
	run := func(s lukstest.Sampling) string {
		var all strings.Builder
		for c := range d.Crashes(s) {
			fmt.Fprintln(&all, letters(c.Disk), c)
		}
		return all.String()
	}
	first := run(lukstest.Sampling{})
	if again := run(lukstest.Sampling{}); again != first {
		t.Error("two runs differ")
	}
	if run(lukstest.Sampling{Seed: 1}) == first {
		t.Error("the seed changes nothing")
	}
	const prefixes, subsets, combinations = 1 + 16*2, 16 * 16, 64 * (1 + 1)
	if n := strings.Count(first, "\n"); n < prefixes+subsets+combinations-10 || n > prefixes+subsets+combinations {
		t.Errorf("%d images, want about %d", n, prefixes+subsets+combinations)
	}
	if n := strings.Count(run(lukstest.Sampling{Subsets: 4, Combinations: 8, Stride: 2}), "\n"); n > 1+16+16*4+8*(1+2) {
		t.Errorf("%d images of a sparse sampling", n)
	}
}

// TestCrashesModel: any run, any crash. Every sector holds what was durable or
// what a write since put there, every torn prefix is shown, and what is done to
// a crash's disk leaves no trace.
func TestCrashesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const sectors = 8
		d := lukstest.NewDisk(sectors * sector)
		windows := [][]string{nil} // since each sync: what each sector may hold
		open := func() {
			var w []string
			for _, c := range letters(d) {
				w = append(w, string(c))
			}
			windows[len(windows)-1] = w
		}
		open()
		prefixes := map[string]bool{letters(d): true}
		for op := range rapid.IntRange(0, 8).Draw(t, "ops") {
			if rapid.IntRange(0, 3).Draw(t, "sync") == 0 {
				d.Sync()
				windows = append(windows, nil)
				open()
				continue
			}
			at := rapid.IntRange(0, sectors-1).Draw(t, "at")
			n := rapid.IntRange(1, sectors-at).Draw(t, "n")
			for i := range n {
				torn := d.Clone()
				torn.WriteAt(fill(i+1, 'A'+byte(op)), int64(at)*sector)
				prefixes[letters(torn)] = true
				windows[len(windows)-1][at+i] += string('A' + rune(op))
			}
			d.WriteAt(fill(n, 'A'+byte(op)), int64(at)*sector)
		}
		for c := range d.Crashes(lukstest.Sampling{Combinations: 16}) {
			image := letters(c.Disk)
			delete(prefixes, image)
			if !slices.ContainsFunc(windows, func(w []string) bool {
				return !slices.ContainsFunc([]int{0, 1, 2, 3, 4, 5, 6, 7}, func(i int) bool { return !strings.Contains(w[i], image[i:i+1]) })
			}) {
				t.Errorf("%s, %s: not in %q", image, c, windows)
			}
			c.Disk.Fail(lukstest.Fault{After: 1, Sectors: 3})
			c.Disk.WriteAt(fill(sectors, '!'), 0)
			c.Disk.WriteAt(fill(sectors, '?'), 0)
		}
		if len(prefixes) > 0 {
			t.Errorf("not shown: %v", prefixes)
		}
	})
}

func TestCut(t *testing.T) {
	d := lukstest.NewDisk(4 * sector)
	write(t, d, 0, fill(1, 'a'))
	d.Sync()
	write(t, d, sector, fill(3, 'b'))
	for _, test := range []struct {
		ops, sectors int
		want         string
	}{{0, 0, "...."}, {0, 1, "a..."}, {1, 0, "a..."}, {2, 0, "a..."}, {2, 2, "abb."}, {2, 9, "abbb"}, {3, 0, "abbb"}, {9, 9, "abbb"}} {
		if c := d.Cut(test.ops, test.sectors); letters(c) != test.want || len(c.Ops()) != 0 {
			t.Errorf("%v: %s with %d operations", test, letters(c), len(c.Ops()))
		}
	}
	if letters(d) != "abbb" || len(d.Ops()) != 3 {
		t.Errorf("the disk changed: %s", letters(d))
	}
}

func TestFault(t *testing.T) {
	own := errors.New("own")
	tests := []struct {
		name  string
		fault lukstest.Fault
		want  string // the disk after it
		ops   int
		errs  [3]error // of write, sync, write
	}{
		{"first write", lukstest.Fault{}, ".bb.", 2, [3]error{lukstest.ErrFault, nil, nil}},
		{"first write in part", lukstest.Fault{Sectors: 1}, "abb.", 3, [3]error{lukstest.ErrFault, nil, nil}},
		{"sync", lukstest.Fault{After: 1, Err: own}, "abb.", 2, [3]error{nil, own, nil}},
		{"sync, silently", lukstest.Fault{After: 1, Silent: true}, "abb.", 2, [3]error{}},
		{"second write in part", lukstest.Fault{After: 2, Sectors: 1}, "ab..", 3, [3]error{nil, nil, lukstest.ErrFault}},
		{"second write, all of it", lukstest.Fault{After: 2, Sectors: -1}, "abb.", 3, [3]error{nil, nil, lukstest.ErrFault}},
		{"second write, more than all", lukstest.Fault{After: 2, Sectors: 9}, "abb.", 3, [3]error{nil, nil, lukstest.ErrFault}},
		{"second write, silently", lukstest.Fault{After: 2, Silent: true}, "a...", 2, [3]error{}},
		{"never", lukstest.Fault{After: 3}, "abb.", 3, [3]error{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := lukstest.NewDisk(4 * sector)
			d.Fail(test.fault)
			_, first := d.WriteAt(fill(1, 'a'), 0)
			second := d.Sync()
			_, third := d.WriteAt(fill(2, 'b'), sector)
			for i, err := range []error{first, second, third} {
				if !errors.Is(err, test.errs[i]) {
					t.Errorf("operation %d: %v, want %v", i+1, err, test.errs[i])
				}
			}
			if letters(d) != test.want || len(d.Ops()) != test.ops || d.Failed() == (test.name == "never") {
				t.Errorf("%s after %v, failed %v", letters(d), d.Ops(), d.Failed())
			}
			if letters(d.Cut(0, 0)) != "...." {
				t.Error("the record does not lead back")
			}
		})
	}
}

// TestUnaligned: tears fall on the borders of sectors, wherever a write begins.
func TestUnaligned(t *testing.T) {
	d := lukstest.NewDisk(3 * sector)
	d.Fail(lukstest.Fault{Sectors: 2})
	n, err := d.WriteAt(fill(2, 'a'), 100)
	if n != 2*sector-100 || err == nil {
		t.Errorf("%d, %v", n, err)
	}
	for c := range d.Clone().Crashes(lukstest.Sampling{}) {
		if !bytes.Equal(c.Disk.Bytes(), d.Bytes()) {
			t.Error("a clone has a past")
		}
	}
	lengths := map[int]bool{}
	for c := range d.Crashes(lukstest.Sampling{Subsets: -1}) {
		lengths[bytes.Count(c.Disk.Bytes(), []byte{'a'})] = true
	}
	if len(lengths) != 3 || !lengths[0] || !lengths[sector-100] || !lengths[2*sector-100] {
		t.Errorf("torn after %v bytes", lengths)
	}
}

func TestBounds(t *testing.T) {
	d := lukstest.NewDisk(sector)
	if _, err := d.WriteAt(fill(1, 'a'), 1); err == nil {
		t.Error("a write beyond the end succeeds")
	}
	if _, err := d.WriteAt(nil, -1); err == nil {
		t.Error("a write before the start succeeds")
	}
	for _, off := range []int64{-1, 1, sector, sector + 1} {
		if _, err := d.ReadAt(make([]byte, sector), off); err == nil {
			t.Errorf("a read at %d succeeds", off)
		}
	}
	if len(d.Ops()) != 0 {
		t.Errorf("recorded %v", d.Ops())
	}
}

func TestLock(t *testing.T) {
	d := lukstest.NewDisk(sector)
	one, _ := d.Lock(false)
	two, _ := d.Lock(false)
	got := make(chan func())
	go func() {
		release, _ := d.Lock(true)
		got <- release
	}()
	one()
	one() // twice does no harm
	select {
	case <-got:
		t.Fatal("locked exclusively beside a reader")
	default:
	}
	two()
	(<-got)()
}
