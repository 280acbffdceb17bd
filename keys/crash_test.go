package keys_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/secret"
)

// sampling keeps the images to a few hundred for each flow: package luks tries
// every sector of every write.
var sampling = lukstest.Sampling{Subsets: 6, Combinations: 16, Stride: 8}

// keySet names all keys that a header holds: its slots with their material, and
// its tokens. Two headers with the same set open with the same keys.
func keySet(t testing.TB, h *luks.Header) string {
	t.Helper()
	var all []string
	for _, k := range h.Keyslots() {
		sum, err := h.KeyslotSum(k.ID)
		if err != nil {
			t.Errorf("keyslot %d: %v", k.ID, err)
		}
		all = append(all, fmt.Sprintf("%d %x", k.ID, sum[:4]))
	}
	for _, token := range h.Tokens() {
		all = append(all, string(token.JSON))
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// condition says in what state a header is beside its keys.
func condition(t testing.TB, h *luks.Header) string {
	t.Helper()
	left, err := h.Leftovers()
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%s and %s, leftovers %v", h.Copies()[0].State, h.Copies()[1].State, len(left) > 0)
}

// TestPowerCutInApply cuts the power everywhere in a sync that does everything
// at once. Whatever is left opens with the old keys or the new, never with a
// mixture, and the next sync ends what was begun.
func TestPowerCutInApply(t *testing.T) {
	t.Parallel()
	sealer := keystest.NewSealer()
	stale := keystest.NewSealer()
	whole := format(t, static(0, "zero"), static(1, "one"), static(2, "two"), stale.Key(3))
	tamper(t, whole, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
		return []luks.Change{luks.AddKeyslot(4, seal(t, key, "four"), nil), luks.AddKeyslot(5, seal(t, key, "theirs"), nil)}
	})
	whole = whole.Clone()
	stale.Change(keystest.Stale)
	want := []keys.Key{static(0, "zero"), static(1, "new"), stale.Key(3), static(4, "four"), static(5, "five"), sealer.Key(6)}
	opts := keys.Options{Policy: keys.Policy{Adopt: true, Reseal: true}}
	const outcomeWant = "0 kept, 1 replaced, 2 removed, 3 replaced, 4 kept, 5 replaced, 6 added"

	before := keySet(t, read(t, whole))
	wantOutcome(t, reconcile(t, whole, opts, want...), outcomeWant)
	after := keySet(t, read(t, whole))
	wantOpens(t, whole, "zero:0 four:4 new:1 five:5", "zero", "one", "two", "four", "theirs", "new", "five")

	tried, images := map[string]int{}, 0
	for c := range whole.Crashes(sampling) {
		images++
		h, err := luks.Read(c.Disk)
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		state := "old"
		switch keySet(t, h) {
		case before:
		case after:
			state = "new"
		default:
			t.Errorf("%s: neither the old nor the new keys", c)
			continue
		}
		// The next sync is tried where something differs, and not for ever.
		class := state + ", " + condition(t, h)
		if tried[class]++; tried[class] > 1 {
			continue
		}
		d := c.Disk.Clone()
		r := reconcile(t, d, opts, want...)
		if state == "old" {
			wantOutcome(t, r, outcomeWant)
		} else {
			wantOutcome(t, r, "0 kept, 1 kept, 3 kept, 4 kept, 5 kept, 6 kept")
		}
		wantOpens(t, d, "zero:0 four:4 new:1 five:5", "zero", "one", "two", "four", "theirs", "new", "five")
		if t.Failed() {
			t.Fatalf("%s (%s)", c, class)
		}
	}
	t.Logf("%d images after power cuts: %v", images, tried)
	if images < 200 || len(tried) < 6 {
		t.Errorf("only %d images in %d conditions: the sampling has become too thin", images, len(tried))
	}
}

// TestPowerCutOneByOne is the same where the new keys find room only after the
// old ones are gone: each step is a commit, and what was to be kept opens always.
func TestPowerCutOneByOne(t *testing.T) {
	t.Parallel()
	whole := formatOn(t, layout(16<<10, 3), statics("zero", "one", "two")...)
	want := []keys.Key{static(0, "zero"), static(1, "new"), static(3, "three")}
	reconcile(t, whole, keys.Options{}, want...)

	steps := map[string]bool{} // the sets of keys after each commit
	for n := range whole.Ops() {
		steps[keySet(t, read(t, whole.Cut(n, 0)))] = true
	}
	if len(steps) != 4 { // the old one, and after a removal, a replacement and an addition
		t.Fatalf("%d sets of keys", len(steps))
	}
	tried := map[string]bool{}
	for c := range whole.Crashes(sampling) {
		h, err := luks.Read(c.Disk)
		if err != nil {
			t.Fatalf("%s: %v", c, err)
		}
		set := keySet(t, h)
		if !steps[set] {
			t.Errorf("%s: a mixture of keys", c)
			continue
		}
		class := set + condition(t, h)
		if tried[class] {
			continue
		}
		tried[class] = true
		d := c.Disk.Clone()
		wantOpens(t, d, "zero:0", "zero")
		reconcile(t, d, keys.Options{}, want...)
		wantOpens(t, d, "zero:0 new:1 three:3", "zero", "one", "two", "new", "three")
		if t.Failed() {
			t.Fatal(c)
		}
	}
	t.Logf("%d conditions after power cuts", len(tried))
}

// TestPowerCutInRotation: the only key is replaced, on the word of the operator
// alone.
func TestPowerCutInRotation(t *testing.T) {
	t.Parallel()
	whole := format(t, statics("old")...)
	opts := keys.Options{Passphrases: []*secret.Bytes{phrase("old")}}
	before := keySet(t, read(t, whole))
	reconcile(t, whole, opts, statics("new")...)
	after := keySet(t, read(t, whole))
	wantOpens(t, whole, "new:0", "old", "new")
	for c := range whole.Crashes(sampling) {
		if set := keySet(t, read(t, c.Disk)); set != before && set != after {
			t.Errorf("%s: neither the old nor the new key", c)
		}
	}
}

// TestPowerCutInFormat: after each cut there is the finished volume, or none and
// the format can be done again.
func TestPowerCutInFormat(t *testing.T) {
	t.Parallel()
	sealer := keystest.NewSealer()
	want := []keys.Key{static(0, "zero"), sealer.Key(1), static(2, "two")}
	l := layout(16<<10, 4)
	make := func(d *lukstest.Disk) error {
		key := luks.NewVolumeKey(keySize)
		defer key.Wipe()
		_, err := keys.Format(t.Context(), d, volume, want, key, l, light(keys.Options{}))
		return err
	}
	whole := newDisk(l)
	if err := make(whole); err != nil {
		t.Fatal(err)
	}
	finished := keySet(t, read(t, whole))
	tried, images, volumes := map[string]bool{}, 0, 0
	for c := range whole.Crashes(sampling) {
		images++
		class := "none"
		if h, err := luks.Read(c.Disk); err == nil {
			volumes++
			if keySet(t, h) != finished {
				t.Errorf("%s: a volume that is not the finished one", c)
			}
			class = condition(t, h)
		}
		if tried[class] {
			continue
		}
		tried[class] = true
		d := c.Disk.Clone()
		if class == "none" {
			if err := make(d); err != nil {
				t.Errorf("%s: formatting again: %v", c, err)
			}
		}
		reconcile(t, d, keys.Options{}, want...)
		wantOpens(t, d, "zero:0 two:2", "zero", "two")
	}
	t.Logf("%d images after power cuts, %d of them volumes: %v", images, volumes, tried)
	if volumes == 0 || volumes == images {
		t.Error("only one kind of image was seen")
	}
}

// TestFaultsInApply fails every single write and sync of a sync once: an error,
// and the old keys or the new.
func TestFaultsInApply(t *testing.T) {
	t.Parallel()
	start := format(t, statics("zero", "one", "two")...)
	want := []keys.Key{static(0, "zero"), static(1, "new"), static(3, "three")}
	before := keySet(t, read(t, start))
	whole := start.Clone()
	reconcile(t, whole, keys.Options{}, want...)
	for n, op := range whole.Ops() {
		d := start.Clone()
		d.Fail(lukstest.Fault{After: n, Sectors: len(op.Data) / 1024})
		s := open(t, d, keys.Options{}, want...)
		_, err := s.Apply(t.Context())
		s.Close()
		if err == nil {
			t.Errorf("with %s (%d of %d) failing: no error", op, n+1, len(whole.Ops()))
		}
		if keySet(t, read(t, d)) != before {
			wantOpens(t, d, "zero:0 new:1 three:3", "zero", "one", "two", "new", "three")
		}
		reconcile(t, d, keys.Options{}, want...)
		wantOpens(t, d, "zero:0 new:1 three:3", "zero", "one", "two", "new", "three")
	}
}
