package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestInterruptedInput: what came through a pipe until a signal is not all, and
// nothing is done with it, also when the pipe's end is seen first, as ^C ends who
// writes, too. A pipe that nobody closes does not keep the signal waiting.
func TestInterruptedInput(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	write(t, filepath.Join(dir, "two.key"), "sesame two")
	write(t, filepath.Join(dir, "keep.yaml"), "machine: {type: worker}\n")
	write(t, filepath.Join(dir, "state.yaml"), twoKeys)
	sparse(t, filepath.Join(dir, "empty.img"))
	cryptctl(t, dir, 0, "disk", "create", "node.img", "--size", "8M", "--partition", "META=1M")
	const header = "interrupted; the header has either its old content or the complete new one\n"
	const other = "interrupted before it was done\n"
	same := []func(){unchanged(t, image)}
	for _, name := range []string{"keep.yaml", "empty.img", "node.img"} {
		same = append(same, unchanged(t, filepath.Join(dir, name)))
	}
	for _, tt := range []struct {
		part, want string
		args       []string
	}{
		{"part", other, []string{"meta", "set", "node.img", "11", "--partition", "META", "--value-file", "-"}},
		{`{"type": "mine", "keyslots": []}`, header, []string{"token", "import", "vol.img", "--token", "3"}},
		{"sesame three", header, cheaply("key", "add", "vol.img", "--key-file", "one.key", "--new-key-file", "-")},
		{"sesame one", header, cheaply("key", "add", "vol.img", "--key-file", "-", "--new-key-file", "two.key")},
		{"sesame three", header, cheaply("format", "empty.img", "--key-file", "-")},
		{twoKeys, header, cheaply("format", "empty.img", "--file", "-", "--volume", "STATE")},
		{"machine: {}\n", other, []string{"config", "patch", "-", "-p", "machine: {type: init}", "-o", "keep.yaml"}},
		{"machine: {type: init}\n", other, []string{"config", "patch", "state.yaml", "-p", "@-", "-o", "keep.yaml"}},
		{"machine: {}\n", other, []string{"config", "validate", "-"}},
		{"machine: {}\n", "interrupted; what the node did is not known: see cryptctl status\n", []string{"apply", "--socket", "none.sock", "--file", "-"}},
	} {
		for _, sequence := range []string{"signal", "signal, end", "end, signal"} {
			t.Run(strings.Join(tt.args[:2], " ")+": "+sequence, func(t *testing.T) {
				code, stdout, stderr := partOf(t, dir, tt.part, sequence, tt.args)
				if code != exitFailure || stdout != "" || stderr != "cryptctl: "+tt.want {
					t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
				}
			})
		}
	}
	for _, check := range same {
		check()
	}
}

// partOf runs cryptctl with a part of its input in a pipe, and, once that was
// read, sends a signal, closes the pipe, or does both in this sequence.
func partOf(t *testing.T, dir, part, sequence string, args []string) (code int, stdout, stderr string) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer write.Close()
	cmd := exec.Command("cryptctl", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var out, problem strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = read, &out, &problem
	err = cmd.Start()
	read.Close()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer late.Stop()
	if _, err := write.WriteString(part); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if n, err := unix.IoctlGetInt(int(write.Fd()), unix.TIOCINQ); err != nil {
			t.Fatal(err)
		} else if n == 0 {
			break
		}
	}
	for _, step := range strings.Split(sequence, ", ") {
		if step == "signal" {
			err = errors.Join(err, cmd.Process.Signal(unix.SIGINT))
		} else {
			err = errors.Join(err, write.Close())
		}
	}
	if err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the exit code says it
	return cmd.ProcessState.ExitCode(), out.String(), problem.String()
}
