package luks_test

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/probe/marker"
)

// What is tried on one image in so many: writing is slow when the race detector
// looks on.
const (
	cutAgain  = 8  // an unfinished operation once more
	cutCommit = 32 // the next change
	cutRepair = 3  // a repair, of images in a row with the same header
)

// cutJudge holds what an operation left, whole or cut, against what it was to
// do.
type cutJudge struct {
	*cutVolume
	test          cutCase
	before, after cutOutcome
	faults        bool // not a power cut: another run, with salts of its own
	bad           int
	last          cutRead
	row           int // images since the header was another one
}

// cutRead is what reading a header gave.
type cutRead struct {
	disk   *lukstest.Disk
	sum    uint64
	header *luks.Header
	doc    string
	err    error
}

func (j *cutJudge) fail(c any, format string, args ...any) {
	j.Helper()
	j.bad++
	j.Errorf("%v:\n\t%s", c, fmt.Sprintf(format, args...))
}

// judge looks at the n-th image. It changes the disk.
func (j *cutJudge) judge(d *lukstest.Disk, n int, c any) {
	j.Helper()
	h, doc, err := j.header(d)
	fresh := doc != "" && (doc == j.after.doc || j.faults && j.test.format && doc != j.before.doc)
	between := doc != "" && doc == j.between.doc
	switch {
	case err != nil && !j.test.again:
		j.fail(c, "no header can be read: %v", err)
	case !fresh && !between && doc != j.before.doc && err == nil:
		j.fail(c, "the header is neither the old nor the new one: %s", doc)
	case !fresh && j.test.again:
		j.unfinished(d, n, c)
	default:
		want := j.before
		if fresh {
			want = j.after
		} else if between {
			want = j.between
		}
		j.opens(h, d, n, c, want)
	}
}

// header reads the header. Reading looks at nothing else, so that in a row of
// images with the same header it is done once.
func (j *cutJudge) header(d *lukstest.Disk) (h *luks.Header, doc string, err error) {
	reach := 2 * j.metadata
	if j.test.again {
		reach = 2 * (64 << 10) // there may be another layout
	}
	var sum uint64
	d.View(func(image []byte) { sum = maphash.Bytes(j.seed, image[:reach]) })
	if j.row++; j.last.disk != d || j.last.sum != sum {
		j.row, j.last = 0, cutRead{disk: d, sum: sum}
		if j.last.header, j.last.err = luks.Read(d); j.last.err == nil {
			j.last.doc = string(j.last.header.JSON())
		}
	}
	return j.last.header, j.last.doc, j.last.err
}

// unfinished is about an image that holds no new header yet, of an operation
// that may leave one that opens nothing: it can be done again.
func (j *cutJudge) unfinished(d *lukstest.Disk, n int, c any) {
	j.Helper()
	d.View(func(image []byte) {
		if _, interrupted := marker.Decode(image); j.test.format && !interrupted && !bytes.Equal(image, j.start) {
			j.fail(c, "neither as it was, nor a volume, nor marked as an interrupted format")
		}
	})
	if n%cutAgain != 0 {
		return
	}
	if err := j.test.run(j.cutVolume, d); err != nil {
		j.fail(c, "done again: %v", err)
		return
	}
	h := j.read(d)
	if err := j.unclean(h, d); err != nil {
		j.fail(c, "done again: %v", err)
	}
	if keys := j.keys(h, d); keys != j.after.keys {
		j.fail(c, "done again: opens with %s, want %s", keys, j.after.keys)
	}
}

// opens is about an image with the old or the new header.
func (j *cutJudge) opens(h *luks.Header, d *lukstest.Disk, n int, c any, want cutOutcome) {
	j.Helper()
	if keys := j.keys(h, d); keys != want.keys {
		j.fail(c, "opens with %q, want %q; the old set is %q, the new one %q", keys, want.keys, j.before.keys, j.after.keys)
		return
	}
	j.named(h, d, c)
	if n%cutCommit == 0 {
		j.nextWriter(d.Clone(), c, want)
	}
	if j.row%cutRepair != 0 {
		return
	}
	repaired, done, err := luks.Repair(d)
	if err == nil {
		err = errors.Join(j.unclean(repaired, d), j.outside(d))
	}
	switch {
	case err != nil:
		j.fail(c, "after a repair (%s): %v", strings.Join(done, "; "), err)
	case string(repaired.JSON()) != j.last.doc || j.keys(repaired, d) != want.keys:
		j.fail(c, "a repair changed the header: %s", repaired.JSON())
	}
}

