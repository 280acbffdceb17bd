package machine

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The kernel is the judge of the archive in every boot; this says what is wrong
// when it takes none.
func TestCpio(t *testing.T) {
	var buf bytes.Buffer
	c := newCpio(&buf)
	c.file("/a/b/file", 0o755, []byte("hello"))
	c.dir("a/b")
	c.char("dev/console", 5, 1)
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	type entry struct {
		name    string
		mode    int64
		content string
	}
	var got []entry
	for p := buf.Bytes(); len(p) > 0; {
		if string(p[:6]) != "070701" {
			t.Fatalf("no header where one must be: %q", p[:6])
		}
		number := func(i int) int64 {
			n, err := strconv.ParseInt(string(p[6+8*i:14+8*i]), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		align := func(n int64) int64 { return (n + 3) &^ 3 }
		name, size, data := number(11), number(6), align(110+number(11))
		got = append(got, entry{string(p[110 : 110+name-1]), number(1), string(p[data : data+size])})
		p = p[align(data+size):]
	}
	want := []entry{
		{"a", 0o040755, ""},
		{"a/b", 0o040755, ""},
		{"a/b/file", 0o100755, "hello"},
		{"dev", 0o040755, ""},
		{"dev/console", 0o020600, ""},
		{"TRAILER!!!", 0, ""},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(entry{})); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func TestLoadOrder(t *testing.T) {
	k := Kernel{"6.1", "", t.TempDir()}
	for name, text := range map[string]string{
		"modules.dep":     "k/dm-crypt.ko: k/dm-mod.ko\nk/dm-mod.ko:\nk/pci.ko: k/modern.ko k/virtio.ko k/ring.ko\nk/modern.ko:\nk/virtio.ko: k/ring.ko\nk/ring.ko:\nk/zstd.ko.xz:\n",
		"modules.builtin": "kernel/fs/ext4/ext4.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(k.Modules, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := k.LoadOrder("dm_crypt", "pci", "ext4", "dm-mod")
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if diff := cmp.Diff([]string{"dm-mod.ko", "dm-crypt.ko", "ring.ko", "virtio.ko", "modern.ko", "pci.ko"}, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	for name, want := range map[string]string{"nothing": "has no module nothing", "zstd": "compressed"} {
		if _, err := k.LoadOrder(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", name, err, want)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	sorted := []string{"vmlinuz-5.10.0-9", "vmlinuz-6.1.0-9-cloud", "vmlinuz-6.1.0-56-cloud", "vmlinuz-6.12.1"}
	got := []string{sorted[3], sorted[1], sorted[0], sorted[2]}
	slices.SortFunc(got, compareVersions)
	if diff := cmp.Diff(sorted, got); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestConsoleWait(t *testing.T) {
	c := newConsole()
	go func() {
		for _, part := range []string{"booting\r\nrea", "dy after 12 ", "ms\r\n"} {
			time.Sleep(time.Millisecond)
			c.Write([]byte(part))
		}
	}()
	got, err := c.Wait(t.Context(), regexp.MustCompile(`ready after (\d+) ms\n`))
	if err != nil || got[1] != "12" {
		t.Errorf("%q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Wait(ctx, regexp.MustCompile("never")); err == nil {
		t.Error("a wait for what never comes ends without an error")
	}
}

func TestCopyFile(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	content := make([]byte, 300<<10+7)
	copy(content[100<<10:], "data")
	if err := os.WriteFile(from, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(to, from); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the copy has %d bytes and differs, error %v", len(got), err)
	}
}
