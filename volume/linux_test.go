//go:build linux

package volume_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// blank makes an image and opens it as a machine's partition.
func blank(t *testing.T, n int64) string {
	t.Helper()
	s := volumetest.New(t, t.TempDir())
	return s.AddPartition(label, n)
}

// TestMkfs has the real programs make file systems, one over the other, and each
// is found as what it is, whatever the one before left behind.
func TestMkfs(t *testing.T) {
	t.Parallel()
	device := blank(t, 320*mib)
	s := volumetest.New(t, t.TempDir())
	for _, filesystem := range []string{volume.Ext4, volume.XFS, volume.Swap, volume.Ext4, volume.Swap, volume.XFS} {
		if err := (volume.Linux{}).Mkfs(t.Context(), device, filesystem); err != nil {
			t.Fatal(err)
		}
		want := filesystem
		spec := plain(volume.Auto)
		if spec.MayFormat = false; filesystem == volume.Swap {
			spec.Filesystem = volume.Swap
		}
		v, err := tryOpen(t, s, device, spec)
		if err != nil {
			t.Errorf("%s: %v", filesystem, err)
			continue
		}
		if v.Filesystem != want || v.Formatted {
			t.Errorf("%s: opened %+v", filesystem, v)
		}
	}
	if err := (volume.Linux{}).Mkfs(t.Context(), device, "ntfs"); err == nil {
		t.Error("ntfs was made")
	}
	small := blank(t, mib)
	if err := (volume.Linux{}).Mkfs(t.Context(), small, volume.XFS); err == nil {
		t.Error("xfs was made on 1 MiB")
	}
}

// TestZero: all of an image reads as zeros, and its size stays.
func TestZero(t *testing.T) {
	t.Parallel()
	const size = 40*mib + 512
	device := blank(t, size)
	for _, at := range []int64{0, 31 * mib, 32 * mib, size - mib} {
		write(t, device, at, noise(mib))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	before := sum(t, device)
	if err := (volume.Linux{}).Zero(ctx, device); !errors.Is(err, context.Canceled) || sum(t, device) != before {
		t.Errorf("cancelled: %v", err)
	}
	if err := (volume.Linux{}).Zero(t.Context(), device); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(device)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != size || len(bytes.Trim(b, "\x00")) > 0 {
		t.Errorf("%d bytes are left of %d", len(bytes.Trim(b, "\x00")), len(b))
	}
}

// TestMounted asks about what every machine has, and has not.
func TestMounted(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]bool{"/proc": true, t.TempDir(): false, filepath.Join(t.TempDir(), "none"): false} {
		if on, err := (volume.Linux{}).Mounted(dir); err != nil || (on != "") != want {
			t.Errorf("on %s %q is mounted, error %v", dir, on, err)
		}
	}
}
