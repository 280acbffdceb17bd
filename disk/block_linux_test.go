package disk_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/disk"
)

// TestBlockDevice reads tables through loop devices, which say themselves how
// large they and their sectors are.
func TestBlockDevice(t *testing.T) {
	if err := unix.Access("/dev/loop-control", unix.W_OK); err != nil {
		t.Skipf("needs loop devices, and the right to set them up: %v", err)
	}
	path := create(t, 16*mib, twoPartitions()...)
	want := mustRead(t, path)
	got, err := read(t, loop(t, path, "512"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("as an image and as a device (-image +device):\n%s", diff)
	}
	// The kernel would see no partitions here either.
	if table, err := read(t, loop(t, path, "4096")); !errors.Is(err, disk.ErrNoTable) {
		t.Errorf("a table for 512-byte sectors on a device of 4096: %v, %v", table, err)
	}
}

func loop(t *testing.T, path, sector string) string {
	t.Helper()
	dev := strings.TrimSpace(run(t, "mount", "losetup", "--find", "--show", "--read-only", "--sector-size", sector, path))
	t.Cleanup(func() { run(t, "mount", "losetup", "--detach", dev) })
	return dev
}
