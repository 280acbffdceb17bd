package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/secret"
)

// TestOneByOne is about keyslots areas that cannot hold the old and the new keys
// at once.
func TestOneByOne(t *testing.T) {
	zero := keys.Options{Passphrases: []*secret.Bytes{phrase("zero")}}
	tests := []struct {
		name    string
		areas   int
		have    []keys.Key
		want    []keys.Key
		opts    keys.Options
		outcome string
		opens   string
		reasons map[int]string
		next    string // outcome of the next sync, where it has something to do
	}{
		{
			name: "a removal makes room for a replacement", areas: 3,
			have: statics("zero", "one", "two"), want: statics("zero", "new"),
			outcome: "0 kept, 1 replaced, 2 removed", opens: "zero:0 new:1",
		},
		{
			name: "a removal makes room for an addition", areas: 2,
			have: statics("zero", "one"), want: []keys.Key{static(0, "zero"), static(2, "two")},
			outcome: "0 kept, 1 removed, 2 added", opens: "zero:0 two:2",
		},
		{
			name: "one free area is enough for any number of replacements", areas: 4,
			have: statics("zero", "one", "two"), want: statics("zero", "new", "other"),
			outcome: "0 kept, 1 replaced, 2 replaced", opens: "zero:0 new:1 other:2",
		},
		{
			name: "replacements before additions", areas: 3,
			have: statics("zero", "one"), want: statics("zero", "new", "two"),
			outcome: "0 kept, 1 replaced, 2 added", opens: "zero:0 two:2 new:1",
		},
		{
			name: "not all additions fit", areas: 3,
			have: statics("zero"), want: statics("zero", "one", "two", "new"),
			outcome: "0 kept, 1 added, 2 added, 3 blocked", opens: "zero:0 one:1 two:2",
			reasons: map[int]string{3: "no room in the keyslots area"},
		},
		{
			name: "nothing fits", areas: 2,
			have: statics("zero", "one"), want: statics("zero", "new", "two"),
			outcome: "0 kept, 1 blocked, 2 blocked", opens: "zero:0 one:1",
			reasons: map[int]string{1: "no room in the keyslots area", 2: "no room in the keyslots area"},
		},
		{
			name: "nothing fits, and no configured key opens", areas: 2, opts: zero,
			have: statics("zero", "one"), want: []keys.Key{static(2, "two")},
			outcome: "0 blocked, 1 blocked, 2 blocked", opens: "zero:0 one:1",
			reasons: map[int]string{0: "not removed: no configured key opens the volume, and none found room", 2: "no room in the keyslots area"},
		},
		{
			name: "all keys are new, in the place of the old", areas: 3, opts: zero,
			have: statics("zero", "one"), want: statics("new", "other", "two"),
			outcome: "0 replaced, 1 replaced, 2 added", opens: "two:2 new:0 other:1",
		},
		{
			name: "all keys are new, beside the old", areas: 3, opts: zero,
			have: statics("zero", "one"), want: []keys.Key{static(2, "two"), static(3, "new")},
			outcome: "0 blocked, 1 blocked, 2 added, 3 blocked", opens: "zero:0 one:1 two:2",
			reasons: map[int]string{0: "not removed: run again, now that the new keys are in place", 3: "no room"},
			next:    "0 removed, 1 removed, 2 kept, 3 added",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := formatOn(t, layout(16<<10, test.areas), test.have...)
			before := read(t, d).SeqID()
			r := reconcile(t, d, test.opts, test.want...)
			wantOutcome(t, r, test.outcome)
			wantOpens(t, d, test.opens, "zero", "one", "two", "new", "other")
			for slot, text := range test.reasons {
				wantReason(t, r, slot, text)
			}
			if changed := strings.Contains(test.outcome, "ed,") && (strings.Contains(test.outcome, "added") || strings.Contains(test.outcome, "replaced")); r.Changed != changed || (r.SeqID > before) != changed {
				t.Errorf("changed %v, seqid %d to %d", r.Changed, before, r.SeqID)
			}
			if test.next != "" {
				r := reconcile(t, d, keys.Options{}, test.want...)
				wantOutcome(t, r, test.next)
			}
			if !strings.HasPrefix(test.outcome, "0 blocked") || test.next != "" {
				again(t, d, test.want...)
			}
		})
	}
}

