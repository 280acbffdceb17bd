package disk_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/disk"
)

// TestCreate has sgdisk judge an image like that of a node.
func TestCreate(t *testing.T) {
	const size = 512 * mib
	path := filepath.Join(t.TempDir(), "image")
	got, err := disk.Create(path, size, []disk.Spec{
		{Label: "EFI", Size: 100 * mib, Type: strings.ToUpper(efiSystem)},
		{Label: "META", Size: mib},
		{Label: "odd", Size: 512 * 3},
		{Label: "EPHEMERAL"},
		{Label: "STATE ß", Size: 100 * mib},
	})
	if err != nil {
		t.Fatal(err)
	}
	// 1 MiB before, 33 sectors after, rounded to 1 MiB.
	want := &disk.Table{SectorSize: 512, Size: size, Partitions: []disk.Partition{
		{Number: 1, Label: "EFI", Type: efiSystem, Offset: mib, Size: 100 * mib},
		{Number: 2, Label: "META", Type: disk.LinuxFilesystem, Offset: 101 * mib, Size: mib},
		{Number: 3, Label: "odd", Type: disk.LinuxFilesystem, Offset: 102 * mib, Size: 512 * 3},
		{Number: 4, Label: "EPHEMERAL", Type: disk.LinuxFilesystem, Offset: 103 * mib, Size: 308 * mib},
		{Number: 5, Label: "STATE ß", Type: disk.LinuxFilesystem, Offset: 411 * mib, Size: 100 * mib},
	}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(disk.Partition{}, "UUID")); diff != "" {
		t.Errorf("table (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(got, mustRead(t, path)); diff != "" {
		t.Errorf("the image read again (-made +read):\n%s", diff)
	}
	if out := run(t, "gdisk", "sgdisk", "--verify", path); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk --verify: %s", out)
	}
	for _, p := range got.Partitions {
		out := run(t, "gdisk", "sgdisk", fmt.Sprintf("--info=%d", p.Number), path)
		for _, line := range []string{
			fmt.Sprintf("Partition name: '%s'", p.Label),
			fmt.Sprintf("Partition unique GUID: %s", strings.ToUpper(p.UUID)),
			fmt.Sprintf("First sector: %d ", p.Offset/512),
			fmt.Sprintf("Partition size: %d sectors", p.Size/512),
			fmt.Sprintf("Partition GUID code: %s", strings.ToUpper(p.Type)),
		} {
			if !strings.Contains(out, line) {
				t.Errorf("sgdisk does not say %q:\n%s", line, out)
			}
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 || info.Size() != size {
		t.Errorf("the image has mode %v and %d bytes", info.Mode(), info.Size())
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > mib {
		t.Errorf("the image is not sparse: it takes %d bytes", used)
	}
}

// TestCreateRefuses: what cannot be made leaves nothing behind.
func TestCreateRefuses(t *testing.T) {
	sized := func(n int64) []disk.Spec { return []disk.Spec{{Label: "A", Size: n}} }
	many := make([]disk.Spec, 129)
	for i := range many {
		many[i] = disk.Spec{Label: fmt.Sprint(i), Size: 512}
	}
	tests := []struct {
		name  string
		size  int64
		parts []disk.Spec
		want  string
	}{
		{"no bytes", 0, nil, "too small for any partition"},
		{"fewer than none", -512, nil, "not a multiple of 512"},
		{"no whole sector", 16*mib + 1, nil, "not a multiple of 512"},
		{"half a MiB", mib / 2, sized(512), "too small for any partition"},
		{"a MiB", mib, sized(512), "too small for any partition"},
		{"a sector short of two MiB", 2*mib - 512, sized(512), "too small for any partition"},
		{"two MiB", 2 * mib, sized(512), "room for 0 bytes of partitions; these need 1048576"},
		{"no room for the backup", 3 * mib, sized(2 * mib), "room for 1048576 bytes of partitions; these need 2097152"},
		{"no room for the rest", 4 * mib, []disk.Spec{{Label: "A", Size: 2 * mib}, {Label: "B"}}, "room for 2097152 bytes of partitions; these need 3145728"},
		{"too large by rounding", 4 * mib, []disk.Spec{{Label: "A", Size: 512}, {Label: "B", Size: mib + 512}}, "these need 3145728"},
		{"larger than int64", 16 * mib, []disk.Spec{{Label: "A", Size: 1<<63 - 512}, {Label: "B", Size: 1<<63 - 512}}, "more than 2^63 bytes"},
		{"half a sector", 16 * mib, sized(513), `partition "A": its size of 513 bytes`},
		{"negative", 16 * mib, sized(-512), `partition "A": its size of -512 bytes`},
		{"two rests", 16 * mib, []disk.Spec{{Label: "A"}, {Label: "B"}}, "2 partitions are to have the rest"},
		{"a label twice", 16 * mib, []disk.Spec{{Label: "A", Size: 512}, {Label: "A", Size: 512}}, `two partitions are labelled "A"`},
		{"no label", 16 * mib, []disk.Spec{{Size: 512}}, "label is empty"},
		{"label of 37 units", 16 * mib, []disk.Spec{{Label: strings.Repeat("x", 35) + "😀"}}, "longer than 36"},
		{"label of control bytes", 16 * mib, []disk.Spec{{Label: "A\x1b[2J"}}, `"A\x1b[2J" is not plain text`},
		{"label not UTF-8", 16 * mib, []disk.Spec{{Label: "A\xff"}}, `is not plain text`},
		{"type not a GUID", 16 * mib, []disk.Spec{{Label: "A", Type: "linux"}}, `partition "A": its type "linux" is not a GUID`},
		{"type of zeros", 16 * mib, []disk.Spec{{Label: "A", Type: "00000000-0000-0000-0000-000000000000"}}, "is not a GUID"},
		{"129 partitions", 512 * mib, many, "129 partitions; a table has room for 128"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			table, err := disk.Create(filepath.Join(dir, "image"), test.size, test.parts)
			if err == nil || !strings.Contains(err.Error(), test.want) || table != nil {
				t.Errorf("%v, %v; want %q", table, err, test.want)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
}

// TestCreateOverExisting: whatever has the name stays as it is.
func TestCreateOverExisting(t *testing.T) {
	dir := t.TempDir()
	file, link, folder, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "folder"), filepath.Join(dir, "pipe")
	if err := os.WriteFile(file, []byte("precious"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink("nowhere", link), os.Mkdir(folder, 0o700), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	before := listing(t, dir)
	for _, path := range []string{file, link, folder, pipe} {
		if _, err := disk.Create(path, 16*mib, nil); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff(before, listing(t, dir)); diff != "" {
		t.Errorf("the folder (-before +after):\n%s", diff)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file holds %q, %v", b, err)
	}
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, fmt.Sprint(e.Name(), info.Mode(), info.Size(), info.ModTime()))
	}
	return list
}

// TestCreateKeepsOrder: any list that fits is made in its order, aligned, in
// full, and go-blockdevice reads it as we do.
func TestCreateKeepsOrder(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 8192), 0, 128).Draw(r, "sectors")
		restAt := rapid.IntRange(-1, len(sizes)-1).Draw(r, "rest")
		var parts []disk.Spec
		total := int64(3 * mib)
		for i, n := range sizes {
			p := disk.Spec{Label: fmt.Sprint("p", i), Size: n * 512}
			total += (p.Size + mib - 1) / mib * mib
			if i == restAt {
				p.Size = 0
			}
			parts = append(parts, p)
		}
		path := filepath.Join(dir, "image")
		table, err := disk.Create(path, total, parts)
		if err != nil {
			r.Fatal(err)
		}
		defer os.Remove(path)
		if len(table.Partitions) != len(parts) || table.Damage != nil {
			r.Fatalf("made %v of %v, damage %q", table.Partitions, parts, table.Damage)
		}
		end := int64(0)
		for i, p := range table.Partitions {
			if p.Number != i+1 || p.Label != parts[i].Label || p.Offset%mib != 0 || p.Offset < end || i != restAt && p.Size != parts[i].Size {
				r.Fatalf("partition %v, want %v after byte %d", p, parts[i], end)
			}
			end = p.Offset + p.Size
		}
		if restAt >= 0 && (total-end) >= 3*mib {
			r.Fatalf("%d bytes after the last partition, though one has the rest", total-end)
		}
		if diff := cmp.Diff(upstream(t, path, 512), table.Partitions); diff != "" {
			r.Fatalf("go-blockdevice and we differ (-it +we):\n%s", diff)
		}
	})
}
