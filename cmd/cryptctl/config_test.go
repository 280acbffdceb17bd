package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

// TestMistakesHeader: however many mistakes there are, the lines are those below
// the header, and all of it is taken out again.
func TestMistakesHeader(t *testing.T) {
	t.Parallel()
	const text = "# cryptctl: mine\nmachine: {}\n"
	for _, n := range []int{1, 19, 20, 21, 1000} {
		var all config.Errors
		for range n {
			all = append(all, &config.Error{Position: config.Position{File: "f", Line: 2}, Field: "machine", Problem: "is wrong", Fix: "mend it"})
		}
		header := mistakesHeader(all)
		said := fmt.Sprintf("#   line %d: machine: is wrong; mend it\n", strings.Count(header, "\n")+2)
		said = strings.Replace(said, "#", "# cryptctl:", 1)
		if got := strings.Count(header, said); got != min(n, 20) {
			t.Errorf("%d mistakes: %d lines %q in\n%s", n, got, said, header)
		}
		if more := strings.Contains(header, fmt.Sprintf("and %d more\n", n-20)); more != (n > 20) {
			t.Errorf("%d mistakes: says that there are more: %v", n, more)
		}
		for _, edited := range []string{header + text, strings.ReplaceAll(header, "\n", "\r\n") + text, text} {
			if got := string(withoutHeader([]byte(edited), header)); got != text {
				t.Errorf("%d mistakes: %q is left", n, got)
			}
		}
	}
	if got := string(withoutHeader([]byte(text), "")); got != text {
		t.Errorf("without a header: %q is left", got)
	}
}

// TestEditOnTerminal: the editor has the terminal, and ^C is its own.
func TestEditOnTerminal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "m.yaml"), "machine:\n  token: sesame\n")
	script := filepath.Join(dir, "editor.sh")
	write(t, script, "#!/bin/sh\ntrap '' INT\necho ready\nread answer\nprintf '  type: %s\\n' \"$answer\" >> \"$1\"\n")
	if err := os.Chmod(script, 0o700); err != nil {
		t.Fatal(err)
	}
	s := onTerminal(t, dir, []string{"config", "edit", "m.yaml"}, func(cmd *exec.Cmd) {
		cmd.Env = append(cmd.Env, "TALOS_EDITOR="+script)
	})
	s.expect("ready")
	for range 2 { // a second one is no other
		s.types("\x03")
		s.expect("^C")
	}
	s.types("worker\n")
	s.expect("m.yaml was changed\r\n")
	s.expect("worker")
	s.ends(0)
	if got, err := os.ReadFile(filepath.Join(dir, "m.yaml")); err != nil || string(got) != "machine:\n  token: sesame\n  type: worker\n" {
		t.Errorf("the file has %q, %v", got, err)
	}
}

// TestPrivateDir: a place that is not there, or may not be used, is passed over.
func TestPrivateDir(t *testing.T) {
	t.Parallel()
	good := t.TempDir()
	file := filepath.Join(good, "file")
	write(t, file, "")
	dir, err := privateDir(file, "", ".", filepath.Join(good, "none"), file, good)
	if err != nil || filepath.Dir(dir) != good {
		t.Fatalf("made %q, %v", dir, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("it has %v, %v", info.Mode(), err)
	}
	if dir, err := privateDir(file); err == nil {
		t.Errorf("made %s below a file", dir)
	}
}

// TestPrivateDirOfOthers: a directory that someone else could put another in the
// place of is passed over, also below one that is.
func TestPrivateDirOfOthers(t *testing.T) {
	t.Parallel()
	needRoot(t)
	last := t.TempDir()
	for _, tt := range []struct {
		name  string
		uid   int
		mode  os.FileMode
		taken bool
	}{
		{"ours", 0, 0o755, true},
		{"nobody's", nobody, 0o700, false},
		{"nobody's, sticky", nobody, 0o777 | os.ModeSticky, false},
		{"a group's", 0, 0o770, false},
		{"everyone's", 0, 0o707, false},
		{"sticky", 0, 0o777 | os.ModeSticky, true},
	} {
		above := t.TempDir()
		for _, parent := range []string{above, filepath.Join(above, "below"), filepath.Join(last, tt.name)} {
			if err := errors.Join(os.MkdirAll(filepath.Join(above, "below"), 0o700), os.Chown(above, tt.uid, 0), os.Chmod(above, tt.mode)); err != nil {
				t.Fatal(err)
			}
			if filepath.Dir(parent) == last {
				if err := os.Symlink(above, parent); err != nil {
					t.Fatal(err)
				}
			}
			dir, err := privateDir(last, parent)
			if err != nil {
				t.Fatal(err)
			}
			if got := filepath.Dir(dir); got != map[bool]string{true: above, false: last}[tt.taken] && (!tt.taken || got != filepath.Join(above, "below")) {
				t.Errorf("%s: for %s it is in %s", tt.name, parent, got)
			}
		}
	}
}

// TestInterruptedReading: a command that waits for stdin ends with the first
// signal.
func TestInterruptedReading(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "m.yaml"), "machine: {}\n")
	for _, args := range [][]string{
		{"config", "show", "-"},
		{"config", "validate", "-f", "-"},
		{"config", "diff", "m.yaml", "-"},
		{"config", "patch", "-", "-p", "{}"},
		{"config", "patch", "m.yaml", "-p", "@-"},
	} {
		cmd := exec.Command("cryptctl", args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// More than a pipe holds: when it is written, it is read.
		if _, err := in.Write(bytes.Repeat([]byte("#\n"), 256<<10)); err != nil {
			t.Errorf("%v: %v", args, err)
		}
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		kill.Stop()
		if got := cmd.ProcessState.ExitCode(); got != exitFailure || stderr.String() != "cryptctl: interrupted before it was done\n" {
			t.Errorf("%v: exit code %d, %q", args, got, stderr.String())
		}
	}
}

// TestConfigDocument: docs/config.md names every command and flag of config, and
// its example of deletions does what it says.
func TestConfigDocument(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	walk(configCommand(), func(cmd *cobra.Command) {
		if !strings.Contains(text, "cryptctl config "+cmd.Name()+" ") {
			t.Errorf("config %s is not there", cmd.Name())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(text, "--"+f.Name) && (f.Shorthand == "" || !strings.Contains(text, "`-"+f.Shorthand)) {
				t.Errorf("config %s --%s is not there", cmd.Name(), f.Name)
			}
		})
	})
	_, example, _ := strings.Cut(text, "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	p, err := patch.Load("example", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	s, err := document.Read("machine", []byte(`machine:
  sysctls: {a: "1"}
  network: {interfaces: [{interface: eth0}, {interface: eth1}]}
  systemDiskEncryption: {state: {keys: [{slot: 0, nodeID: {}}, {slot: 1, nodeID: {}}]}}
---
apiVersion: v1alpha1
kind: KmsgLogConfig
name: siem
`))
	if err != nil {
		t.Fatal(err)
	}
	out, err := patch.Options{}.Apply(s, p)
	if err != nil {
		t.Fatal(err)
	}
	const want = `machine:
  network: {interfaces: [{interface: eth0}]}
  systemDiskEncryption: {state: {keys: [{slot: 0, nodeID: {}}]}}
`
	if got := string(out.Bytes()); got != want {
		t.Errorf("it makes\n%s", got)
	}
}
