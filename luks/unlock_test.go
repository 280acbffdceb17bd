package luks_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

func TestUnlockKinds(t *testing.T) {
	for _, cost := range []kdf.Cost{
		{Kind: kdf.PBKDF2, Hash: "sha1", Iterations: 1000},
		{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1001},
		{Kind: kdf.PBKDF2, Hash: "sha512", Iterations: 1},
		{Kind: kdf.PBKDF2, Hash: "blake2b-512", Iterations: 1000},
		{Kind: kdf.Argon2i, Time: 4, MemoryKiB: 32, CPUs: 1},
		{Kind: kdf.Argon2id, Time: 1, MemoryKiB: 8, CPUs: 1},
		{Kind: kdf.Argon2id, Time: 1, MemoryKiB: 64, CPUs: 4},
		{Kind: kdf.Argon2id, Time: 1, MemoryKiB: 16 << 10, CPUs: 2},
		kdf.Light(),
	} {
		t.Run(cost.String(), func(t *testing.T) {
			d := newDisk(deviceSize)
			key := luks.NewVolumeKey(64)
			defer key.Wipe()
			sealed, err := key.Seal(t.Context(), phrase("word"), cost)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(5, sealed, nil)); err != nil {
				t.Fatal(err)
			}
			h := sound(t, d)
			if k, _ := h.Keyslot(5); k.KDF.Cost != cost {
				t.Errorf("stored as %v", k.KDF.Cost)
			}
			got := unlock(t, h, "word")
			if got.Slot() != 5 || !got.Bytes().Equal(key.Bytes()) {
				t.Errorf("slot %d gave another key", got.Slot())
			}
			if got := opens(t, h, "wor", "Word", "word ", "xword", ""); got != "" {
				t.Errorf("opens %q", got)
			}
		})
	}
}

// volumeOf makes slots 0, 1, ... which all have the passphrase "word" and are
// told apart by their iterations, 1000 + slot.
func volumeOf(t *testing.T, slots int) *luks.Header {
	t.Helper()
	d, key := newDisk(4<<20), luks.NewVolumeKey(64)
	defer key.Wipe()
	var changes []luks.Change
	for i := range slots {
		sealed, err := key.Seal(t.Context(), phrase("word"), kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000 + uint32(i)})
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, luks.AddKeyslot(i, sealed, nil))
	}
	h, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 3 << 20}, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// trials unlocks with a wrong passphrase and returns the slots that were tried.
func trials(t *testing.T, h *luks.Header, opts luks.UnlockOptions) (slots []int, err error) {
	t.Helper()
	ctx := kdf.WithTrace(t.Context(), kdf.Trace{Start: func(c kdf.Cost) { slots = append(slots, int(c.Iterations)-1000) }})
	key, err := h.Unlock(ctx, phrase("wrong"), opts)
	if key != nil || err == nil {
		t.Fatal("a wrong passphrase opens")
	}
	return slots, err
}

