package probe_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tools maps the programs that tests run to the Debian packages they are in.
func tools() map[string]string {
	return map[string]string{
		"blkid":       "util-linux",
		"cryptsetup":  "cryptsetup-bin",
		"losetup":     "mount", // tests of package disk
		"make-bcache": "bcache-tools",
		"mkfs.btrfs":  "btrfs-progs",
		"mkfs.cramfs": "util-linux",
		"mkfs.exfat":  "exfatprogs",
		"mkfs.ext2":   "e2fsprogs",
		"mkfs.ext4":   "e2fsprogs",
		"mkfs.f2fs":   "f2fs-tools",
		"mkfs.jfs":    "jfsutils",
		"mkfs.minix":  "util-linux",
		"mkfs.ntfs":   "ntfs-3g",
		"mkfs.vfat":   "dosfstools",
		"mkfs.xfs":    "xfsprogs",
		"mksquashfs":  "squashfs-tools",
		"mkswap":      "util-linux",
		"sgdisk":      "gdisk",
		"wipefs":      "util-linux",
		"xorriso":     "xorriso",
	}
}

// run runs a tool and returns what it printed. A tool that is missing fails the
// test: a judge that did not sit has not judged.
func run(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := find(args[0])
	if err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", args[0], tools()[args[0]])
	}
	cmd := exec.CommandContext(t.Context(), path, args[1:]...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out
}

// find looks in sbin too, which is not in the path of every user.
func find(tool string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, tool)); err == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

func TestPackageList(t *testing.T) {
	list, err := os.ReadFile("testdata/packages.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := slices.Compact(slices.Sorted(maps.Values(tools())))
	if diff := cmp.Diff(want, strings.Fields(string(list))); diff != "" {
		t.Errorf("testdata/packages.txt and the tools in use differ (-used +listed):\n%s", diff)
	}
}
