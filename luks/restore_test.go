package luks_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
)

// restoreCase is a device, a backup and what restoring it means.
type restoreCase struct {
	name          string
	device        func(t *testing.T, d *disk) *disk // of what the volume is now
	revived, lost []int
	concerns      []string
	seq           uint64
}

func TestRestore(t *testing.T) {
	changed := func(changes ...luks.Change) func(*testing.T, *disk) *disk {
		return func(t *testing.T, d *disk) *disk {
			commit(t, mustRead(t, d), changes...)
			return d
		}
	}
	withKey := func(change func(t *testing.T, key *luks.VolumeKey) luks.Change) func(*testing.T, *disk) *disk {
		return func(t *testing.T, d *disk) *disk {
			h := mustRead(t, d)
			commit(t, h, change(t, unlock(t, h, "zero")))
			return d
		}
	}
	const noHeader = "the device holds no LUKS header; whatever lies in its first bytes would be overwritten"
	const otherKey = "the backup has another volume key, so the data on the device would be lost"
	const otherLayout = "the backup has another layout, so the header is overwritten in place and a power cut leaves neither; keep the backup until it is done"
	for _, tt := range []restoreCase{
		{name: "nothing changed", device: changed(), seq: 2},
		{name: "a slot removed", device: changed(luks.RemoveKeyslot(1)), revived: []int{1}, seq: 3},
		{name: "a slot added", device: withKey(func(t *testing.T, key *luks.VolumeKey) luks.Change {
			return luks.AddKeyslot(7, seal(t, key, "new"), nil)
		}), lost: []int{7}, seq: 3},
		{name: "a slot replaced", device: withKey(func(t *testing.T, key *luks.VolumeKey) luks.Change {
			return luks.ReplaceKeyslot(1, seal(t, key, "new"), nil)
		}), revived: []int{1}, lost: []int{1}, seq: 3},
		{name: "a priority changed", device: changed(luks.SetPriority(0, luks.PriorityPrefer)), seq: 3},
		{name: "label changed by another tool", device: func(_ *testing.T, d *disk) *disk {
			d.patchBoth(func(p []byte) { p[atLabel] = 'L' })
			return d
		}, seq: 2},
		{name: "key material damaged", device: func(_ *testing.T, d *disk) *disk {
			d.data[2*metadataSize+100] ^= 1
			return d
		}, revived: []int{0}, lost: []int{0}, seq: 2},
		{name: "erased", device: func(t *testing.T, d *disk) *disk {
			if _, err := mustRead(t, d).Erase(); err != nil {
				t.Fatal(err)
			}
			return d
		}, revived: []int{0, 1}, seq: 3},
		{name: "one copy torn", device: func(_ *testing.T, d *disk) *disk { d.data[atJSON] ^= 1; return d }, seq: 2},
		{name: "many changes since", device: func(t *testing.T, d *disk) *disk {
			for _, off := range d.offsets() {
				setSeq(d, off, 99, "label")
			}
			return d
		}, seq: 100},
		{name: "both copies torn", device: func(_ *testing.T, d *disk) *disk {
			d.data[atJSON] ^= 1
			d.data[metadataSize+atJSON] ^= 1
			return d
		}, revived: []int{0, 1}, seq: 2},
		{name: "both copies torn, of another volume", device: func(t *testing.T, d *disk) *disk {
			d.patchBoth(func(p []byte) { p[atUUID] = '5' })
			d.data[atJSON] ^= 1
			d.data[metadataSize+atJSON] ^= 1
			return d
		}, revived: []int{0, 1}, concerns: []string{
			"the device has a header that cannot be used (primary header: the checksum does not match: the copy was changed or torn (checksum)\n" +
				"secondary header: the checksum does not match: the copy was changed or torn (checksum)) and does not say that it is volume 4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b",
		}, seq: 2},
		{name: "zeros", device: func(*testing.T, *disk) *disk { return newDisk(deviceSize) }, revived: []int{0, 1}, concerns: []string{noHeader}, seq: 2},
		{name: "zeros, for a detached header", device: func(*testing.T, *disk) *disk { return newDisk(dataOffset) }, revived: []int{0, 1}, concerns: []string{
			noHeader, "the device ends at byte 1048576 and the backup's data begins at byte 1048576, which is right for a detached header only",
		}, seq: 2},
		{name: "LUKS1", device: func(_ *testing.T, d *disk) *disk {
			d.data[atVersion+1] = 1
			return d
		}, revived: []int{0, 1}, concerns: []string{"the device holds a LUKS1 volume, whose header would be overwritten"}, seq: 2},
		{name: "same volume, another UUID", device: func(_ *testing.T, d *disk) *disk {
			d.patchBoth(func(p []byte) { p[atUUID] = '5' })
			return d
		}, concerns: []string{"the backup is of volume 4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b, the device holds 5e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b"}, seq: 2},
		{name: "another volume, same UUID", device: func(t *testing.T, d *disk) *disk {
			format(t, d, luks.FormatOptions{UUID: "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b", MetadataSize: metadataSize, DataOffset: dataOffset}, "new")
			return d
		}, revived: []int{0, 1}, lost: []int{0}, concerns: []string{otherKey}, seq: 2},
		{name: "another layout", device: func(t *testing.T, _ *disk) *disk {
			d := newDisk(4 << 20)
			format(t, d, luks.FormatOptions{UUID: "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b", MetadataSize: 32 << 10, DataOffset: 2 << 20}, "new", "newer", "newest")
			for _, off := range d.offsets() {
				setSeq(d, off, 50, "label")
			}
			return d
		}, revived: []int{0, 1}, lost: []int{0, 1, 2}, concerns: []string{otherKey, otherLayout}, seq: 51},
	} {
		t.Run(tt.name, func(t *testing.T) { tryRestore(t, tt) })
	}
}