func TestTrialOrder(t *testing.T) {
	h := volumeOf(t, 6)
	tests := []struct {
		name    string
		changes []luks.Change
		slots   []int
		want    []int
		text    string
	}{
		{name: "as the document has them", want: []int{0, 1, 2, 3, 4, 5}, text: "(tried 0, 1, 2, 3, 4, 5)"},
		{name: "preferred first", changes: []luks.Change{luks.SetPriority(4, luks.PriorityPrefer), luks.SetPriority(2, luks.PriorityPrefer)}, want: []int{2, 4, 0, 1, 3, 5}, text: "(tried 2, 4, 0, 1, 3, 5)"},
		{name: "ignored never", changes: []luks.Change{luks.SetPriority(0, luks.PriorityIgnore), luks.SetPriority(5, luks.PriorityIgnore)}, want: []int{1, 2, 3, 4}, text: "(tried 1, 2, 3, 4)"},
		{name: "preferred, normal, ignored", changes: []luks.Change{luks.SetPriority(0, luks.PriorityIgnore), luks.SetPriority(5, luks.PriorityPrefer)}, want: []int{5, 1, 2, 3, 4}, text: "(tried 5, 1, 2, 3, 4)"},
		{name: "normal again", changes: []luks.Change{luks.SetPriority(5, luks.PriorityPrefer), luks.SetPriority(5, luks.PriorityNormal)}, want: []int{0, 1, 2, 3, 4, 5}, text: "(tried 0, 1, 2, 3, 4, 5)"},
		{name: "named, in that order", slots: []int{4, 1}, want: []int{4, 1}, text: "(tried 4, 1)"},
		{name: "an ignored one named", changes: []luks.Change{luks.SetPriority(3, luks.PriorityIgnore)}, slots: []int{3}, want: []int{3}, text: "(tried 3)"},
		{name: "one that is not there named", slots: []int{9, 2}, want: []int{2}, text: "(tried 2; not tried: keyslot 9 is not in use)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, all := h, slices.Collect(func(yield func(luks.Change) bool) {
				for i := range 6 {
					yield(luks.SetPriority(i, luks.PriorityNormal))
				}
			})
			h = commit(t, mustRead(t, deviceOf(t, h)), append(all, tt.changes...)...)
			got, err := trials(t, h, luks.UnlockOptions{Slots: tt.slots})
			if !slices.Equal(got, tt.want) {
				t.Errorf("tried %v, want %v", got, tt.want)
			}
			if !errors.Is(err, luks.ErrWrongPassphrase) || err.Error() != "no keyslot opens with this passphrase "+tt.text {
				t.Errorf("error %q, want it to end in %q", err, tt.text)
			}
		})
	}
}

// TestOddPriorities: cryptsetup loads a priority that means nothing, and tries
// such a slot when it is named.
func TestOddPriorities(t *testing.T) {
	for _, value := range []string{"0", "3", "7", "-1", "2.0", `"2"`, "null", "[2]", "{}"} {
		d := goldenDisk(t)
		d.edit(t, edits{"keyslots.0.priority": value})
		h := mustRead(t, d)
		if got := opens(t, h, "zero", "one"); got != "one:1" {
			t.Errorf("priority %s: opens %q", value, got)
		}
		unlock(t, h, "zero", 0)
		commit(t, h, luks.SetPriority(1, luks.PriorityPrefer))
		if text := string(sound(t, d).JSON()); !strings.Contains(text, `"priority":`+value) {
			t.Errorf("priority %s did not survive: %s", value, text)
		}
	}
}

// deviceOf copies a header to a device of its own.
func deviceOf(t *testing.T, h *luks.Header) *disk {
	t.Helper()
	var image bytes.Buffer
	if err := h.Backup(&image); err != nil {
		t.Fatal(err)
	}
	return &disk{data: append(image.Bytes(), make([]byte, 64<<10)...)}
}

func TestFirstSlotWins(t *testing.T) {
	h := volumeOf(t, 3)
	for _, tt := range []struct {
		slots []int
		want  int
	}{{nil, 0}, {[]int{2}, 2}, {[]int{1, 0, 2}, 1}} {
		n := 0
		ctx := kdf.WithTrace(t.Context(), kdf.Trace{Start: func(kdf.Cost) { n++ }})
		key, err := h.Unlock(ctx, phrase("word"), luks.UnlockOptions{Slots: tt.slots})
		if err != nil {
			t.Fatal(err)
		}
		if key.Slot() != tt.want || n != 1 {
			t.Errorf("slots %v: slot %d after %d derivations, want %d after 1", tt.slots, key.Slot(), n, tt.want)
		}
		key.Wipe()
	}
}

