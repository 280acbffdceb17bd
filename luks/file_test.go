package luks_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

func TestOpenFileRefused(t *testing.T) {
	dir := t.TempDir()
	file := newDisk(1).file(t)
	if err := os.Symlink(filepath.Join(dir, "nowhere"), filepath.Join(dir, "dangling")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, path, text string }{
		{"missing", filepath.Join(dir, "missing"), "missing: no such device or file"},
		{"dangling link", filepath.Join(dir, "dangling"), "dangling: no such device or file"},
		{"directory", dir, dir + ": is a directory; name a block device or an image file"},
		{"character device", "/dev/zero", "/dev/zero: neither a block device nor a regular file"},
		{"below a file", filepath.Join(file, "x"), "not a directory"},
		{"no name", "", "no such device or file"},
	} {
		for _, mode := range []luks.Mode{luks.ReadOnly, luks.ReadWrite, luks.Exclusive} {
			f, err := luks.OpenFile(tt.path, mode)
			if f != nil || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s, mode %d: %v, want %q", tt.name, mode, err, tt.text)
			}
		}
	}
}

func TestOpenFilePermission(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may read and write everything")
	}
	d, _ := newVolume(t)
	path := d.file(t)
	for mode, text := range map[fs.FileMode]string{0: "no permission to read it", 0o400: "no permission to write it"} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		open := luks.ReadWrite
		if mode == 0 {
			open = luks.ReadOnly
		}
		if _, err := luks.OpenFile(path, open); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestFile(t *testing.T) {
	d, _ := newVolume(t)
	path := d.file(t)
	for _, mode := range []luks.Mode{luks.ReadWrite, luks.Exclusive} {
		f := openFile(t, path, mode)
		if f.Size() != deviceSize || f.File().Name() != path {
			t.Errorf("size %d, name %s", f.Size(), f.File().Name())
		}
		h := mustRead(t, f)
		commit(t, h, luks.SetPriority(0, luks.Priority(mode)-1))
		sound(t, f)
		// The file never grows, and what goes beyond its end is refused whole.
		for _, off := range []int64{-1, deviceSize, deviceSize - 3, 1<<63 - 1} {
			if n, err := f.WriteAt([]byte("four"), off); n != 0 || err == nil || !strings.Contains(err.Error(), "beyond the end at byte 1114112") {
				t.Errorf("write at %d: %d, %v", off, n, err)
			}
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != deviceSize {
		t.Errorf("the file has %d bytes: %v", info.Size(), err)
	}
}

// TestFileReadOnly: what only reads works, what writes says why not, and nothing
// is changed.
func TestFileReadOnly(t *testing.T) {
	d, _ := newVolume(t)
	d.data[metadataSize] ^= 1 // something to repair
	path := d.file(t)
	f := openFile(t, path, luks.ReadOnly)
	h := mustRead(t, f)
	key := unlock(t, h, "zero")
	plan, err := luks.PlanRestore(f, mustRead(t, deviceOf(t, h)))
	if err != nil {
		t.Fatal(err)
	}
	_, commitErr := h.Commit(luks.RemoveKeyslot(1))
	_, eraseErr := h.Erase()
	_, _, repairErr := luks.Repair(f)
	_, restoreErr := plan.Run(true)
	_, formatErr := luks.Format(f, key, luks.FormatOptions{MetadataSize: metadataSize, DataOffset: dataOffset}, luks.AddKeyslot(0, seal(t, key, "x"), nil))
	for name, err := range map[string]error{"commit": commitErr, "erase": eraseErr, "repair": repairErr, "restore": restoreErr, "format": formatErr} {
		if !errors.Is(err, luks.ErrReadOnly) || !strings.Contains(err.Error(), path+": write: opened read-only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Errorf("sync: %v", err)
	}
	if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, d.data) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestFileClosed(t *testing.T) {
	d, _ := newVolume(t)
	f := openFile(t, d.file(t), luks.ReadWrite)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // a lock that failed is not held
		if _, err := luks.Read(f); err == nil || errors.Is(err, luks.NotLUKS) {
			t.Errorf("got %v", err)
		}
	}
}

// TestFileShrunk: a file that was cut after it was opened is an I/O error.
func TestFileShrunk(t *testing.T) {
	d, _ := newVolume(t)
	path := d.file(t)
	f := openFile(t, path, luks.ReadOnly)
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := luks.Read(f); err == nil || !strings.Contains(err.Error(), "primary header: read 16384 bytes at byte 0: the device ends at") {
		t.Errorf("got %v", err)
	}
}

func TestSection(t *testing.T) {
	volume, _ := newVolume(t)
	const at = 3 << 20
	image := newDisk(8 << 20)
	for i := range image.data {
		image.data[i] = 0xA5
	}
	copy(image.data[at:], volume.data)
	was := bytes.Clone(image.data)
	part, err := luks.Section(image, at, deviceSize)
	if err != nil {
		t.Fatal(err)
	}
	h := mustRead(t, part)
	key := unlock(t, h, "one")
	commit(t, h, luks.AddKeyslot(2, seal(t, key, "two"), nil), luks.RemoveKeyslot(0))
	if got := opens(t, sound(t, part), "zero", "one", "two"); got != "one:1 two:2" {
		t.Errorf("opens %q", got)
	}
	if !bytes.Equal(image.data[:at], was[:at]) || !bytes.Equal(image.data[at+deviceSize:], was[at+deviceSize:]) {
		t.Error("something beside the section was written")
	}
	for _, off := range []int64{-1, deviceSize, deviceSize - 3, 1 << 62} {
		if n, err := part.WriteAt([]byte("four"), off); n != 0 || err == nil {
			t.Errorf("write at %d: %d, %v", off, n, err)
		}
	}
	image.locks = func(bool) (func(), error) { return nil, luks.ErrLocked }
	if _, err := luks.Read(part); !errors.Is(err, luks.ErrLocked) {
		t.Errorf("the section does not lock its device: %v", err)
	}
	for _, s := range [][2]int64{{-1, 10}, {0, 0}, {0, -5}, {0, 8<<20 + 1}, {8 << 20, 1}, {1 << 62, 1 << 62}, {4096, 8 << 20}} {
		if _, err := luks.Section(image, s[0], s[1]); err == nil || !strings.Contains(err.Error(), "does not lie within the device of 8388608 bytes") {
			t.Errorf("section %v: %v", s, err)
		}
	}
}
