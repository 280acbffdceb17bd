package luks_test

import (
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

func TestConfirmed(t *testing.T) {
	h, other := volumeOf(t, 2), volumeOf(t, 1)
	key := unlock(t, h, "word")
	if !h.Confirmed(key) {
		t.Error("the key that was unlocked with this header is not confirmed")
	}
	if other.Confirmed(key) {
		t.Error("the key of another volume is confirmed")
	}
	again, err := h.WithKey(key.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if !h.Confirmed(again) {
		t.Error("the key that WithKey checked is not confirmed")
	}
	changed, err := h.Commit(luks.RemoveKeyslot(1), luks.SetPriority(0, luks.PriorityPrefer))
	if err != nil {
		t.Fatal(err)
	}
	if !changed.Confirmed(key) {
		t.Error("the key is not confirmed any more after a change of keyslots")
	}
	for name, v := range map[string]*luks.VolumeKey{
		"none": nil, "a fresh key": luks.NewVolumeKey(64), "a key from elsewhere": luks.VolumeKeyFrom(secret.Copy(key.Bytes().Bytes())),
	} {
		if h.Confirmed(v) {
			t.Errorf("%s is confirmed", name)
		}
		v.Wipe()
	}
	key.Wipe()
	if h.Confirmed(key) {
		t.Error("a key that was wiped is confirmed")
	}
	again.Wipe()
}