func TestNothingToTry(t *testing.T) {
	d, h := newVolume(t)
	for name, opts := range map[string]luks.UnlockOptions{
		"no keyslot could be tried: keyslot 7 is not in use": {Slots: []int{7}},
		"no keyslot could be tried: the volume has none":     {Slots: []int{}},
	} {
		_, err := h.Unlock(t.Context(), phrase("zero"), opts)
		if !errors.Is(err, luks.ErrNoUsableSlot) || err.Error() != name || errors.Is(err, luks.ErrWrongPassphrase) {
			t.Errorf("got %v, want %s", err, name)
		}
	}
	if _, err := h.Erase(); err != nil {
		t.Fatal(err)
	}
	if _, err := mustRead(t, d).Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{}); err == nil || errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("erased: %v", err)
	}
}

// TestLimits: a slot above the caller's limits is passed over before a byte is
// allocated; the others are tried.
func TestLimits(t *testing.T) {
	d := goldenDisk(t)
	d.edit(t, edits{"keyslots.0.kdf": argon2("4", "1048576", "4")})
	h := mustRead(t, d)
	limits := kdf.Limits{MaxMemoryKiB: 64 << 10}
	if r := find(h.Trust(limits), luks.KDFCost); len(r) != 1 || r[0].Slot != 0 {
		t.Errorf("refusals %v", h.Trust(limits))
	}
	if r := h.Trust(kdf.Limits{}); len(r) != 0 {
		t.Errorf("refused under the default limits: %v", r)
	}
	key, err := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{Limits: limits})
	if err != nil || key.Slot() != 1 {
		t.Fatalf("slot 1: %v", err)
	}
	key.Wipe()
	_, err = h.Unlock(t.Context(), phrase("wrong"), luks.UnlockOptions{Limits: limits})
	const want = "(tried 1; not tried: keyslots.0: argon2id with 1024 MiB of memory: more than the limit of 64 MiB (kdf-cost))"
	if !errors.Is(err, luks.ErrWrongPassphrase) || !errors.Is(err, luks.KDFCost) || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("error %q, want it to end in %q", err, want)
	}
	for _, limits := range []kdf.Limits{{MaxWorkKiB: 4<<20 - 1}, {MaxMemoryKiB: 1<<20 - 1}} {
		if _, err := h.Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{Slots: []int{0}, Limits: limits}); !errors.Is(err, luks.KDFCost) {
			t.Errorf("%+v: %v", limits, err)
		}
	}
	if _, err := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{Slots: []int{1}, Limits: kdf.Limits{MaxIterations: 999}}); !errors.Is(err, luks.KDFCost) || errors.Is(err, luks.ErrWrongPassphrase) {
		t.Errorf("iterations: %v", err)
	}
}

func TestUnlockCancelled(t *testing.T) {
	_, h := newVolume(t)
	why := errors.New("shutting down")

	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	n := 0
	ctx = kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { n++ }})
	if _, err := h.Unlock(ctx, phrase("zero"), luks.UnlockOptions{}); !errors.Is(err, why) || errors.Is(err, luks.ErrWrongPassphrase) || n != 0 {
		t.Errorf("before: %v after %d derivations", err, n)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	ctx = kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { n++; cancel(why) }})
	if _, err := h.Unlock(ctx, phrase("one"), luks.UnlockOptions{}); !errors.Is(err, why) || !strings.HasPrefix(err.Error(), "keyslot 0: ") || n != 1 {
		t.Errorf("while deriving: %v after %d derivations", err, n)
	}

	ctx, cancel = context.WithCancelCause(t.Context())
	ctx = kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { cancel(why) }})
	key := unlock(t, h, "one")
	if sealed, err := key.Seal(ctx, phrase("new"), cheap); sealed != nil || !errors.Is(err, why) {
		t.Errorf("seal: %v", err)
	}
}

// TestReadAreaFails: a medium error is not a wrong passphrase.
func TestReadAreaFails(t *testing.T) {
	d, h := newVolume(t)
	broken := errors.New("medium error")
	d.before = func(op operation) error {
		if op.offset == 2*metadataSize {
			return broken
		}
		return nil
	}
	_, err := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{})
	if !errors.Is(err, broken) || errors.Is(err, luks.ErrWrongPassphrase) || !strings.HasPrefix(err.Error(), "keyslot 0: key material: ") {
		t.Errorf("got %v", err)
	}
	if _, err := h.KeyslotSum(0); !errors.Is(err, broken) {
		t.Errorf("KeyslotSum: %v", err)
	}
	if key := unlock(t, h, "one", 1); key.Slot() != 1 {
		t.Errorf("slot %d", key.Slot())
	}
}

