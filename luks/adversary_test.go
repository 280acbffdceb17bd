package luks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
)

// TestKilledThenCut: a writer is killed before a sync, the next one goes on, and
// only then the power is cut. What the first left in memory must not let one sync
// tear both copies.
func TestKilledThenCut(t *testing.T) {
	token := func(text string) luks.Change {
		return luks.SetToken(5, json.RawMessage(fmt.Sprintf(`{"type":"x","keyslots":[],"n":%q}`, text)))
	}
	states := 0
	for after := 1; after <= 6; after++ {
		d := lukstest.DiskOf(goldenDisk(t).data)
		h := mustRead(t, d)
		d.Fail(lukstest.Fault{After: after})
		if _, err := h.Commit(token("first")); err == nil {
			break // every operation was cut
		}
		if _, err := mustRead(t, d).Commit(token("second")); err != nil {
			t.Fatal(err)
		}
		for c := range d.Crashes(lukstest.Sampling{Subsets: 200}) {
			states++
			if _, err := luks.Read(c.Disk); err != nil {
				t.Fatalf("killed at operation %d, then %s: %v", after, c.String(), err)
			}
		}
	}
	if states < 1000 {
		t.Errorf("only %d states were tried", states)
	}
}

// TestRestoreAsksForForce: what cannot be read may be another's volume, and a
// backup may hold no key at all.
func TestRestoreAsksForForce(t *testing.T) {
	_, h := newVolume(t)
	backup := func(h *luks.Header) *luks.Header {
		var b bytes.Buffer
		if err := h.Backup(&b); err != nil {
			t.Fatal(err)
		}
		d := newDisk(int64(b.Len()))
		copy(d.data, b.Bytes())
		return mustRead(t, d)
	}
	t.Run("another volume that only we cannot read", func(t *testing.T) {
		other := newDisk(deviceSize)
		format(t, other, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, "other")
		for _, at := range []int{0, metadataSize} {
			copy(other.data[at+atChecksumAlg:], "whirlpool\x00")
		}
		refusedUntouched(t, other, backup(h))
	})
	t.Run("our own volume, damaged", func(t *testing.T) {
		d, h := newVolume(t)
		b := backup(h)
		d.data[5000] ^= 1
		d.data[metadataSize+5000] ^= 1
		r, err := luks.PlanRestore(d, b)
		if err != nil || len(r.Concerns) != 0 {
			t.Fatalf("concerns %q, %v", r.Concerns, err)
		}
		if _, err := r.Run(false); err != nil {
			t.Error(err)
		}
	})
	t.Run("a backup without keys", func(t *testing.T) {
		d, h := newVolume(t)
		erased := d.clone()
		e, err := mustRead(t, erased).Erase()
		if err != nil {
			t.Fatal(err)
		}
		refusedUntouched(t, d, backup(e))
		if _, err := mustRead(t, d).Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{}); err != nil {
			t.Error(err)
		}
		_ = h
	})
}

func refusedUntouched(t *testing.T, d *disk, backup *luks.Header) {
	t.Helper()
	before := bytes.Clone(d.data)
	r, err := luks.PlanRestore(d, backup)
	if err != nil || len(r.Concerns) == 0 {
		t.Fatalf("concerns %q, %v", r.Concerns, err)
	}
	if _, err := r.Run(false); !errors.Is(err, luks.ErrNeedsForce) {
		t.Errorf("error %v", err)
	}
	if !bytes.Equal(before, d.data) {
		t.Error("the device was written")
	}
}

// TestRepairKnowsItsLimits: room that looks unused may belong to a feature that
// the header requires and we do not know.
func TestRepairKnowsItsLimits(t *testing.T) {
	d := goldenDisk(t)
	d.edit(t, edits{"config.requirements": `{"mandatory":["future-thing"]}`})
	copy(d.data[2*metadataSize+2*areaBytes:], "what the future thing keeps")
	before := bytes.Clone(d.data)
	if _, done, err := luks.Repair(d); err != nil || len(done) != 0 {
		t.Errorf("done %q, %v", done, err)
	}
	if !bytes.Equal(before, d.data) {
		t.Error("the device was written")
	}
}

// TestReplacedMeanwhile: a slot that was replaced after the header was read must
// not look like a wrong passphrase.
func TestReplacedMeanwhile(t *testing.T) {
	d := goldenDisk(t)
	old := mustRead(t, d)
	k := unlock(t, old, "zero")
	commit(t, old, luks.ReplaceKeyslot(1, seal(t, k, "one"), nil))
	if _, err := old.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{Slots: []int{1}}); !errors.Is(err, luks.ErrConflict) {
		t.Errorf("the slot that was replaced: %v", err)
	}
	if _, err := old.Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{Slots: []int{0}}); err != nil {
		t.Errorf("the slot that was not: %v", err)
	}
}

// TestTwoRemovers: each proved the slot that the other removes.
func TestTwoRemovers(t *testing.T) {
	d, h := newVolume(t)
	commit(t, h, luks.AddKeyslot(2, seal(t, unlock(t, h, "zero"), "lost passphrase"), nil))
	a, b := mustRead(t, d), mustRead(t, d)
	if _, err := a.Commit(luks.ExpectKeyslot(1), luks.RemoveKeyslot(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Commit(luks.ExpectKeyslot(0), luks.RemoveKeyslot(1)); !errors.Is(err, luks.ErrConflict) {
		t.Errorf("error %v", err)
	}
	if _, err := mustRead(t, d).Unlock(t.Context(), phrase("one"), luks.UnlockOptions{}); err != nil {
		t.Error(err)
	}
}

// TestSwitchFails: an error while the header is switched says that the change may
// be in force, and shows the header that is.
func TestSwitchFails(t *testing.T) {
	uncertain := 0
	for after := 0; after < 8; after++ {
		d := lukstest.DiskOf(goldenDisk(t).data)
		h := mustRead(t, d)
		d.Fail(lukstest.Fault{After: after})
		now, err := h.Commit(luks.RemoveKeyslot(0))
		there := len(mustRead(t, d).Keyslots())
		switch {
		case err == nil:
			continue
		case errors.Is(err, luks.ErrUncertain):
			uncertain++
			if now == nil || len(now.Keyslots()) != there {
				t.Errorf("operation %d: the header returned is not the one that is there", after)
			}
		case !errors.Is(err, luks.ErrNotWiped) && there != len(h.Keyslots()):
			t.Errorf("operation %d: the change is in force and the error does not say so: %v", after, err)
		}
	}
	if uncertain == 0 {
		t.Error("no failure was uncertain")
	}
}

// TestFormatHoldsTheProof: what was proven empty before the keys were derived may
// not be any more.
func TestFormatHoldsTheProof(t *testing.T) {
	d := newDisk(deviceSize)
	key := luks.NewVolumeKey(32)
	sealed := seal(t, key, "late")
	format(t, d, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, "early")
	before := bytes.Clone(d.data)
	options := luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset, Empty: func(luks.Device) error { return nil }}
	if _, err := luks.Format(d, key, options, luks.AddKeyslot(0, sealed, nil)); !errors.Is(err, luks.ErrNotEmpty) {
		t.Errorf("over a volume: %v", err)
	}
	no := errors.New("not empty")
	options.Empty = func(luks.Device) error { return no }
	if _, err := luks.Format(newDisk(deviceSize), key, options, luks.AddKeyslot(0, sealed, nil)); !errors.Is(err, no) {
		t.Errorf("refused by the caller: %v", err)
	}
	if !bytes.Equal(before, d.data) {
		t.Error("the device was written")
	}
}
