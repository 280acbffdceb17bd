package interop_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

func TestPriority(t *testing.T) {
	d := theirs(t, plain(), "alpha")
	d.addHere(1, "bravo")
	d.addHere(2, "charlie")
	priority := func(slot int) luks.Priority {
		k, _ := d.header().Keyslot(slot)
		return k.Priority
	}
	for _, p := range []luks.Priority{luks.PriorityPrefer, luks.PriorityIgnore, luks.PriorityNormal} {
		cryptsetup(t, "config", "--priority", p.String(), "--key-slot", "1", d.path)
		d.accepted("cryptsetup set the priority")
		if got := priority(1); got != p {
			t.Errorf("cryptsetup set %s, we read %s", p, got)
		}
		d.commit(luks.SetPriority(2, p))
		d.accepted("we set the priority")
		if got := lines(cryptsetup(t, "luksDump", d.path), "Priority:"); !strings.HasPrefix(got[2], p.String()) {
			t.Errorf("we set %s, luksDump shows %s", p, got[2])
		}
	}

	// An ignored slot opens when it is named, and only then.
	d.commit(luks.SetPriority(2, luks.PriorityIgnore))
	if d.opensHere("charlie", -1) || d.opensThere("charlie", -1) {
		t.Error("an ignored slot opens without being named")
	}
	if !d.opensHere("charlie", 2) || !d.opensThere("charlie", 2) {
		t.Error("an ignored slot does not open when it is named")
	}

	// Where two slots have one passphrase, both sides take the preferred one.
	d.addThere(3, "alpha")
	d.commit(luks.SetPriority(3, luks.PriorityPrefer))
	key, err := d.unlock("alpha", -1)
	if err != nil || key.Slot() != 3 {
		t.Errorf("we open slot %d first (%v), want the preferred 3", key.Slot(), err)
	}
	if out := cryptsetup(t, "open", "--test-passphrase", "--verbose", "--key-file", keyFile(t, "alpha"), d.path); !strings.Contains(out, "Key slot 3 unlocked") {
		t.Errorf("cryptsetup opens another slot first: %s", out)
	}

	// Our change of a key keeps what theirs drops.
	d.replaceHere(3, "delta")
	if got := priority(3); got != luks.PriorityPrefer {
		t.Errorf("our change made the priority %s", got)
	}
}

func TestFlags(t *testing.T) {
	d := ours(t, plain(), "alpha")
	// cryptsetup's names; luksDump shows whatever stands there.
	flags := []string{
		"allow-discards", "same-cpu-crypt", "submit-from-crypt-cpus", "no-journal",
		"no-read-workqueue", "no-write-workqueue", "high_priority",
	}
	d.commit(luks.SetFlags(flags...))
	d.accepted("we set every flag")
	out := cryptsetup(t, "luksDump", d.path)
	if got := lines(out, "Flags:"); len(got) != 1 || !slices.Equal(strings.Fields(got[0]), flags) {
		t.Errorf("luksDump shows %q, want %q", got, flags)
	}
	cryptsetup(t, "config", "--label", "kept", d.path)
	if got := d.header().Flags(); !slices.Equal(got, flags) {
		t.Errorf("after a change of cryptsetup the flags are %v", got)
	}
	d.commit(luks.SetFlags())
	d.accepted("we removed the flags")
	if got := lines(cryptsetup(t, "luksDump", d.path), "Flags:"); !slices.Equal(got, []string{"(no flags)"}) {
		t.Errorf("luksDump shows %q", got)
	}
}

