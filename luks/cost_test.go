package luks_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// counting returns a context that counts derivations.
func counting(t *testing.T) (context.Context, *int) {
	n := new(int)
	var mu sync.Mutex
	return kdf.WithTrace(t.Context(), kdf.Trace{Start: func(kdf.Cost) {
		mu.Lock()
		defer mu.Unlock()
		*n++
	}}), n
}

// TestDerivations: what a user waits for is counted in key derivations.
func TestDerivations(t *testing.T) {
	ctx, n := counting(t)
	spent := func(what string, want int) {
		t.Helper()
		if *n != want {
			t.Errorf("%s took %d derivations, want %d", what, *n, want)
		}
		*n = 0
	}
	d, key := newDisk(4<<20), luks.NewVolumeKey(64)
	defer key.Wipe()
	var changes []luks.Change
	for i := range 4 {
		sealed, err := key.Seal(ctx, phrase(fmt.Sprint("word ", i)), cheap)
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, luks.AddKeyslot(i, sealed, nil))
	}
	h, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: 3 << 20}, changes...)
	if err != nil {
		t.Fatal(err)
	}
	spent("a format with 4 keys", 4)

	opened, err := h.Unlock(ctx, phrase("word 2"), luks.UnlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Wipe()
	spent("unlocking with the third of four", 3)

	sealed, err := opened.Seal(ctx, phrase("word 4"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	h = commit(t, h, luks.AddKeyslot(luks.AnySlot, sealed, nil))
	spent("adding a key, once unlocked,", 1)

	if sealed, err = opened.Seal(ctx, phrase("word 5"), cheap); err != nil {
		t.Fatal(err)
	}
	h = commit(t, h, luks.ReplaceKeyslot(4, sealed, nil))
	spent("replacing a key", 1)

	h = commit(t, h, luks.RemoveKeyslot(4), luks.SetPriority(1, luks.PriorityPrefer))
	spent("removing a key", 0)
	if _, err := h.WithKey(opened.Bytes()); err != nil {
		t.Error(err)
	}
	spent("checking a volume key", 0)
	if _, err := h.Unlock(ctx, phrase("word 1"), luks.UnlockOptions{}); err != nil {
		t.Error(err)
	}
	spent("unlocking with the preferred slot", 1)
	if _, err := h.Unlock(ctx, phrase("word 3"), luks.UnlockOptions{Slots: []int{3}}); err != nil {
		t.Error(err)
	}
	spent("unlocking with a slot that is named", 1)
}

// TestHeavyOneAtATime unlocks several volumes at once, as a boot does: their
// derivations must not hold their memory at the same time.
func TestHeavyOneAtATime(t *testing.T) {
	heavy := kdf.Cost{Kind: kdf.Argon2id, Time: 1, MemoryKiB: 16 << 10, CPUs: 2}
	d, key := newDisk(deviceSize), luks.NewVolumeKey(64)
	defer key.Wipe()
	sealed, err := key.Seal(t.Context(), phrase("word"), heavy)
	if err != nil {
		t.Fatal(err)
	}
	h, err := luks.Format(d, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(0, sealed, nil))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	running, most, done := 0, 0, 0
	ctx := kdf.WithTrace(t.Context(), kdf.Trace{
		Start: func(kdf.Cost) {
			mu.Lock()
			defer mu.Unlock()
			running++
			most = max(most, running)
		},
		Done: func(_ kdf.Cost, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			running--
			if done++; took <= 0 {
				t.Error("a derivation that took no time")
			}
		},
	})
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			v, err := h.Unlock(ctx, phrase("word"), luks.UnlockOptions{})
			if err != nil {
				t.Error(err)
			}
			v.Wipe()
		})
	}
	all.Wait()
	if most != 1 || done != 6 {
		t.Errorf("%d heavy derivations at a time, %d in all; want 1 and 6", most, done)
	}
}