// named asserts that what is wrong with the image can be found, and that nothing
// else is.
func (j *cutJudge) named(h *luks.Header, d *lukstest.Disk, c any) {
	j.Helper()
	left, found := j.findings(h)
	// Where there was something to find before, an early step cleans that up.
	whole := !found && j.before.image != nil && j.between.doc == "" && !j.faults
	d.View(func(image []byte) {
		if whole && !bytes.Equal(image, j.before.image) && !bytes.Equal(image, j.after.image) {
			j.fail(c, "there is nothing to find, and it is neither the old nor the new volume")
		}
		for i, found := range h.Copies() {
			if want := j.copyStates(h, image[int64(i)*h.MetadataSize():][:h.MetadataSize()]); !slices.Contains(want, found.State) {
				j.fail(c, "the %s copy is called %s, want %v", found.Name, found.State, want)
			}
		}
		for _, p := range j.unused(h) {
			at := p.Offset
			for len(left) > 0 && left[0].Offset < p.Offset+p.Size {
				if left[0].Offset < at || left[0].Offset+left[0].Size > p.Offset+p.Size {
					j.fail(c, "%d bytes at %d are called a leftover and are in use", left[0].Size, left[0].Offset)
					return
				}
				if !zeros(image[at:left[0].Offset]) {
					j.fail(c, "old material at %d is not called a leftover", at)
				}
				at, left = left[0].Offset+left[0].Size, left[1:]
			}
			if !zeros(image[at : p.Offset+p.Size]) {
				j.fail(c, "old material at %d is not called a leftover", at)
			}
		}
	})
	if len(left) > 0 {
		j.fail(c, "leftovers outside of the keyslots area: %v", left)
	}
}

// copyStates says what a copy with these bytes may be called, going by the
// copies that were written.
func (j *cutJudge) copyStates(h *luks.Header, image []byte) []luks.CopyState {
	known, whole := j.copies[maphash.Bytes(j.seed, image)]
	switch {
	case !whole:
		return []luks.CopyState{luks.CopyBad, luks.CopyAbsent}
	case known.number > h.SeqID():
		return nil // it should be in force
	case known.number == h.SeqID() && known.doc == j.last.doc:
		return []luks.CopyState{luks.CopyGood}
	}
	return []luks.CopyState{luks.CopyStale}
}

// nextWriter commits a change to the image.
func (j *cutJudge) nextWriter(d *lukstest.Disk, c any, want cutOutcome) {
	j.Helper()
	h := j.read(d)
	change, keys := luks.AddKeyslot(0, j.next(h), nil), "0:zoe|"
	if slots := h.Keyslots(); len(slots) > 0 {
		change = luks.ReplaceKeyslot(slots[0].ID, j.next(h), nil)
		_, rest, _ := strings.Cut(want.keys, "|")
		keys = fmt.Sprintf("%d:zoe|%s", slots[0].ID, rest)
	}
	next, err := h.Commit(change)
	if err == nil {
		err = errors.Join(j.unclean(next, d), j.outside(d))
	}
	switch {
	case err != nil:
		j.fail(c, "the next change: %v", err)
	case j.keys(next, d) != keys:
		j.fail(c, "the next change: opens with %q, want %q", j.keys(next, d), keys)
	}
}

// outside names a write beyond the header.
func (v *cutVolume) outside(d *lukstest.Disk) error {
	for _, op := range d.Ops() {
		if op.Offset+int64(len(op.Data)) > d.Size()-cutDataSize {
			return fmt.Errorf("%s: in the data", op)
		}
	}
	return nil
}

// fault runs the operation on a disk whose operation n goes wrong.
func (j *cutJudge) fault(f lukstest.Fault, op lukstest.Op) {
	j.Helper()
	d := j.disk.Clone()
	d.Fail(f)
	err := j.test.run(j.cutVolume, d)
	c := fmt.Sprintf("op %d, %s, %+v, error %v", f.After+1, op, f, err)
	j.learn(d)
	h, readErr := luks.Read(d)
	isNew := readErr == nil && j.keys(h, d) == j.after.keys && (j.test.format || string(h.JSON()) == j.after.doc)
	isOld := readErr == nil && string(h.JSON()) == j.before.doc
	switch {
	case !d.Failed():
		j.fail(c, "the fault was not met")
	case !f.Silent && err == nil:
		j.fail(c, "the fault was not reported")
	case err == nil && !isNew:
		j.fail(c, "success is reported, and the change is not there (%v)", readErr)
	case err == nil && j.unclean(h, d) != nil:
		j.fail(c, "success is reported: %v", j.unclean(h, d))
	case errors.Is(err, luks.ErrNotWiped) && !isNew:
		j.fail(c, "the change is called committed, and is not there (%v)", readErr)
	case err != nil && isNew && !isOld && !j.test.again && !errors.Is(err, luks.ErrNotWiped) && !errors.Is(err, luks.ErrUncertain):
		j.fail(c, "the change is in force, and the error does not say so")
	}
	j.judge(d, 0, c)
}
