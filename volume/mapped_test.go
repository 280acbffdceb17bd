package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/volume"
)

// TestTakenOver: a volume that an earlier process mapped and mounted is taken over
// as it is, and its slots are reconciled.
func TestTakenOver(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	before := open(t, s, device, encrypted("one"))
	mount(t, before, dir)

	v := open(t, s, device, encrypted("one", "two"))
	if !v.Existing || v.Formatted || v.Path != before.Path || *v.Identity != *before.Identity || v.Filesystem != volume.Ext4 {
		t.Errorf("taken over: %+v", v)
	}
	mount(t, v, dir)
	if r := reconcile(t, v); !r.Changed {
		t.Errorf("report %+v", r)
	}
	if got := slots(t, device, "one", "two"); got != "0 one, 1 two" {
		t.Errorf("slots %s", got)
	}
	shut(t, v)
	wantCalls(t, s, []string{"Mkfs", "Mount", "Unmount", "Deactivate"},
		"Mkfs luks2-STATE ext4", "Mount luks2-STATE mnt ext4", "Unmount mnt", "Deactivate luks2-STATE")
}

// TestTakenOverUnfinished: a process that ended between mapping and mkfs leaves
// that to the next one.
func TestTakenOverUnfinished(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	s.FailAt("Mkfs", 1, errors.New("killed"))
	s.FailAt("Deactivate", 1, errors.New("killed"))
	if _, err := tryOpen(t, s, device, encrypted("one")); err == nil {
		t.Fatal("opened")
	}
	if _, err := tryOpen(t, s, device, encrypted("wrong")); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("without a key nothing can be made of it: %v", err)
	}
	v := open(t, s, device, encrypted("one"))
	if !v.Existing || v.Filesystem != volume.Ext4 {
		t.Errorf("taken over: %+v", v)
	}
	shut(t, v)
}

// TestMappedRefused: a mapping that was there before is not closed by a refusal.
func TestMappedRefused(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	v := open(t, s, device, encrypted("one"))
	if _, err := tryOpen(t, s, device, with(encrypted("one"), volume.XFS)); !errors.Is(err, volume.ErrContent) {
		t.Errorf("error %v", err)
	}
	wantCalls(t, s, []string{"Deactivate"})
	shut(t, v)
}

// TestLocked: the data of a mapped volume is in use although no key opens it; its
// slots wait until one does.
func TestLocked(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]volume.Spec{"file system": encrypted("one"), "raw": with(encrypted("one"), volume.None)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			first := open(t, s, device, spec)
			if spec.Filesystem == volume.None { // a volume of its user's own making
				write(t, first.Path, 0, []byte("LUKS\xba\xbe\x00\x01"))
			}
			before := sum(t, device)
			changed := with(encrypted("wrong", "two"), spec.Filesystem)
			changed.Known = first.Identity
			v := open(t, s, device, changed)
			if !errors.Is(v.Locked, keys.ErrNoKey) || !v.Existing || v.Identity != nil || v.Slot != -1 || v.Path != first.Path || v.Filesystem != first.Filesystem {
				t.Errorf("locked: %+v", v)
			}
			if r, err := v.Reconcile(t.Context()); r != nil || !errors.Is(err, keys.ErrNoKey) {
				t.Errorf("Reconcile gives %v, %v", r, err)
			}
			if _, err := rekey(t, v, changed.Encryption); !errors.Is(err, keys.ErrNoKey) || v.Locked == nil {
				t.Errorf("Rekey with keys that do not open gives %v", err)
			}
			if sum(t, device) != before {
				t.Error("the partition was changed")
			}
			if _, err := rekey(t, v, encrypted("one", "two").Encryption); err != nil {
				t.Fatal(err)
			}
			if v.Locked != nil || v.Identity == nil || *v.Identity != *first.Identity || v.Slot != 0 {
				t.Errorf("unlocked: %+v", v)
			}
			if got := slots(t, device, "one", "two"); got != "0 one, 1 two" {
				t.Errorf("slots %s", got)
			}
			shut(t, v)
		})
	}
}

// TestNoKey: a volume that is not mapped, or whose name another one has, is refused
// when no key opens it.
func TestNoKey(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	made(t, s, device, encrypted("one"))
	s = s.Reboot()
	refused(t, s, device, encrypted("wrong"), keys.ErrNoKey)

	other := s.AddPartition("other", size)
	v := open(t, s, other, encrypted("one"))
	if _, err := tryOpen(t, s, device, encrypted("wrong")); !errors.Is(err, keys.ErrNoKey) {
		t.Errorf("error %v", err)
	}
	if _, err := tryOpen(t, s, device, encrypted("one")); !errors.Is(err, mapping.ErrNameTaken) {
		t.Errorf("error %v", err)
	}
	shut(t, v)
}

// TestStrangerMapped: a volume that is mapped already is held against what is known
// like any other.
func TestStrangerMapped(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	v := open(t, s, device, encrypted("one"))
	spec := encrypted("wrong")
	spec.Known = &volume.Identity{UUID: uuid}
	before := sum(t, device)
	if _, err := tryOpen(t, s, device, spec); !errors.Is(err, volume.ErrStranger) {
		t.Errorf("error %v", err)
	}
	if sum(t, device) != before || len(s.Calls("Mapped")) > 0 {
		t.Error("touched")
	}
	shut(t, v)
}