// padded is a sealed key with a long token.
type padded struct {
	word string
	pad  int
}

func (p padded) key(slot int) keys.Key {
	return keys.Key{Slot: slot, Kind: "padded", Provider: p, Tokens: []string{"padded"}}
}

func (p padded) Enroll(context.Context, keys.Request) (*secret.Bytes, json.RawMessage, error) {
	token, err := json.Marshal(map[string]any{"type": "padded", "keyslots": []string{}, "pad": strings.Repeat("x", p.pad)})
	return phrase(p.word), token, err
}

func (p padded) Recover(context.Context, keys.Request, json.RawMessage) (*secret.Bytes, error) {
	return phrase(p.word), nil
}

// TestJSONFull: a change that does not fit the JSON area is refused as a whole,
// before anything is written.
func TestJSONFull(t *testing.T) {
	isFull := func(t *testing.T, err error) {
		t.Helper()
		var room *luks.RoomError
		if !errors.As(err, &room) || room.What != luks.JSONArea || !strings.Contains(err.Error(), "nothing was written") {
			t.Errorf("error %v, must be about the JSON area", err)
		}
	}
	t.Run("sync", func(t *testing.T) {
		d := format(t, static(0, "zero"), padded{"one", 5000}.key(1), static(2, "two"))
		before := string(d.Bytes())
		s := open(t, d, keys.Options{}, static(0, "zero"), padded{"one", 5000}.key(1), padded{"three", 6000}.key(3), static(4, "four"))
		r, err := s.Apply(t.Context())
		isFull(t, err)
		if r != nil || string(d.Bytes()) != before || writes(d) > 0 {
			t.Errorf("report %v; %d writes to the disk", r, writes(d))
		}
	})
	t.Run("adoption of a full header", func(t *testing.T) {
		d := foreign(t, layout(16<<10, 4), "zero")
		tamper(t, d, "zero", func(h *luks.Header, _ *luks.VolumeKey) []luks.Change {
			used, total := h.JSONRoom()
			return []luks.Change{luks.SetToken(7, json.RawMessage(`{"type":"other","keyslots":[],"pad":"`+strings.Repeat("x", total-used-60)+`"}`))}
		})
		d = d.Clone()
		s := open(t, d, keys.Options{}, statics("zero")...)
		r, err := s.Apply(t.Context())
		isFull(t, err)
		if r != nil || writes(d) > 0 {
			t.Errorf("report %v; %d writes to the disk", r, writes(d))
		}
	})
	t.Run("format", func(t *testing.T) {
		l := layout(16<<10, 8)
		d := newDisk(l)
		key := luks.NewVolumeKey(keySize)
		defer key.Wipe()
		_, err := keys.Format(t.Context(), d, volume, []keys.Key{static(0, "zero"), padded{"one", 5000}.key(1), padded{"two", 7000}.key(2)}, key, l, light(keys.Options{}))
		isFull(t, err)
		if writes(d) > 0 {
			t.Errorf("%d writes to the disk", writes(d))
		}
	})
}

