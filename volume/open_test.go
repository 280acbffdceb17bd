package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// TestFirstAndSecond is a volume's life: the first open makes it, the second finds
// it with all that was written.
func TestFirstAndSecond(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	v := open(t, s, device, encrypted("one", "two"))
	if !v.Formatted || v.Existing || v.Filesystem != volume.Ext4 || v.Path == device || v.Locked != nil || !v.Identity.Filesystem {
		t.Errorf("the first open gives %+v", v)
	}
	mount(t, v, dir)
	if v.Dir() != dir {
		t.Errorf("mounted on %q", v.Dir())
	}
	if r := reconcile(t, v); r.Changed {
		t.Errorf("the report on a new volume: %+v", r)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	shut(t, v)
	if _, err := os.Stat(filepath.Join(dir, "file")); err == nil {
		t.Error("the file is there without the mount")
	}
	wantCalls(t, s, nil,
		"Activate luks2-STATE STATE", "Mkfs luks2-STATE ext4", "Mounted mnt", "Mount luks2-STATE mnt ext4", "Grow luks2-STATE mnt ext4",
		"Unmount mnt", "Deactivate luks2-STATE")

	s = s.Reboot()
	before := sum(t, device)
	spec := encrypted("one", "two")
	spec.Known = v.Identity
	again := open(t, s, device, spec)
	if again.Formatted || again.Existing || again.Slot < 0 {
		t.Errorf("the second open gives %+v", again)
	}
	if diff := cmp.Diff(v.Identity, again.Identity); diff != "" {
		t.Errorf("the identity changed: %s", diff)
	}
	mount(t, again, dir)
	reconcile(t, again)
	if b, err := os.ReadFile(filepath.Join(dir, "file")); string(b) != "kept" {
		t.Errorf("the file has %q, %v", b, err)
	}
	shut(t, again)
	wantCalls(t, s, []string{"Mkfs"})
	if sum(t, device) != before {
		t.Error("the second open wrote to the partition")
	}
}

// TestMountTwice: a volume that is mounted stays mounted, and a directory with
// something else is refused.
func TestMountTwice(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	mount(t, open(t, s, device, plain(volume.Auto)), dir)
	v := open(t, s, device, plain(volume.Auto))
	mount(t, v, dir)
	if v.Dir() != dir || len(s.Calls("Mount")) != 1 {
		t.Errorf("mounted on %q:\n%s", v.Dir(), calls(s))
	}
	other := open(t, s, s.AddPartition("other", size), plain(volume.Auto))
	if err := other.Mount(t.Context(), dir); err == nil || other.Dir() != "" {
		t.Errorf("mounted over another: %q", other.Dir())
	}
	shut(t, v)
	mount(t, other, dir)
}

// TestGrowFails: a file system that cannot be grown is used as it is.
func TestGrowFails(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	s.FailAt("Grow", 1, errors.New("no room"))
	v := open(t, s, device, encrypted("one"))
	mount(t, v, filepath.Join(t.TempDir(), "mnt"))
	shut(t, v)
}

// TestFilesystems: which file system is made, and that the next open finds it.
func TestFilesystems(t *testing.T) {
	t.Parallel()
	const header = luks.DefaultDataOffset
	tests := []struct {
		name string
		size int64
		spec volume.Spec
		want string
	}{
		{"large", header + 320*mib, encrypted("one"), volume.XFS},
		{"small", header + 320*mib - 4096, encrypted("one"), volume.Ext4},
		{"plain, large", 320 * mib, plain(volume.Auto), volume.XFS},
		{"plain, small", 320*mib - 4096, plain(volume.Auto), volume.Ext4},
		{"ext4 on a large one", header + 320*mib, with(encrypted("one"), volume.Ext4), volume.Ext4},
		{"xfs of 300 MiB", header + 300*mib, with(encrypted("one"), volume.XFS), volume.XFS},
		{"swap", size, with(encrypted("one"), volume.Swap), volume.Swap},
		{"plain swap", size, plain(volume.Swap), volume.Swap},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := volumetest.New(t, t.TempDir())
			device := s.AddPartition(label, test.size)
			for i, formatted := range []bool{true, false} {
				v := open(t, s, device, test.spec)
				if v.Filesystem != test.want || v.Formatted != formatted || (v.Identity == nil) != (test.spec.Encryption == nil) {
					t.Errorf("open %d gives %+v", i, v)
				}
				mount(t, v, filepath.Join(t.TempDir(), "mnt"))
				shut(t, v)
			}
			if n := len(s.Calls("Mkfs")); n != 1 {
				t.Errorf("%d file systems were made", n)
			}
		})
	}
}

func with(spec volume.Spec, filesystem string) volume.Spec {
	spec.Filesystem = filesystem
	return spec
}

// TestSwap: swap is switched on and off without a directory.
func TestSwap(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	v := open(t, s, device, with(encrypted("one"), volume.Swap))
	mount(t, v, "")
	if v.Dir() != v.Path {
		t.Errorf("mounted on %q", v.Dir())
	}
	mount(t, v, "")
	shut(t, v)
	wantCalls(t, s, []string{"Mount", "Unmount", "Deactivate"},
		"Mount luks2-STATE luks2-STATE swap", "Unmount luks2-STATE", "Deactivate luks2-STATE")
}

// TestRaw: a volume without a file system is its user's, who finds again what he
// wrote.
func TestRaw(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]volume.Spec{"encrypted": with(encrypted("one"), volume.None), "plain": plain(volume.None)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			for i := range 2 {
				v := open(t, s, device, spec)
				if v.Filesystem != volume.None || v.Formatted != (i == 0 && spec.Encryption != nil) {
					t.Errorf("open %d gives %+v", i, v)
				}
				if v.Identity != nil && v.Identity.Filesystem {
					t.Error("the identity says that there is a file system")
				}
				if err := v.Mount(t.Context(), t.TempDir()); err == nil {
					t.Error("mounted")
				}
				write(t, v.Path, 0, []byte("NTFS and whatever"))
				write(t, v.Path, 0x438, []byte("\x53\xef"))
				shut(t, v)
			}
			wantCalls(t, s, []string{"Mkfs", "Mount"})
		})
	}
}

// TestPlainHasNoSlots: neither way to change slots has one to change.
func TestPlainHasNoSlots(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	v := open(t, s, device, plain(volume.Auto))
	before := sum(t, device)
	if r, err := v.Reconcile(t.Context()); r != nil || err == nil {
		t.Errorf("Reconcile gives %v, %v", r, err)
	}
	if r, err := rekey(t, v, encrypted("one").Encryption); r != nil || err == nil {
		t.Errorf("Rekey gives %v, %v", r, err)
	}
	if sum(t, device) != before {
		t.Error("the partition was changed")
	}
}

// TestOtherKeyOtherContent: a volume that was zeroed and made again has nothing of
// the old one.
func TestOtherKeyOtherContent(t *testing.T) {
	t.Parallel()
	s, device := machine(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	v := open(t, s, device, encrypted("one"))
	mount(t, v, dir)
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Zero(t.Context(), device); err == nil {
		t.Error("zeroed while mapped")
	}
	shut(t, v)
	if err := s.Zero(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	again := open(t, s, device, encrypted("one"))
	mount(t, again, dir)
	if _, err := os.Stat(filepath.Join(dir, "file")); err == nil {
		t.Error("the new volume has the old file")
	}
	if again.Identity.Key == v.Identity.Key || !again.Formatted {
		t.Errorf("not a new volume: %+v", again)
	}
	shut(t, again)
}
