package volume_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// TestStrangers: a volume that opens with the right keys and is another one is
// neither mapped nor written.
func TestStrangers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		layout luks.FormatOptions
		reason string
	}{
		{"another UUID", luks.FormatOptions{Label: "mine"}, "its UUID is \""},
		{"another label", luks.FormatOptions{UUID: uuid, Label: "yours"}, "its label is \"yours\""},
		{"no label", luks.FormatOptions{UUID: uuid}, "its label is \"\""},
		{"another volume key", luks.FormatOptions{UUID: uuid, Label: "mine"}, "its volume key is another"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			raw := with(encrypted("one"), volume.None)
			luksImage(t, device, luks.FormatOptions{UUID: uuid, Label: "mine"}, "one")
			id := made(t, s, device, raw)
			raw.Known = &id
			shut(t, open(t, s, device, raw))

			other := s.AddPartition("other", size)
			luksImage(t, other, test.layout, "one")
			s = s.Reboot()
			if err := refused(t, s, other, raw, volume.ErrStranger); !strings.Contains(err.Error(), test.reason) {
				t.Errorf("error %v, want one with %q", err, test.reason)
			}
			wantCalls(t, s, nil)
		})
	}
}

// TestBroughtBack: a header from before the file system was made would have it
// made again. Who knows that there was one refuses it.
func TestBroughtBack(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	s.CutBefore("Mkfs", 1)
	if _, err := tryOpen(t, s, device, encrypted("one")); !errors.Is(err, volumetest.ErrPowerCut) {
		t.Fatalf("error %v", err)
	}
	s = s.Reboot()
	old := head(t, device)
	id := made(t, s, device, encrypted("one"))
	if !id.Filesystem {
		t.Fatalf("identity %+v", id)
	}
	write(t, device, 0, old)
	s = s.Reboot()
	spec := encrypted("one")
	spec.Known = &id
	refused(t, s, device, spec, volume.ErrStranger)
	wantCalls(t, s, nil)

	// Before it was known, the volume is what it says.
	id.Filesystem = false
	shut(t, open(t, s, device, spec))
	wantCalls(t, s, []string{"Mkfs"}, "Mkfs luks2-STATE ext4")
}
