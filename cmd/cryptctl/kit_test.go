package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cryptctl runs the program on pipes, which must end with a code, and returns
// what it wrote.
func cryptctl(t *testing.T, dir string, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command("cryptctl", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var out, problem strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("cryptctl %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, code, out.String(), problem.String())
	}
	if problem := misbehaves(code, args, out.String(), problem.String()); problem != "" {
		t.Errorf("cryptctl %s: %s", strings.Join(args, " "), problem)
	}
	return out.String(), problem.String()
}

func cheaply(text ...string) []string { return append(text, strings.Fields(cheap)...) }

// volumeIn makes an image with a volume that the passphrase "sesame one" opens.
func volumeIn(t *testing.T) (dir, image string) {
	t.Helper()
	dir = t.TempDir()
	image = filepath.Join(dir, "vol.img")
	write(t, filepath.Join(dir, "one.key"), "sesame one")
	sparse(t, image)
	cryptctl(t, dir, 0, cheaply("format", "vol.img", "--key-file", "one.key", "--uuid", "11111111-2222-3333-4444-555555555555")...)
	return dir, image
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func sparse(t *testing.T, path string) {
	t.Helper()
	write(t, path, "")
	if err := os.Truncate(path, 20<<20); err != nil {
		t.Fatal(err)
	}
}

// unchanged returns a check that a file holds what it holds now.
func unchanged(t *testing.T, path string) (check func()) {
	t.Helper()
	was, err := fileSum(path)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if is, err := fileSum(path); err != nil || is != was {
			t.Errorf("%s changed: %v", filepath.Base(path), err)
		}
	}
}