// TestRoomFor32: a volume as it is formatted by default has room for 32 sealed
// keys, and for changing every one of them at once.
func TestRoomFor32(t *testing.T) {
	s := keystest.NewSealer()
	want := sealedKeys(s, 32)
	l := luks.FormatOptions{UUID: uuid}
	d := lukstest.NewDisk(luks.DefaultDataOffset + 4096)
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer key.Wipe()
	h, err := keys.Format(t.Context(), d, volume, append(want[:31:31], static(31, "last")), key, l, light(keys.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	used, total := h.JSONRoom()
	t.Logf("%d of %d bytes of JSON", used, total)
	s.Change(keystest.Stale)
	want[31] = static(31, "last")
	seq := h.SeqID()
	r := reconcile(t, d, keys.Options{Policy: keys.Policy{Reseal: true}}, want...)
	if strings.Count(outcome(r), "replaced") != 31 || r.SeqID != seq+1 {
		t.Errorf("in %d commits: %s", r.SeqID-seq, outcome(r))
	}
}

// TestNotWiped: a change that is committed, but whose old key material could not
// be overwritten, is an error with a report.
func TestNotWiped(t *testing.T) {
	for _, areas := range []int{8, 3} {
		t.Run(map[int]string{8: "in one commit", 3: "one by one"}[areas], func(t *testing.T) {
			d := formatOn(t, layout(16<<10, areas), statics("zero", "one", "two")...)
			probe := d.Clone()
			want := []keys.Key{static(0, "zero"), static(1, "new"), static(4, "four")}
			reconcile(t, probe, keys.Options{}, want...)
			at := firstWipe(t, probe)
			d.Fail(lukstest.Fault{After: at})
			s := open(t, d, keys.Options{}, want...)
			r, err := s.Apply(t.Context())
			if !d.Failed() {
				t.Fatal("the fault was not met")
			}
			if !errors.Is(err, luks.ErrNotWiped) || r == nil {
				t.Fatalf("Apply gives %v, %v", r, err)
			}
			wantOutcome(t, r, "0 kept, 1 replaced, 2 removed, 4 added")
			wantOpens(t, d, "zero:0 new:1 four:4", "zero", "one", "two", "new", "four")
			s.Close()
			if areas == 8 {
				reconcile(t, d, keys.Options{}, append(want, static(5, "five"))...) // the next change wipes
			}
		})
	}
}

// firstWipe finds the first write of zeros in what was done to a disk.
func firstWipe(t *testing.T, d *lukstest.Disk) int {
	t.Helper()
	for i, op := range d.Ops() {
		if !op.Sync && op.Offset >= 32<<10 && strings.Trim(string(op.Data), "\x00") == "" {
			return i
		}
	}
	t.Fatal("nothing was wiped")
	return 0
}

// TestOneByOneBroken: where the device fails between two commits the report says
// what was done and what was not, as the header has it.
func TestOneByOneBroken(t *testing.T) {
	t.Parallel()
	start := formatOn(t, layout(16<<10, 3), statics("zero", "one", "two")...)
	want := []keys.Key{static(0, "zero"), static(1, "new"), static(4, "four")}
	whole := start.Clone()
	reconcile(t, whole, keys.Options{}, want...)
	seen := map[string]bool{}
	for n := range whole.Ops() {
		d := start.Clone()
		d.Fail(lukstest.Fault{After: n})
		s := open(t, d, keys.Options{}, want...)
		r, err := s.Apply(t.Context())
		s.Close()
		if !errors.Is(err, lukstest.ErrFault) {
			t.Errorf("with operation %d failing: error %v", n+1, err)
		}
		h := read(t, d)
		if h.SeqID() == 1 {
			continue
		}
		if r == nil {
			t.Errorf("with operation %d failing: the header was changed, and there is no report: %v", n+1, err)
			continue
		}
		seen[outcome(r)] = true
		for slot, there := range map[int]func(keys.Outcome) bool{
			2: func(o keys.Outcome) bool { return o != keys.Removed },
			4: func(o keys.Outcome) bool { return o == keys.Added },
		} {
			i := slices.IndexFunc(r.Slots, func(s keys.Result) bool { return s.Slot == slot })
			if _, ok := h.Keyslot(slot); ok != there(r.Slots[i].Outcome) && !errors.Is(err, luks.ErrUncertain) {
				t.Errorf("with operation %d failing: slot %d is there: %v, the report says %s (%v)", n+1, slot, ok, r.Slots[i].Outcome, err)
			}
		}
		reconcile(t, d, keys.Options{}, want...)
		wantOpens(t, d, "zero:0 new:1 four:4", "zero", "one", "two", "new", "four")
	}
	for _, o := range []string{"0 kept, 1 blocked, 2 removed, 4 blocked", "0 kept, 1 replaced, 2 removed, 4 blocked", "0 kept, 1 replaced, 2 removed, 4 added"} {
		if !seen[o] {
			t.Errorf("no report says %q; all are %v", o, seen)
		}
	}
}
