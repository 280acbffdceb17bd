package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	beforeRotation = `machine:
  systemDiskEncryption:
    state:
      keys:
        - {slot: 0, static: {passphrase: sesame kept}}
        - {slot: 1, static: {passphrase: sesame old}}
        - {slot: 2, static: {passphrase: sesame old}}
`
	afterRotation = `machine:
  systemDiskEncryption:
    state:
      keys:
        - {slot: 0, static: {passphrase: sesame kept}}
        - {slot: 1, static: {passphrase: sesame new}}
        - {slot: 3, static: {passphrase: sesame new}}
`
)

// TestInterruptedSync sends signals at moments all over a sync. After each the
// header is sound and has the old set of keys or the new one. SIGKILL, which
// nobody can answer, may leave one copy damaged, and that is all it may.
func TestInterruptedSync(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "before.yaml"), beforeRotation)
	write(t, filepath.Join(dir, "after.yaml"), afterRotation)
	sparse(t, filepath.Join(dir, "first.img"))
	cryptctl(t, dir, 0, cheaply("format", "first.img", "--file", "before.yaml", "--volume", "STATE")...)
	image := filepath.Join(dir, "vol.img")
	begin := time.Now()
	interrupted(t, dir, image, unix.SIGINT, time.Hour)
	took := time.Since(begin)

	counts := map[string]int{}
	for i := range 26 {
		sig := unix.SIGINT
		if i >= 20 {
			sig = unix.SIGKILL
		}
		moment := time.Duration(rand.Int64N(int64(took)))
		outcome := interrupted(t, dir, image, sig, moment)
		counts[sig.String()+": "+outcome]++
	}
	t.Logf("a sync takes %v; %v", took.Round(time.Millisecond), counts)
	if counts["interrupt: old keys"] == 0 {
		t.Error("no sync was interrupted")
	}
}

// TestTwoFormats: of two that find a device empty at the same time one makes its
// volume, and the other touches nothing.
func TestTwoFormats(t *testing.T) {
	t.Parallel()
	for range 3 {
		dir := t.TempDir()
		sparse(t, filepath.Join(dir, "vol.img"))
		var racers [2]*exec.Cmd
		for i, name := range []string{"one", "two"} {
			write(t, filepath.Join(dir, name+".key"), "sesame "+name)
			racers[i] = exec.Command("cryptctl", cheaply("format", "vol.img", "--key-file", name+".key")...)
			racers[i].Dir, racers[i].Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
		}
		for _, r := range racers {
			if err := r.Start(); err != nil {
				t.Fatal(err)
			}
		}
		codes := map[int]string{}
		for i, r := range racers {
			r.Wait()
			codes[r.ProcessState.ExitCode()] = []string{"one", "two"}[i]
		}
		winner, loser := codes[exitOK], codes[exitNotEmpty]
		if winner == "" || loser == "" {
			t.Fatalf("exit codes %v", codes)
		}
		cryptctl(t, dir, exitOK, "open", "--test", "vol.img", "--key-file", winner+".key")
		cryptctl(t, dir, exitNoKey, "open", "--test", "vol.img", "--key-file", loser+".key")
		if out, _ := cryptctl(t, dir, exitOK, "check", "vol.img"); out != "vol.img: sound\n" {
			t.Errorf("check says %q", out)
		}
	}
}

// interrupted runs a sync on a fresh copy, with a signal after a while, and
// returns which keys open the volume.
func interrupted(t *testing.T, dir, image string, sig unix.Signal, after time.Duration) (outcome string) {
	t.Helper()
	os.Remove(image)
	if out, err := exec.Command("cp", "--sparse=always", filepath.Join(dir, "first.img"), image).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	cmd := exec.Command("cryptctl", cheaply("sync", "vol.img", "--file", "after.yaml", "--volume", "STATE")...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { cmd.Process.Signal(sig) })
	cmd.Wait()
	timer.Stop()
	outcome = whichKeys(t, image, sig == unix.SIGKILL)
	switch code := cmd.ProcessState.ExitCode(); {
	case code == exitOK && outcome == "new keys":
	case code == exitFailure && stderr.String() == "cryptctl: interrupted; the header has either its old content or the complete new one\n":
	case code == -1 && sig == unix.SIGKILL:
	case code == -1 && outcome == "old keys": // before the handler was there
	default:
		t.Errorf("%v after %v: exit code %d and %s\n%s%s", sig, after, code, outcome, stdout.String(), stderr.String())
	}
	return outcome
}

// whichKeys says whether the old set or the new one opens the volume, of which
// each key must do what its set says.
func whichKeys(t *testing.T, image string, killed bool) string {
	t.Helper()
	f, err := luks.OpenFile(image, luks.ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := luks.Read(f)
	if err != nil {
		t.Fatalf("the header cannot be read: %v", err)
	}
	for _, c := range h.Copies() {
		if c.State != luks.CopyGood && !killed {
			t.Errorf("the %s copy is %s", c.Name, c.State)
		}
	}
	for _, r := range h.Trust(kdf.Limits{}) {
		t.Errorf("the header is not trusted: %v", r)
	}
	left, err := h.Leftovers()
	if err != nil || len(left) > 0 && !killed {
		t.Errorf("leftovers %v, %v", left, err)
	}
	opens := func(slot int, passphrase string) bool {
		p := secret.Take([]byte(passphrase))
		defer p.Wipe()
		key, err := h.Unlock(t.Context(), p, luks.UnlockOptions{Slots: []int{slot}})
		defer key.Wipe()
		if _, there := h.Keyslot(slot); err != nil && there && !errors.Is(err, luks.ErrWrongPassphrase) {
			t.Errorf("slot %d: %v", slot, err)
		}
		return err == nil
	}
	if !opens(0, "sesame kept") {
		t.Error("the key that was to be kept does not open")
	}
	old := [2]bool{opens(1, "sesame old"), opens(2, "sesame old")}
	fresh := [2]bool{opens(1, "sesame new"), opens(3, "sesame new")}
	switch all, none := [2]bool{true, true}, [2]bool{}; {
	case old == all && fresh == none:
		return "old keys"
	case old == none && fresh == all:
		return "new keys"
	}
	t.Errorf("old keys open %v, new keys %v: a mixture", old, fresh)
	return "a mixture"
}
