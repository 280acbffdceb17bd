package volumetest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

const size = 1 << 20

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isBusy(err error) bool {
	var busy *mapping.BusyError
	return errors.As(err, &busy)
}

// file makes an empty file, or says that it is there.
func file(t *testing.T, path string) (was bool) {
	t.Helper()
	_, err := os.Stat(path)
	must(t, os.WriteFile(path, nil, 0o600))
	return err == nil
}

// TestMounts: contents come and go with their mounts, one below the other too, and
// outlive a power cut.
func TestMounts(t *testing.T) {
	s := volumetest.New(t, t.TempDir())
	outer, inner := s.AddPartition("outer", size), s.AddPartition("inner/x", size)
	dir := filepath.Join(t.TempDir(), "mnt")
	below := filepath.Join(dir, "below")
	must(t, s.Mkfs(t.Context(), outer, volume.Ext4))
	must(t, s.Mkfs(t.Context(), inner, volume.Ext4))
	if err := s.Mount(outer, dir, volume.XFS); err == nil {
		t.Error("ext4 was mounted as xfs")
	}
	must(t, os.Mkdir(dir, 0o700))
	file(t, filepath.Join(dir, "hidden"))
	mount := func() {
		must(t, s.Mount(outer, dir, volume.Ext4))
		must(t, s.Mount(inner, below, volume.Ext4))
	}
	mount()
	if file(t, filepath.Join(dir, "hidden")) || file(t, filepath.Join(below, "file")) {
		t.Error("a new file system has files")
	}
	if err := s.Unmount(dir); !isBusy(err) {
		t.Errorf("unmounted below a mount: %v", err)
	}
	if err := s.Zero(t.Context(), inner); !isBusy(err) {
		t.Errorf("zeroed while mounted: %v", err)
	}
	s = s.Reboot()
	if on, err := s.Mounted(dir); on != "" || err != nil {
		t.Errorf("%q is mounted after the reboot, %v", on, err)
	}
	if _, err := os.Stat(below); err == nil {
		t.Error("the content is there without a mount")
	}
	mount()
	if !file(t, filepath.Join(below, "file")) {
		t.Error("the file is gone")
	}
	must(t, s.Unmount(below))
	must(t, s.Mkfs(t.Context(), inner, volume.Ext4))
	must(t, s.Mount(inner, below, volume.Ext4))
	if file(t, filepath.Join(below, "file")) {
		t.Error("the new file system has the old file")
	}
	must(t, s.Unmount(below))
	must(t, s.Unmount(dir))
	if !file(t, filepath.Join(dir, "hidden")) {
		t.Error("what was below the mount is gone")
	}
}

// TestFaults: each fault hits the call it is meant for, and after a power cut
// nothing works until the reboot.
func TestFaults(t *testing.T) {
	s := volumetest.New(t, t.TempDir())
	device := s.AddPartition("a", size)
	failed := errors.New("failed")
	s.FailAt("Find", 2, failed)
	for n, want := range []error{nil, failed, nil} {
		if _, err := s.Find("a"); !errors.Is(err, want) || want == nil && err != nil {
			t.Errorf("call %d gives %v, want %v", n+1, err, want)
		}
	}
	s.CutAfter("Mkfs", 1)
	for range 2 {
		if err := s.Mkfs(t.Context(), device, volume.Ext4); !errors.Is(err, volumetest.ErrPowerCut) {
			t.Errorf("error %v", err)
		}
	}
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := s.Mount(device, dir, volume.Ext4); !errors.Is(err, volumetest.ErrPowerCut) {
		t.Errorf("mounted without power: %v", err)
	}
	var log []string
	for _, c := range s.Calls() {
		log = append(log, c.String())
	}
	if got := strings.Join(log, ", "); got != "Find a, Find a, Find a, Mkfs a ext4, Mkfs a ext4, Mount a "+dir+" ext4" {
		t.Errorf("calls %s", got)
	}
	s = s.Reboot()
	must(t, s.Mount(device, dir, volume.Ext4)) // made just before the cut
	must(t, s.Unmount(dir))
	s.CutBefore("", 2)
	must(t, s.Zero(t.Context(), device))
	if err := s.Mkfs(t.Context(), device, volume.Ext4); !errors.Is(err, volumetest.ErrPowerCut) {
		t.Errorf("error %v", err)
	}
	s = s.Reboot()
	if err := s.Mount(device, dir, volume.Ext4); err == nil {
		t.Error("there is a file system that was never made")
	}
}

func TestLabels(t *testing.T) {
	s := volumetest.New(t, t.TempDir())
	a, b := s.AddPartition("a", size), s.AddPartition("b", size)
	s.SetLabel("a", a, b)
	s.SetLabel("b")
	s = s.Reboot()
	if _, err := s.Find("a"); !errors.Is(err, volume.ErrAmbiguous) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Find("b"); !errors.Is(err, volume.ErrMissing) {
		t.Errorf("error %v", err)
	}
}