func TestLabels(t *testing.T) {
	const uuid = "12345678-90ab-4cde-8f01-234567890abc"
	label, subsystem := strings.Repeat("l", 47), strings.Repeat("ß", 23)
	check := func(t *testing.T, d *disk) {
		t.Helper()
		out := cryptsetup(t, "luksDump", d.path)
		for _, want := range []struct{ field, here, value string }{
			{"UUID:", d.header().UUID(), uuid},
			{"Label:", d.header().Label(), label},
			{"Subsystem:", d.header().Subsystem(), subsystem},
		} {
			if there := lines(out, want.field); len(there) != 1 || there[0] != want.value || want.here != want.value {
				t.Errorf("%s cryptsetup has %q, we have %q, want %q", want.field, there, want.here, want.value)
			}
		}
	}
	t.Run("ours", func(t *testing.T) {
		d := blank(t, plain(), diskSize)
		key := luks.NewVolumeKey(64)
		opts := luks.FormatOptions{UUID: uuid, Label: label, Subsystem: subsystem}
		if _, err := luks.Format(d.open(), key, opts, luks.AddKeyslot(0, d.seal(key, "alpha"), nil)); err != nil {
			t.Fatal(err)
		}
		d.born("alpha")
		d.accepted("we formatted")
		check(t, d)
		d.replaceHere(0, "bravo")
		check(t, d)
	})
	t.Run("theirs", func(t *testing.T) {
		d := theirs(t, plain(), "alpha", "--uuid", uuid, "--label", label, "--subsystem", subsystem)
		check(t, d)
		d.replaceHere(0, "bravo")
		check(t, d)
		cryptsetup(t, "config", "--label", "changed", d.path)
		if got := d.header().Label(); got != "changed" {
			t.Errorf("cryptsetup changed the label, we read %q", got)
		}
	})
}

// TestConflicts changes a volume with cryptsetup between our reading of the
// header and our change of it.
func TestConflicts(t *testing.T) {
	for _, c := range []struct {
		name   string
		theirs func(d *disk)
		ours   func(d *disk) luks.Change
		want   error // nil: both changes are in force
	}{
		{
			"another slot", func(d *disk) { d.addThere(2, "charlie") },
			func(d *disk) luks.Change { return luks.AddKeyslot(3, d.sealNew("delta"), nil) }, nil,
		},
		{
			"the same slot changed", func(d *disk) { d.changeThere(1, "charlie", true) },
			func(*disk) luks.Change { return luks.RemoveKeyslot(1) }, luks.ErrConflict,
		},
		{
			"the slot to replace changed", func(d *disk) { d.changeThere(1, "charlie", false) },
			func(d *disk) luks.Change { return luks.ReplaceKeyslot(1, d.sealNew("delta"), nil) }, luks.ErrConflict,
		},
		{
			"the slot to replace gone", func(d *disk) { d.killThere(1) },
			func(d *disk) luks.Change { return luks.ReplaceKeyslot(1, d.sealNew("delta"), nil) }, luks.ErrConflict,
		},
		{
			"the free slot taken", func(d *disk) { d.addThere(2, "charlie") },
			func(d *disk) luks.Change { return luks.AddKeyslot(2, d.sealNew("delta"), nil) }, luks.ErrSlotInUse,
		},
		{
			"the token set", func(d *disk) { d.importToken(0, `{"type":"theirs","keyslots":[]}`) },
			func(*disk) luks.Change { return luks.SetToken(0, []byte(`{"type":"ours","keyslots":[]}`)) }, luks.ErrConflict,
		},
		{
			"all other keys removed", func(d *disk) { d.killThere(1) },
			func(*disk) luks.Change { return luks.RemoveKeyslot(0) }, luks.ErrLastKeyslot,
		},
		{
			"another UUID", func(d *disk) { cryptsetup(d, "luksUUID", "--uuid", luks.NewUUID(), d.path) },
			func(*disk) luks.Change { return luks.RemoveKeyslot(1) }, luks.ErrConflict,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := ours(t, plain(), "alpha")
			d.addHere(1, "bravo")
			planned, change := d.header(), c.ours(d)
			c.theirs(d)
			before := d.headerBytes()
			after, err := planned.Commit(change)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err == nil {
				if got := slots(after); !slices.Equal(got, []int{0, 1, 2, 3}) {
					t.Errorf("keyslots %v", got)
				}
				return
			}
			if !bytes.Equal(before, d.headerBytes()) {
				t.Error("a refused change wrote to the header")
			}
		})
	}
}
