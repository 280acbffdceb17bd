package interop_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// TestMain puts the images in memory where there is room: cryptsetup syncs after
// every few writes, and a disk makes that most of the time of a run.
func TestMain(m *testing.M) {
	var fs unix.Statfs_t
	const shm = "/dev/shm"
	if os.Getenv("TMPDIR") == "" && unix.Statfs(shm, &fs) == nil && uint64(fs.Bsize)*fs.Bavail > 2<<30 {
		os.Setenv("TMPDIR", shm)
	}
	os.Setenv("LC_ALL", "C")
	os.Exit(m.Run())
}

// debian returns the Debian package of a program that the tests run.
func debian(program string) string {
	switch program {
	case "cryptsetup":
		return "cryptsetup-bin"
	case "strace":
		return "strace"
	case "systemd-cryptenroll":
		return "systemd"
	case "swtpm":
		return "swtpm"
	case "tpm2": // for the libraries that systemd-cryptenroll loads
		return "tpm2-tools"
	}
	panic("no package is named for " + program)
}

// program returns the path of a program. A missing one fails the test.
func program(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/sbin", "/sbin") {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	t.Fatalf("%s is needed: install the Debian package %s", name, debian(name))
	return ""
}

func TestPackages(t *testing.T) {
	text, err := os.ReadFile("packages.txt")
	if err != nil {
		t.Fatal(err)
	}
	listed := strings.Fields(string(text))
	for _, name := range []string{"cryptsetup", "strace", "systemd-cryptenroll", "swtpm", "tpm2"} {
		if !slices.Contains(listed, debian(name)) {
			t.Errorf("packages.txt lacks %s", debian(name))
		}
	}
	t.Logf("judged by %s", strings.TrimSpace(cryptsetup(t, "--version")))
}

// result is how a program ended.
type result struct {
	code   int // -1: by a signal
	signal unix.Signal
	out    string
}

// patience is how long a program may run that should take a fraction of a
// second.
const patience = time.Minute

// run runs a program to its end, or kills it with SIGKILL at the limit.
func run(t testing.TB, limit time.Duration, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, program(t, name), args...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	return result{status.ExitStatus(), status.Signal(), string(out)}
}

// try runs cryptsetup and returns how it ended.
func try(t testing.TB, args ...string) result {
	t.Helper()
	return run(t, patience, "cryptsetup", append([]string{"-q"}, args...)...)
}

// cryptsetup runs cryptsetup, which must succeed.
func cryptsetup(t testing.TB, args ...string) string {
	t.Helper()
	r := try(t, args...)
	if r.code != 0 {
		t.Fatalf("cryptsetup %s: exit %d\n%s", strings.Join(args, " "), r.code, r.out)
	}
	return r.out
}

// keyFile writes a passphrase to a file: it must not stand in argv.
func keyFile(t testing.TB, pass string) string {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "key-")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(pass); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// shape is what a volume and its keyslots are made of.
type shape struct {
	kind     kdf.Kind
	keyBits  int   // of the volume key
	sector   int   // bytes
	metadata int64 // bytes of one header copy
}

// plain is the shape for tests about something else.
func plain() shape { return shape{kdf.Argon2id, 512, 512, 64 << 10} }

func (s shape) String() string {
	return fmt.Sprintf("%s/aes-%d/sector-%d/metadata-%dk", s.kind, s.keyBits, s.sector, s.metadata>>10)
}

// cost is what our keyslots cost: next to nothing.
func (s shape) cost() kdf.Cost {
	if s.kind == kdf.PBKDF2 {
		return kdf.Cost{Kind: s.kind, Hash: "sha256", Iterations: 1000}
	}
	return kdf.Cost{Kind: s.kind, Time: 4, MemoryKiB: 64, CPUs: 2}
}

// costFlags make cryptsetup's keyslots as cheap.
func (s shape) costFlags() []string {
	if s.kind == kdf.PBKDF2 {
		return []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	}
	return []string{"--pbkdf", string(s.kind), "--pbkdf-memory", "32", "--pbkdf-parallel", "1", "--pbkdf-force-iterations", "4"}
}

// lines returns the lines of a tool's output that begin with a word, without it.
func lines(out, word string) (found []string) {
	for s := bufio.NewScanner(strings.NewReader(out)); s.Scan(); {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(s.Text()), word); ok {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	return found
}
