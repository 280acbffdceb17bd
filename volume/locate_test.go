package volume_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/volume"
)

// image makes a disk with these partitions of 1 MiB.
func image(t *testing.T, labels ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	var specs []disk.Spec
	for _, l := range labels {
		specs = append(specs, disk.Spec{Label: l, Size: mib})
	}
	if _, err := disk.Create(path, 8*mib, specs); err != nil {
		t.Fatal(err)
	}
	return path
}

// twins is a disk of which two partitions have the same label, which no sane
// program makes: the one table it has is edited.
func twins(t *testing.T) string {
	t.Helper()
	path := image(t, "STATE", "STATF")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	relabel(b, "STATF", "STATE")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScan(t *testing.T) {
	t.Parallel()
	first, second := image(t, "META", "STATE"), image(t, "EPHEMERAL")
	blank := filepath.Join(t.TempDir(), "blank")
	if err := os.WriteFile(blank, make([]byte, mib), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(first, link); err != nil {
		t.Fatal(err)
	}
	parts, err := volume.Scan([]string{first, blank, second, link})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range parts {
		got = append(got, p.Label+" "+strconv.Itoa(p.Number)+" "+p.Disk)
	}
	if want := []string{"META 1 " + first, "STATE 2 " + first, "EPHEMERAL 1 " + second}; strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("partitions %q, want %q", got, want)
	}
}

// TestScanUnreadable: a disk that cannot be read, or whose table cannot be trusted,
// may have the partition that would make a label ambiguous.
func TestScanUnreadable(t *testing.T) {
	t.Parallel()
	good := image(t, "STATE")
	damaged := image(t, "STATE")
	b, err := os.ReadFile(damaged)
	if err != nil {
		t.Fatal(err)
	}
	b[512+20]++
	b[len(b)-512+20]++
	if err := os.WriteFile(damaged, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{"missing": filepath.Join(t.TempDir(), "gone"), "a directory": t.TempDir(), "damaged": damaged} {
		if parts, err := volume.Scan([]string{good, bad}); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("%s: %v, %v", name, parts, err)
		}
		if _, err := (volume.Linux{Disks: []string{good, bad}}).Find("STATE"); err == nil || errors.Is(err, volume.ErrMissing) {
			t.Errorf("%s: Find gives %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	one, two := image(t, "META", "STATE"), image(t, "STATE", "EPHEMERAL")
	tests := []struct {
		name  string
		disks []string
		label string
		want  error
		names []string // what the error must name
	}{
		{"none", []string{}, "STATE", volume.ErrMissing, []string{`"STATE"`}},
		{"missing", []string{one, two}, "USER", volume.ErrMissing, []string{`"USER"`}},
		{"another case", []string{one}, "state", volume.ErrMissing, nil},
		{"no label", []string{one}, "", volume.ErrMissing, nil},
		{"on two disks", []string{one, two}, "STATE", volume.ErrAmbiguous, []string{"partition 2 of " + one, "partition 1 of " + two}},
		{"twice on one disk", []string{twins(t)}, "STATE", volume.ErrAmbiguous, []string{"partition 1", "partition 2"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			device, err := volume.Linux{Disks: test.disks}.Find(test.label)
			if device != "" || !errors.Is(err, test.want) {
				t.Fatalf("Find gives %q, %v; want %v", device, err, test.want)
			}
			for _, n := range test.names {
				if !strings.Contains(err.Error(), n) {
					t.Errorf("the error %v does not name %s", err, n)
				}
			}
		})
	}
	// An image has no device in /sys, which is the last thing that is asked.
	if _, err := (volume.Linux{Disks: []string{one}}).Find("STATE"); err == nil || !strings.Contains(err.Error(), "blockdev --rereadpt") {
		t.Errorf("Find gives %v", err)
	}
}

// TestDevice: the kernel's device for a partition is taken when both mean the same
// bytes, and refused when not.
func TestDevice(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, disk string
		sys        map[string]string
		want       string // "" for an error
	}{
		{"a disk", "/dev/vda", map[string]string{"vda/vda1": "1 2048 2048", "vda/vda3": "3 4096 8192"}, "/dev/vda3"},
		{"a disk that ends in a digit", "/dev/nvme0n1", map[string]string{"nvme0n1/nvme0n1p3": "3 4096 8192"}, "/dev/nvme0n1p3"},
		{"a disk in a folder", "/dev/cciss/c0d0", map[string]string{"cciss!c0d0/cciss!c0d0p3": "3 4096 8192"}, "/dev/cciss/c0d0p3"},
		{"no device", "/dev/vda", map[string]string{"vda/vda1": "1 4096 8192"}, ""},
		{"another disk's", "/dev/vda", map[string]string{"vdb/vdb3": "3 4096 8192"}, ""},
		{"elsewhere", "/dev/vda", map[string]string{"vda/vda3": "3 2048 8192"}, ""},
		{"of another size", "/dev/vda", map[string]string{"vda/vda3": "3 4096 4096"}, ""},
		{"not a number", "/dev/vda", map[string]string{"vda/vda3": "3 x y"}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			sys := t.TempDir()
			for dir, numbers := range test.sys {
				for i, file := range []string{"partition", "start", "size"} {
					path := filepath.Join(sys, dir, file)
					if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(strings.Fields(numbers)[i]+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			p := volume.Partition{Disk: test.disk, Partition: disk.Partition{Number: 3, Offset: 4096 * 512, Size: 8192 * 512}}
			device, err := p.DeviceIn(sys)
			if device != test.want || (err == nil) != (test.want != "") {
				t.Errorf("device %q, error %v; want %q", device, err, test.want)
			}
		})
	}
}

// relabel gives a partition of an image another label, in both copies of the
// table, and makes their checksums right again (UEFI 2.10, table 5.5).
func relabel(b []byte, from, to string) {
	wide := func(s string) []byte { return []byte(strings.Join(strings.Split(s, ""), "\x00") + "\x00") }
	copy(b, bytes.ReplaceAll(b, wide(from), wide(to)))
	le := binary.LittleEndian
	for _, at := range []int{512, len(b) - 512} {
		h := b[at:][:92]
		entries := b[le.Uint64(h[72:])*512:][:le.Uint32(h[80:])*le.Uint32(h[84:])]
		le.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
		clear(h[16:20])
		le.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	}
}
