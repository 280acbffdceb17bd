package faults_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/test/interop/served"
)

const (
	insideVar  = "CRYPTCTL_TEST_FAULTS"         // set: this process has its own mount namespace
	programVar = "CRYPTCTL_TEST_FAULTS_PROGRAM" // the program under test

	patience = 30 * time.Second
)

// TestMain runs the tests in a mount namespace of their own: whatever becomes of
// them, no mount is left.
func TestMain(m *testing.M) {
	if os.Getenv(insideVar) != "" {
		kms.QuietGRPC()
		os.Exit(m.Run())
	}
	os.Exit(outside())
}

// outside builds the program, and runs this one again, inside.
func outside() int {
	if shm := "/dev/shm"; os.Getenv("TMPDIR") == "" && roomy(shm) {
		os.Setenv("TMPDIR", shm)
	}
	dir, err := os.MkdirTemp("", "faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, err := served.Build(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime.LockOSThread() // the child ends with this thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), insideVar+"=1", programVar+"="+program, "LC_ALL=C")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "a mount namespace is needed for small file systems, and root for that:", err)
		return 1
	}
	if err := cmd.Wait(); err != nil {
		return max(1, cmd.ProcessState.ExitCode())
	}
	return 0
}

// roomy reports whether files may be there in memory, which has no slow syncs.
func roomy(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && uint64(fs.Bsize)*fs.Bavail > 2<<30
}

func newServer(t *testing.T) *served.Server {
	t.Helper()
	return served.New(t, os.Getenv(programVar))
}

// eventually waits for something to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// volume is a small file system that is mounted.
type volume struct {
	t     *testing.T
	dir   string
	image string // of ext4
}

// tool runs a program; one that is missing or fails, fails the test.
func tool(t *testing.T, debian, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		t.Fatalf("%s is needed: install the Debian package %s", name, debian)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// newTmpfs is a file system in memory.
func newTmpfs(t *testing.T, size string) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir()}
	tool(t, "mount", "mount", "-t", "tmpfs", "-o", "size="+size, "faults", v.dir)
	t.Cleanup(v.unmount)
	return v
}

// newExt4 is a file system as servers have it, on a loop device.
func newExt4(t *testing.T) *volume {
	t.Helper()
	v := &volume{t: t, dir: t.TempDir(), image: filepath.Join(t.TempDir(), "image")}
	if err := os.WriteFile(v.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(v.image, 24<<20); err != nil {
		t.Fatal(err)
	}
	tool(t, "e2fsprogs", "mkfs.ext4", "-q", "-F", "-m", "0", v.image)
	v.mount()
	t.Cleanup(v.unmount)
	return v
}

func (v *volume) mount() {
	v.t.Helper()
	tool(v.t, "mount", "mount", "-t", "ext4", "-o", "loop", v.image, v.dir)
}

// unmount is lazy at the end of a test that failed, with a server in it.
func (v *volume) unmount() { _ = unix.Unmount(v.dir, unix.MNT_DETACH) }

// abort makes the file system read-only while it is in use, as it does by itself
// when its device fails. What was not synced is lost.
func (v *volume) abort() {
	v.t.Helper()
	tool(v.t, "mount", "mount", "-o", "remount,abort", v.dir)
}

// again unmounts and mounts the file system, as after a repair.
func (v *volume) again() {
	v.t.Helper()
	if err := unix.Unmount(v.dir, 0); err != nil {
		v.t.Fatal(err)
	}
	v.mount()
}

func (v *volume) filler() string { return filepath.Join(v.dir, "filler") }

// fill leaves no block free; free takes it back.
func (v *volume) fill() {
	v.t.Helper()
	f, err := os.OpenFile(v.filler(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	_ = f.Sync()
}

func (v *volume) free() {
	v.t.Helper()
	if err := os.Remove(v.filler()); err != nil {
		v.t.Fatal(err)
	}
	unix.Sync()
}

// TestPackages: what the tests run is installed by make test.
func TestPackages(t *testing.T) {
	text, err := os.ReadFile("../packages.txt")
	if err != nil {
		t.Fatal(err)
	}
	listed := " " + strings.Join(strings.Fields(string(text)), " ") + " "
	for _, name := range []string{"mount", "e2fsprogs"} {
		if !strings.Contains(listed, " "+name+" ") {
			t.Errorf("packages.txt lacks %s", name)
		}
	}
}
