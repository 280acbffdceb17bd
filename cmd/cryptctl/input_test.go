package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/secret"
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

// TestInterruptedSecret: what was read and is given to nobody, as a signal came
// first, is wiped.
func TestInterruptedSecret(t *testing.T) {
	t.Parallel()
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("a secret", func(t *testing.T) {
		t.Parallel()
		wipedWhenInterrupted(t, pipe, func() (*secret.Bytes, *secret.Bytes) {
			s := secret.Copy([]byte("sesame"))
			return s, s
		})
	})
	t.Run("a configuration", func(t *testing.T) {
		t.Parallel()
		wipedWhenInterrupted(t, pipe, func() (*config.Config, *secret.Bytes) {
			s := secret.Copy([]byte("sesame"))
			return &config.Config{Volumes: []config.Encryption{{Keys: []config.Key{{Static: &config.Static{Passphrase: s}}}}}}, s
		})
	})
	t.Run("no configuration", func(t *testing.T) {
		t.Parallel()
		wipedWhenInterrupted(t, pipe, func() (*config.Config, *secret.Bytes) { return nil, nil })
	})
}

// wipedWhenInterrupted reads what made returns, and the secret inside, while a
// signal comes at each moment that matters.
func wipedWhenInterrupted[T comparable](t *testing.T, pipe string, made func() (T, *secret.Bytes)) {
	t.Helper()
	for _, tt := range []struct {
		when          string
		input         string
		takes, signal time.Duration
	}{
		{"before all is read", "none", 2 * settle, settle},
		{"as all is read", "none", settle, settle},
		{"after the end of a pipe", pipe, settle, settle + settle/2},
	} {
		synctest.Test(t, func(t *testing.T) {
			came := errors.New("signal")
			ctx, stop := context.WithCancelCause(t.Context())
			defer stop(nil)
			value, inside := made()
			time.AfterFunc(tt.signal, func() { stop(came) })
			got, err := awaitInput(ctx, func() (T, error) {
				time.Sleep(tt.takes)
				if tt.takes == tt.signal {
					<-ctx.Done()
				}
				return value, nil
			}, tt.input)
			var none T
			if got != none || !errors.Is(err, came) {
				t.Errorf("%s: %v, %v", tt.when, got, err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if n := inside.Len(); n != 0 {
				t.Errorf("%s: %d bytes are left", tt.when, n)
			}
		})
	}
}

// TestInterruptedAnswer: what is typed as a signal comes is no answer, and wiped.
func TestInterruptedAnswer(t *testing.T) {
	t.Parallel()
	came := errors.New("signal")
	for range 100 { // which of the two is seen first is chance
		synctest.Test(t, func(t *testing.T) {
			ctx, stop := context.WithCancelCause(t.Context())
			typed := []byte("sesame")
			got, err := interruptible(ctx, func() ([]byte, error) {
				stop(came)
				return typed, nil
			})
			if got != nil || !errors.Is(err, came) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			synctest.Wait()
			if string(typed) != "\x00\x00\x00\x00\x00\x00" {
				t.Fatal("what was typed is left")
			}
		})
	}
}