func tryRestore(t *testing.T, tt restoreCase) {
	volume, h := newVolume(t)
	backup := mustRead(t, deviceOf(t, h).untouchable(t))
	d := tt.device(t, volume)
	data := stream("data", len(d.data)-dataOffset)
	copy(d.data[dataOffset:], data)
	d.before = func(op operation) error {
		if op.kind != "read" {
			t.Errorf("planning does a %s", op.kind)
		}
		return nil
	}
	plan, err := luks.PlanRestore(d, backup)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(plan.Revived, tt.revived) || !slices.Equal(plan.Lost, tt.lost) {
		t.Errorf("revived %v, lost %v; want %v, %v", plan.Revived, plan.Lost, tt.revived, tt.lost)
	}
	if diff := cmp.Diff(tt.concerns, plan.Concerns); diff != "" {
		t.Errorf("concerns (-want +got):\n%s", diff)
	}
	if len(tt.concerns) > 0 {
		if h, err := plan.Run(false); h != nil || !errors.Is(err, luks.ErrNeedsForce) || err.Error() != "the restore needs force: "+tt.concerns[0] {
			t.Errorf("without force: %v", err)
		}
	}
	d.before = nil
	restored, err := plan.Run(len(tt.concerns) > 0)
	if err != nil {
		t.Fatal(err)
	}
	now := sound(t, d)
	if now.SeqID() != tt.seq || restored.SeqID() != tt.seq {
		t.Errorf("sequence %d, want %d", now.SeqID(), tt.seq)
	}
	if got := opens(t, now, "zero", "one"); got != "zero:0 one:1" {
		t.Errorf("opens %q", got)
	}
	if diff := cmp.Diff(sums(t, backup), sums(t, now)); diff != "" {
		t.Errorf("keyslots (-backup +restored):\n%s", diff)
	}
	if now.UUID() != backup.UUID() || now.Label() != "label" || tokens(now) != tokens(backup) {
		t.Errorf("UUID %s, label %q, tokens %s", now.UUID(), now.Label(), tokens(now))
	}
	if !bytes.Equal(d.data[dataOffset:], data) {
		t.Error("the data was touched")
	}
}

// sums tells keyslots apart by their keys.
func sums(t *testing.T, h *luks.Header) map[int]string {
	t.Helper()
	all := map[int]string{}
	for _, k := range h.Keyslots() {
		sum, err := h.KeyslotSum(k.ID)
		if err != nil {
			t.Fatal(err)
		}
		all[k.ID] = fmt.Sprintf("%x", sum)
	}
	return all
}

