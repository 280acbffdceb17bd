package disk_test

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/disk"
)

const mib = 1 << 20

// run runs a tool of the given Debian package and returns what it printed. A
// tool that is missing fails the test: a judge that did not sit has not judged.
func run(t *testing.T, debian string, args ...string) string {
	t.Helper()
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		path, err := exec.LookPath(filepath.Join(dir, args[0]))
		if err != nil {
			continue
		}
		out, err := exec.Command(path, args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	t.Fatalf("%s is missing: install the Debian package %s", args[0], debian)
	return ""
}

// blank returns the path of a sparse file of zeros.
func blank(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

// create makes an image with [disk.Create].
func create(t *testing.T, size int64, parts ...disk.Spec) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if _, err := disk.Create(path, size, parts); err != nil {
		t.Fatal(err)
	}
	return path
}

// read reads the table of an image.
func read(t *testing.T, path string) (*disk.Table, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return disk.Read(f)
}

func mustRead(t *testing.T, path string) *disk.Table {
	t.Helper()
	table, err := read(t, path)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// edit changes bytes of an image of 512-byte sectors.
func edit(t *testing.T, path string, change func(b []byte)) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	change(b)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// seal makes the checksums of both copies right again, as someone would who
// means to fool the reader. A copy that points out of the image is left with the
// checksum of its header alone.
func seal(b []byte) {
	le := binary.LittleEndian
	for _, at := range []int{512, len(b) - 512} {
		h := b[at : at+512]
		from := le.Uint64(h[72:]) * 512
		length := uint64(le.Uint32(h[80:])) * uint64(le.Uint32(h[84:]))
		if n := uint64(len(b)); from < n && length <= n-from {
			le.PutUint32(h[88:], crc32.ChecksumIEEE(b[from:from+length]))
		}
		if size := le.Uint32(h[12:]); size >= 20 && size <= 512 {
			clear(h[16:20])
			le.PutUint32(h[16:], crc32.ChecksumIEEE(h[:size]))
		}
	}
}
