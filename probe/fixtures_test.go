package probe_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fixture is an image that a real tool made.
type fixture struct {
	name  string
	size  int64    // of the sparse file the tool gets; 0: the tool makes the file
	tool  []string // IMAGE is the image, DIR a folder with a file, KEY a key file
	wipe  int64    // bytes from the start zeroed afterwards
	first at       // a finding that must be there
	more  []at     // others that must be there
}

func fixtures() []fixture {
	luks := []string{"cryptsetup", "luksFormat", "--batch-mode", "--pbkdf-force-iterations", "1000", "--key-file", "KEY", "IMAGE"}
	luks1 := append(luks, "--type", "luks1")
	luks2 := append(luks, "--type", "luks2", "--pbkdf", "pbkdf2")
	list := []fixture{
		{name: "ext2", size: 64 * mib, tool: []string{"mkfs.ext2", "-q", "IMAGE"}, first: at{"ext", 0x438}},
		{name: "ext4", size: 64 * mib, tool: []string{"mkfs.ext4", "-q", "-b", "1024", "IMAGE"}, first: at{"ext", 0x438}, more: []at{{"ext", 8193*1024 + 0x38}}},
		{name: "ext4 of 2K blocks", size: 64 * mib, tool: []string{"mkfs.ext4", "-q", "-b", "2048", "IMAGE"}, first: at{"ext", 0x438}, more: []at{{"ext", 32*mib + 0x38}}},
		{name: "ext4, start wiped", size: 256 * mib, tool: []string{"mkfs.ext4", "-q", "-b", "4096", "IMAGE"}, wipe: mib, first: at{"ext", 128*mib + 0x38}},
		{name: "xfs", size: 320 * mib, tool: []string{"mkfs.xfs", "-q", "IMAGE"}, first: at{"xfs", 0}},
		{name: "xfs, first quarter wiped", size: 320 * mib, tool: []string{"mkfs.xfs", "-q", "IMAGE"}, wipe: 80 * mib, first: at{"data", 80 * mib}},
		{name: "btrfs", size: 128 * mib, tool: []string{"mkfs.btrfs", "-q", "IMAGE"}, first: at{"btrfs", 0x10040}, more: []at{{"btrfs", 64*mib + 0x40}}},
		{name: "btrfs, start wiped", size: 128 * mib, tool: []string{"mkfs.btrfs", "-q", "IMAGE"}, wipe: mib, first: at{"btrfs", 64*mib + 0x40}},
		{name: "fat12", size: 4 * mib, tool: []string{"mkfs.vfat", "-F12", "IMAGE"}, first: at{"fat", 0x36}},
		{name: "fat16", size: 32 * mib, tool: []string{"mkfs.vfat", "-F16", "IMAGE"}, first: at{"fat", 0x36}},
		{name: "fat32", size: 64 * mib, tool: []string{"mkfs.vfat", "-F32", "IMAGE"}, first: at{"fat", 0x52}, more: []at{{"fat", 6*512 + 0x52}}},
		{name: "ntfs", size: 16 * mib, tool: []string{"mkfs.ntfs", "-F", "-Q", "-q", "IMAGE"}, first: at{"ntfs", 3}, more: []at{{"ntfs", 16*mib - 512 + 3}}},
		{name: "exfat", size: 16 * mib, tool: []string{"mkfs.exfat", "IMAGE"}, first: at{"exfat", 3}, more: []at{{"exfat", 12*512 + 3}}},
		{name: "f2fs", size: 64 * mib, tool: []string{"mkfs.f2fs", "-q", "IMAGE"}, first: at{"f2fs", 0x400}, more: []at{{"f2fs", 0x1400}}},
		{name: "jfs", size: 32 * mib, tool: []string{"mkfs.jfs", "-q", "IMAGE"}, first: at{"jfs", 0x8000}, more: []at{{"jfs", 0xf000}}},
		{name: "minix", size: mib, tool: []string{"mkfs.minix", "IMAGE"}, first: at{"minix", 0x410}},
		{name: "minix 3", size: mib, tool: []string{"mkfs.minix", "-3", "IMAGE"}, first: at{"minix", 0x418}},
		{name: "squashfs", tool: []string{"mksquashfs", "DIR", "IMAGE", "-quiet", "-no-progress"}, first: at{"squashfs", 0}},
		{name: "cramfs", tool: []string{"mkfs.cramfs", "DIR", "IMAGE"}, first: at{"cramfs", 0}},
		{name: "iso9660", tool: []string{"xorriso", "-as", "mkisofs", "-quiet", "-o", "IMAGE", "DIR"}, first: at{"iso9660", 0x8001}},
		{name: "gpt", size: 16 * mib, tool: []string{"sgdisk", "--new=1:0:+1M", "IMAGE"}, first: at{"gpt", 512}, more: []at{{"mbr", 510}, {"gpt-backup", 16*mib - 512}}},
		{name: "gpt, start wiped", size: 16 * mib, tool: []string{"sgdisk", "--new=1:0:+1M", "IMAGE"}, wipe: mib, first: at{"gpt-backup", 16*mib - 512}},
		{name: "gpt of an odd size", size: 16*mib + 100, tool: []string{"sgdisk", "--new=1:0:+1M", "IMAGE"}, wipe: mib, first: at{"gpt-backup", 16*mib - 512}},
		{name: "mbr", size: 16 * mib, tool: []string{"sgdisk", "--new=1:0:+1M", "--gpttombr=1", "IMAGE"}, first: at{"mbr", 510}},
		{name: "luks1", size: 20 * mib, tool: luks1, first: at{"luks1", 0}},
		{name: "luks2", size: 20 * mib, tool: luks2, first: at{"luks2", 0}, more: []at{{"luks2-secondary", 0x4000}}},
		{name: "luks2, primary wiped", size: 20 * mib, tool: luks2, wipe: 0x4000, first: at{"luks2-secondary", 0x4000}},
		{name: "luks2 of 4 MiB metadata, primary wiped", size: 40 * mib, tool: append(luks2, "--luks2-metadata-size", "4m"), wipe: 4 * mib, first: at{"luks2-secondary", 4 * mib}},
		{name: "luks2, both headers wiped", size: 20 * mib, tool: luks2, wipe: 0x8000, first: at{"data", 0x8000}},
		{name: "bcache", size: 16 * mib, tool: []string{"make-bcache", "-B", "IMAGE"}, first: at{"bcache", 0x1018}},
	}
	for _, page := range []struct {
		size string
		at   int64
	}{{"4096", 0xff6}, {"8192", 0x1ff6}, {"16384", 0x3ff6}, {"32768", 0x7ff6}, {"65536", 0xfff6}} {
		list = append(list, fixture{
			name: "swap of " + page.size, size: 4 * mib,
			tool: []string{"mkswap", "-q", "-p", page.size, "IMAGE"}, first: at{"swap", page.at},
		})
	}
	return list
}