func TestWithKey(t *testing.T) {
	_, h := newVolume(t)
	key := unlock(t, h, "zero")
	got, err := h.WithKey(key.Bytes())
	if err != nil || got.Slot() != -1 || !got.Bytes().Equal(key.Bytes()) {
		t.Fatalf("the right key: %v", err)
	}
	commit(t, h, luks.AddKeyslot(2, seal(t, got, "two"), nil))
	got.Wipe()
	if key.Bytes().Len() != 64 {
		t.Error("wiping one key wiped the other")
	}
	flipped := key.Bytes().Clone()
	flipped.Bytes()[63] ^= 1
	for name, wrong := range map[string]*secret.Bytes{
		"a bit off": flipped, "cut": secret.Copy(key.Bytes().Bytes()[:63]), "empty": phrase(""), "nil": nil,
		"longer": secret.Concat(key.Bytes(), phrase("x")),
	} {
		if v, err := h.WithKey(wrong); v != nil || err == nil || err.Error() != "this is not the key of the volume" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestKeyLength: HMAC pads short keys with zeros, so a digest alone takes a
// 32-byte key with 32 zeros behind it for the key itself.
func TestKeyLength(t *testing.T) {
	d, key := newDisk(deviceSize), luks.NewVolumeKey(32)
	defer key.Wipe()
	h, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(0, seal(t, key, "word"), nil))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.WithKey(key.Bytes()); err != nil {
		t.Error(err)
	}
	padded := secret.Concat(key.Bytes(), secret.New(32))
	if _, err := h.WithKey(padded); err == nil {
		t.Error("the padded key is taken")
	}
}

// TestChangedMeanwhile: unlocking goes by the header that was read. A slot that
// another process changed since is a conflict, not a wrong passphrase; changes of
// other slots do not matter.
func TestChangedMeanwhile(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(key *luks.VolumeKey) luks.Change
		want   error
	}{
		{"another slot removed", func(*luks.VolumeKey) luks.Change { return luks.RemoveKeyslot(0) }, nil},
		{"a slot added", func(key *luks.VolumeKey) luks.Change { return luks.AddKeyslot(2, seal(t, key, "two"), nil) }, nil},
		{"the slot replaced", func(key *luks.VolumeKey) luks.Change { return luks.ReplaceKeyslot(1, seal(t, key, "new"), nil) }, luks.ErrConflict},
		{"the slot removed", func(*luks.VolumeKey) luks.Change { return luks.RemoveKeyslot(1) }, luks.ErrConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, h := newVolume(t)
			commit(t, h, tt.change(unlock(t, h, "zero")))
			key, err := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{Slots: []int{1}})
			if !errors.Is(err, tt.want) || errors.Is(err, luks.ErrWrongPassphrase) || (err == nil) != (tt.want == nil) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			key.Wipe()
		})
	}
}

func TestUsable(t *testing.T) {
	d := goldenDisk(t)
	d.edit(t, edits{"keyslots.0.kdf": argon2("4", "1048576", "4")})
	h := mustRead(t, d)
	if err := h.Usable(0, kdf.Limits{MaxMemoryKiB: 1024}); !errors.Is(err, luks.KDFCost) {
		t.Errorf("slot 0: %v", err)
	}
	if err := h.Usable(1, kdf.Limits{MaxMemoryKiB: 1024}); err != nil {
		t.Errorf("slot 1: %v", err)
	}
	d.edit(t, edits{"segments.0.encryption": `"null"`})
	if err := mustRead(t, d).Usable(1, kdf.Limits{}); !errors.Is(err, luks.NullCipherSegment) {
		t.Errorf("a header that is refused: %v", err)
	}
}