// TestCloseBusy: what is in use stays, says who uses it, and can be closed later.
func TestCloseBusy(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	v := open(t, s, device, encrypted("one"))
	mount(t, v, dir)
	wantBusy := func(holder string) {
		t.Helper()
		var busy *mapping.BusyError
		if err := v.Close(); !errors.As(err, &busy) || len(busy.Holders) != 1 || busy.Holders[0] != holder {
			t.Errorf("Close gives %v, want busy by %s", err, holder)
		}
	}
	s.Hold(dir, "process 7")
	s.Hold("luks2-STATE", "process 8")
	wantBusy("process 7")
	if v.Dir() != dir {
		t.Errorf("mounted on %q", v.Dir())
	}
	if _, err := os.Stat(v.Path); err != nil {
		t.Errorf("the mapping is gone: %v", err)
	}
	s.Hold(dir)
	wantBusy("process 8")
	if v.Dir() != "" {
		t.Errorf("mounted on %q", v.Dir())
	}
	s.Hold("luks2-STATE")
	shut(t, v)
	shut(t, v) // gone is gone
	if _, err := os.Stat(v.Path); err == nil {
		t.Error("the mapping is there")
	}
}

// TestRekey changes the keys of an open volume.
func TestRekey(t *testing.T) {
	t.Parallel()
	all := func(words ...string) *volume.Encryption { return encrypted(words...).Encryption }
	former := func(e *volume.Encryption, words ...string) *volume.Encryption {
		e.Former = append(e.Former, statics(words...))
		return e
	}
	tests := []struct {
		name string
		to   *volume.Encryption
		want string
		err  error
	}{
		{"one more", all("one", "two", "three"), "0 one, 1 two, 2 three", nil},
		{"one kept", all("one", "new"), "0 one, 1 new", nil},
		{"one removed", all("one"), "0 one", nil},
		{"all changed, the former known", former(former(all("a", "b"), "never"), "one", "two"), "0 a, 1 b", nil},
		{"all changed", all("a", "b"), "0 one, 1 two", keys.ErrNoKey},
		{"all changed, another former", former(all("a", "b"), "never"), "0 one, 1 two", keys.ErrNoKey},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			v := open(t, s, device, encrypted("one", "two"))
			reconcile(t, v)
			if _, err := v.Reconcile(t.Context()); err == nil {
				t.Error("reconciled twice")
			}
			before := sum(t, device)
			r, err := rekey(t, v, test.to)
			if !errors.Is(err, test.err) || (r == nil) != (test.err != nil) {
				t.Errorf("Rekey gives %+v, %v; want the error %v", r, err, test.err)
			}
			if changed := sum(t, device) != before; changed != (test.err == nil) {
				t.Errorf("the partition was changed: %v", changed)
			}
			if got := slots(t, device, "one", "two", "three", "new", "a", "b"); got != test.want {
				t.Errorf("slots %s, want %s", got, test.want)
			}
			if !v.Reconciled() {
				t.Error("a session is left")
			}
			shut(t, v)
		})
	}
}

// TestRekeyStranger: a header that was put in the place of the volume's while it
// was open is not changed, although a key opens it.
func TestRekeyStranger(t *testing.T) {
	t.Parallel()
	for name, layout := range map[string]luks.FormatOptions{"another volume": {}, "another key": {UUID: uuid}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			luksImage(t, device, luks.FormatOptions{UUID: uuid}, "one")
			v := open(t, s, device, with(encrypted("one"), volume.None))
			other := s.AddPartition("other", size)
			luksImage(t, other, layout, "one")
			write(t, device, 0, head(t, other))
			before := sum(t, device)
			if r, err := rekey(t, v, encrypted("one", "two").Encryption); r != nil || !errors.Is(err, volume.ErrStranger) {
				t.Errorf("Rekey gives %v, %v", r, err)
			}
			if sum(t, device) != before {
				t.Error("the partition was changed")
			}
		})
	}
}

// TestCutInRekey: with the former keys at hand, a volume whose keys were all
// changed is taken over whatever set it has.
func TestCutInRekey(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	v := open(t, s, device, encrypted("one"))
	to := encrypted("new").Encryption
	to.Former = [][]keys.Key{statics("one")}
	if _, err := rekey(t, v, to); err != nil {
		t.Fatal(err)
	}
	s = s.Reboot()
	spec := encrypted("one") // what the configuration in force still says
	spec.Encryption.Former = [][]keys.Key{statics("new")}
	spec.Known = v.Identity
	again := open(t, s, device, spec)
	reconcile(t, again)
	if got := slots(t, device, "one", "new"); got != "0 one" {
		t.Errorf("slots %s", got)
	}
	shut(t, again)
}

// rekey makes the slots of an open volume match other keys, as a node does.
func rekey(t *testing.T, v *volume.Volume, e *volume.Encryption) (*keys.Report, error) {
	t.Helper()
	if err := v.Reopen(t.Context(), e); err != nil {
		return nil, err
	}
	defer v.Release()
	return v.Reconcile(t.Context())
}