// make runs the tool and returns the image's path.
func (f fixture) make(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	image, key, tree := filepath.Join(dir, "image"), filepath.Join(dir, "key"), filepath.Join(dir, "tree")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(key, "a passphrase")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(tree, "file"), "contents")
	if f.size > 0 {
		write(image, "")
		if err := os.Truncate(image, f.size); err != nil {
			t.Fatal(err)
		}
	}
	var args []string
	for _, a := range f.tool {
		args = append(args, strings.NewReplacer("IMAGE", image, "DIR", tree, "KEY", key).Replace(a))
	}
	run(t, args...)
	if f.wipe > 0 {
		zero(t, image, f.wipe)
	}
	return image
}

func zero(t *testing.T, path string, n int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, n)); err != nil {
		t.Fatal(err)
	}
}

// TestTools probes what real tools make, and has libblkid judge: all that
// blkid and wipefs name, we must name too.
func TestTools(t *testing.T) {
	for _, f := range fixtures() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			image := f.make(t)
			r := mustProbe(t, file(t, image))
			if r.Empty() {
				t.Fatal("taken for empty")
			}
			found := places(r.Findings)
			for _, want := range append(f.more, f.first) {
				if !slices.Contains(found, want) {
					t.Errorf("%v is not among the findings %v", want, found)
				}
			}
			if types := judge(t, image, found); len(types) == 0 && f.wipe == 0 {
				t.Error("libblkid sees nothing at all: the tool did not make what it should")
			}
		})
	}
}