// TestRestoreOfErased: a backup without a keyslot is no way back.
func TestRestoreOfErased(t *testing.T) {
	d, h := newVolume(t)
	c := d.clone()
	if _, err := mustRead(t, c).Erase(); err != nil {
		t.Fatal(err)
	}
	plan, err := luks.PlanRestore(d, mustRead(t, deviceOf(t, mustRead(t, c))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Run(false); !errors.Is(err, luks.ErrNeedsForce) || !slices.Equal(plan.Concerns, []string{"the backup has no keyslot that opens the data"}) {
		t.Errorf("concerns %q, %v", plan.Concerns, err)
	}
	if got := opens(t, h, "zero", "one"); got != "zero:0 one:1" {
		t.Errorf("opens %q", got)
	}
}

func TestRestoreRefused(t *testing.T) {
	volume, h := newVolume(t)
	backup := mustRead(t, deviceOf(t, h))
	if _, err := luks.PlanRestore(newDisk(dataOffset-1), backup); err == nil || !strings.Contains(err.Error(), "the device of 1048575 bytes is too small for the backup's header of 1048576 bytes") {
		t.Errorf("a device that is too small: %v", err)
	}
	d := volume.clone()
	d.before = func(operation) error { return errBroken }
	if _, err := luks.PlanRestore(d, backup); !errors.Is(err, errBroken) {
		t.Errorf("a device that cannot be read: %v", err)
	}
}

// TestRestoreConflict: consent was given to a plan, and the plan was of a header
// that is there no more.
func TestRestoreConflict(t *testing.T) {
	volume, h := newVolume(t)
	backup := mustRead(t, deviceOf(t, h))
	larger := newDisk(4 << 20)
	format(t, larger, luks.FormatOptions{DataOffset: 2 << 20}, "new")
	for name, d := range map[string]*disk{"same layout": volume, "another layout": larger, "no header": newDisk(4 << 20)} {
		plan, err := luks.PlanRestore(d, backup)
		if err != nil {
			t.Fatal(err)
		}
		if plan.Current != nil {
			commit(t, plan.Current, luks.SetPriority(0, luks.PriorityPrefer))
		} else {
			format(t, d, luks.FormatOptions{DataOffset: 2 << 20}, "meanwhile")
		}
		was := bytes.Clone(d.data)
		if _, err := plan.Run(true); !errors.Is(err, luks.ErrConflict) || !bytes.Equal(was, d.data) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestRestoreNoRoom: where old and new key material do not fit side by side,
// nothing is written.
func TestRestoreNoRoom(t *testing.T) {
	d, h := newVolume(t)
	backup := mustRead(t, deviceOf(t, h))
	key := unlock(t, h, "zero")
	h = commit(t, h, luks.ReplaceKeyslot(0, seal(t, key, "a"), nil))
	commit(t, h, luks.ReplaceKeyslot(1, seal(t, key, "b"), nil))
	plan, err := luks.PlanRestore(d, backup)
	if err != nil {
		t.Fatal(err)
	}
	was := bytes.Clone(d.data)
	var room *luks.RoomError
	if _, err := plan.Run(true); !errors.As(err, &room) || room.What != luks.KeyslotsArea || !bytes.Equal(d.data, was) {
		t.Errorf("got %v", err)
	}
}

// TestRestoreOddSlots: slots that cannot be used are in backups too, and are
// restored as they are.
func TestRestoreOddSlots(t *testing.T) {
	for _, f := range slotFaults() {
		d := f.volume(t)
		backup := mustRead(t, deviceOf(t, mustRead(t, d)))
		plan, err := luks.PlanRestore(d, backup)
		if err != nil {
			t.Errorf("%s: %v", f.name, err)
			continue
		}
		if len(plan.Revived)+len(plan.Lost)+len(plan.Concerns) > 0 {
			t.Errorf("%s: revived %v, lost %v, concerns %v", f.name, plan.Revived, plan.Lost, plan.Concerns)
		}
	}
}
