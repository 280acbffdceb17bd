package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// nobody is a user who has nothing, and a group of the same number.
const nobody = 65534

// needRoot skips a test that gives files to others.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
}

// asNobody runs f as nobody, who is in these other groups.
func asNobody(t *testing.T, groups []uint32, f func()) {
	t.Helper()
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and the thread ends with this function
		for _, call := range [][3]uintptr{
			{unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(unsafe.SliceData(groups)))},
			{unix.SYS_SETREGID, ^uintptr(0), nobody},
			{unix.SYS_SETREUID, ^uintptr(0), nobody},
		} {
			if _, _, errno := unix.RawSyscall(call[0], call[1], call[2], 0); errno != 0 {
				err = errno
				return
			}
		}
		f()
	}()
	if <-done; err != nil {
		t.Fatal(err)
	}
}

func ownedBy(t *testing.T, path string, uid, gid int, mode fs.FileMode) {
	t.Helper()
	if err := errors.Join(os.Chown(path, uid, gid), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

// TestReplaceKeepsToItself: who could not read a file cannot read the one in its
// place, which may have another group.
func TestReplaceKeepsToItself(t *testing.T) {
	t.Parallel()
	needRoot(t)
	const vault = 4242
	for _, tt := range []struct {
		mode   fs.FileMode
		groups []uint32
		gid    int
		want   fs.FileMode
	}{
		{0o640, nil, nobody, 0o600},
		{0o664, nil, nobody, 0o644},
		{0o604, nil, nobody, 0o600},
		{0o600, nil, nobody, 0o600},
		{0o660, []uint32{vault}, vault, 0o660},
	} {
		dir, err := os.MkdirTemp("", "cryptctl-test-") // to which nobody has a way
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		ownedBy(t, dir, nobody, nobody, 0o700)
		path := filepath.Join(dir, "m.yaml")
		write(t, path, "old")
		ownedBy(t, path, 0, vault, tt.mode)
		asNobody(t, tt.groups, func() {
			if err := replaceFile(path, []byte("new"), tt.mode); err != nil {
				t.Error(err)
			}
		})
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != tt.want || int(s.Uid) != nobody || int(s.Gid) != tt.gid {
			t.Errorf("%v became %v of %d:%d", tt.mode, info.Mode(), s.Uid, s.Gid)
		}
	}
}

// TestForeignLink: in a directory where everyone makes files a link is followed
// only when it is the user's or that of the directory's owner, wherever it is on
// the way.
func TestForeignLink(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for _, tt := range []struct {
		name    string
		uid, of int // of the directory, and of the link
		mode    fs.FileMode
		refused bool
	}{
		{"someone else's", 0, nobody, 0o777 | fs.ModeSticky, true},
		{"ours", nobody, 0, 0o777 | fs.ModeSticky, false},
		{"the owner's", nobody, nobody, 0o777 | fs.ModeSticky, false},
		{"not shared", 0, nobody, 0o755, false},
	} {
		home, shared := t.TempDir(), t.TempDir()
		real := filepath.Join(home, "real.yaml")
		link, way, far := filepath.Join(shared, "link"), filepath.Join(shared, "way"), filepath.Join(home, "far")
		write(t, real, "old")
		if err := errors.Join(os.Symlink(real, link), os.Symlink(home, way), os.Symlink(link, far)); err != nil {
			t.Fatal(err)
		}
		ownedBy(t, shared, tt.uid, 0, tt.mode)
		if err := errors.Join(os.Lchown(link, tt.of, 0), os.Lchown(way, tt.of, 0)); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{link, filepath.Join(way, "real.yaml"), far, way + "/../" + filepath.Base(home) + "/real.yaml"} {
			write(t, real, "old")
			err := replaceFile(path, []byte("new"), 0o600)
			got, _ := os.ReadFile(real)
			refused := err != nil && strings.Contains(err.Error(), "is a link that someone else made in a shared directory")
			if want := map[bool]string{true: "old", false: "new"}[tt.refused]; refused != tt.refused || string(got) != want {
				t.Errorf("%s: %s: %v, and it has %q", tt.name, path, err, got)
			}
		}
	}
}

// TestLinks: a link stays and leads to the new file; one that leads nowhere, or
// in circles, is no file.
func TestLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("real"), "old")
	if err := errors.Join(os.Mkdir(at("sub"), 0o700), os.Symlink("../real", at("sub/one")), os.Symlink("sub/one", at("two")),
		os.Symlink("none", at("dangling")), os.Symlink("circle", at("circle"))); err != nil {
		t.Fatal(err)
	}
	if err := replaceFile(at("two"), []byte("new"), 0o600); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(at("real")); err != nil || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	for name, want := range map[string]string{
		"dangling": "is not a regular file", "sub": "is not a regular file", "circle": "too many links", "no/where": "no such file",
	} {
		if err := replaceFile(at(name), nil, 0o600); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var names []string
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if want := []string{"circle", "dangling", "real", "sub", "two"}; !slices.Equal(names, want) {
		t.Errorf("there are %v", names)
	}
}

// TestPatchedOwner: a patched configuration is its writer's, whoever made the
// file before, unless it is the file that was patched.
func TestPatchedOwner(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	for _, name := range []string{"in.yaml", "out.yaml"} {
		write(t, filepath.Join(dir, name), "machine: {type: worker}\n")
		ownedBy(t, filepath.Join(dir, name), nobody, nobody, 0o644)
	}
	for name, want := range map[string]uint32{"out.yaml": 0, "in.yaml": nobody, "new.yaml": 0} {
		cryptctl(t, dir, exitOK, "config", "patch", "in.yaml", "-p", "machine: {type: controlplane}", "-o", name)
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); s.Uid != want || s.Gid != want || info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v of %d:%d", name, info.Mode(), s.Uid, s.Gid)
		}
	}
}
