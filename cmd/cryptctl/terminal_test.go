package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds every wait of these tests. It is only used up by failures.
const patience = 40 * time.Second

// terminal is a program on a pseudo-terminal of its own.
type terminal struct {
	t      *testing.T
	master *os.File
	cmd    *exec.Cmd
	exited chan error

	mu   sync.Mutex
	out  bytes.Buffer
	seen int // how much of out was expected already
}

// onTerminal starts cryptctl with a terminal as its standard streams, unless
// streams says otherwise.
func onTerminal(t *testing.T, dir string, args []string, streams func(*exec.Cmd)) *terminal {
	t.Helper()
	master, slave := openPTY(t)
	s := &terminal{t: t, master: master, cmd: exec.Command("cryptctl", args...), exited: make(chan error, 1)}
	s.cmd.Dir, s.cmd.Env = dir, append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = slave, slave, slave
	if streams != nil {
		streams(s.cmd)
	}
	// A session of its own, so that ^C goes to it alone.
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.mu.Lock()
			s.out.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return // EIO when the last slave is closed
			}
		}
	}()
	go func() {
		err := s.cmd.Wait()
		slave.Close()
		<-drained
		s.exited <- err
	}()
	return s
}

func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "ptmx")
	t.Cleanup(func() { master.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// text is all that the terminal showed.
func (s *terminal) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.String()
}

// expect waits for a text after what was expected before.
func (s *terminal) expect(want string) {
	s.t.Helper()
	s.until("the text "+want, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		i := strings.Index(s.out.String()[s.seen:], want)
		if i >= 0 {
			s.seen += i + len(want)
		}
		return i >= 0
	})
}

func (s *terminal) until(what string, f func() bool) {
	s.t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("%s did not come; the terminal shows %q", what, s.text())
		}
	}
}

// echoes reports whether the terminal shows what is typed.
func (s *terminal) echoes() bool {
	s.t.Helper()
	mode, err := unix.IoctlGetTermios(int(s.master.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

func (s *terminal) types(text string) {
	s.t.Helper()
	if _, err := s.master.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// answer types a passphrase after its prompt, once the echo is off.
func (s *terminal) answer(prompt, passphrase string) {
	s.t.Helper()
	s.expect(prompt)
	s.until("the end of the echo", func() bool { return !s.echoes() })
	s.types(passphrase + "\n")
}

// ends waits for the program's end and checks that no passphrase was shown.
func (s *terminal) ends(code int) {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(patience):
		s.t.Fatalf("it does not end; the terminal shows %q", s.text())
	}
	if got := s.cmd.ProcessState.ExitCode(); got != code {
		s.t.Errorf("exit code %d, want %d; the terminal shows %q", got, code, s.text())
	}
	if leaks(s.text()) {
		s.t.Errorf("a passphrase was shown: %q", s.text())
	}
}

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

func TestPassphraseIsAsked(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)

	s := onTerminal(t, dir, []string{"open", "--test", "vol.img"}, nil)
	s.answer("Passphrase: ", "sesame one")
	s.expect("slot 0 opens volume 11111111-2222-3333-4444-555555555555")
	s.ends(0)

	s = onTerminal(t, dir, []string{"open", "--test", "vol.img"}, nil)
	s.answer("Passphrase: ", "sesame none")
	s.expect("cryptctl: vol.img: no keyslot opens with this passphrase (tried 0)")
	s.ends(exitNoKey)

	s = onTerminal(t, dir, []string{"open", "--test", "vol.img"}, nil)
	s.answer("Passphrase: ", "")
	s.expect("cryptctl: vol.img: the terminal holds no passphrase: it is empty")
	s.ends(exitFailure)
	same()
}

func TestNewPassphraseIsAskedTwice(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)

	s := onTerminal(t, dir, cheaply("key", "add", "vol.img"), nil)
	s.answer("Passphrase: ", "sesame one")
	s.answer("New passphrase: ", "sesame two")
	s.answer("the same again: ", "sesame too")
	s.expect("cryptctl: the two passphrases differ; nothing was changed")
	s.ends(exitFailure)
	same()

	s = onTerminal(t, dir, cheaply("key", "add", "vol.img"), nil)
	s.answer("Passphrase: ", "sesame one")
	s.answer("New passphrase: ", "sesame two")
	s.answer("the same again: ", "sesame two")
	s.expect("added slot 1")
	s.ends(0)
	write(t, filepath.Join(dir, "two.key"), "sesame two")
	cryptctl(t, dir, 0, "open", "--test", "vol.img", "--key-file", "two.key")

	// A volume that is being made, and one with a key file: one question less.
	sparse(t, filepath.Join(dir, "new.img"))
	s = onTerminal(t, dir, cheaply("format", "new.img"), nil)
	s.answer("New passphrase: ", "sesame two")
	s.answer("the same again: ", "sesame two")
	s.expect("formatted volume ")
	s.ends(0)
	s = onTerminal(t, dir, cheaply("key", "replace", "new.img", "--slot", "0", "--key-file", "two.key"), nil)
	s.answer("New passphrase: ", "sesame one")
	s.answer("the same again: ", "sesame one")
	s.expect("replaced slot 0")
	s.ends(0)
	cryptctl(t, dir, 0, "open", "--test", "new.img", "--key-file", "one.key")
}

func TestConfirmation(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	write(t, filepath.Join(dir, "token.json"), `{"type":"mine","keyslots":[]}`)
	cryptctl(t, dir, 0, "token", "import", "vol.img", "--token", "4", "--json-file", "token.json")
	cryptctl(t, dir, 0, "header", "backup", "vol.img", "vol.bak")
	same := unchanged(t, image)
	const uuid = "11111111-2222-3333-4444-555555555555"
	for _, tt := range []struct {
		name, ask, word, done string
		args                  []string
	}{
		{"token remove", "A key whose passphrase only token 4 (mine) can give is lost with it.\r\nType 4 to go on: ", "4", "removed token 4", []string{"token", "remove", "vol.img", "--token", "4"}},
		{"header restore", "The header of vol.img will be replaced.\r\nType restore to go on: ", "restore", "restored; sequence is now ", []string{"header", "restore", "vol.img", "vol.bak"}},
		{"erase", "All data of volume " + uuid + " on vol.img will be lost for good.\r\nType " + uuid + " to go on: ", uuid, "erased volume " + uuid, []string{"erase", "vol.img"}},
	} {
		for _, wrong := range []string{"yes\n", "\n", "\x04"} {
			s := onTerminal(t, dir, tt.args, nil)
			s.expect(tt.ask)
			s.types(wrong)
			s.expect("cryptctl: not confirmed; nothing was changed")
			s.ends(exitFailure)
			same()
		}
		s := onTerminal(t, dir, tt.args, nil)
		s.expect(tt.ask)
		s.types(tt.word + "\n")
		s.expect(tt.done)
		s.ends(0)
		same = unchanged(t, image)
	}
}

func TestProgress(t *testing.T) {
	t.Parallel()
	dir, _ := volumeIn(t)
	slow := []string{"key", "add", "vol.img", "--key-file", "one.key", "--new-key-file", "one.key", "--pbkdf-memory", "16384", "--pbkdf-force-iterations", "4", "--pbkdf-parallel", "1"}
	s := onTerminal(t, dir, slow, nil)
	s.expect("\r\x1b[Kderiving a key: argon2id, 4 passes over 16 MiB, 1 lanes\r\x1b[K")
	s.expect("added slot 1")
	s.ends(0)
	// Results on a pipe, messages on the terminal: progress is still seen.
	var out strings.Builder
	s = onTerminal(t, dir, slow, func(c *exec.Cmd) { c.Stdout = &out })
	s.expect("deriving a key: ")
	s.ends(0)
	if out.String() != "added slot 2\n" {
		t.Errorf("stdout has %q", out.String())
	}
	// And the other way round: none.
	var problem strings.Builder
	s = onTerminal(t, dir, slow, func(c *exec.Cmd) { c.Stderr = &problem })
	s.expect("added slot 3")
	s.ends(0)
	if problem.Len() > 0 || strings.Contains(s.text(), "deriving") {
		t.Errorf("stderr has %q, the terminal %q", problem.String(), s.text())
	}
}

// TestInterruptAtPrompt: ^C ends a question, and the terminal shows again what
// is typed.
func TestInterruptAtPrompt(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)
	const sentence = "cryptctl: interrupted; the header is as it was or as it was to be"
	for _, tt := range []struct {
		prompt string
		args   []string
	}{
		{"Passphrase: ", []string{"open", "--test", "vol.img"}},
		{"New passphrase: ", cheaply("key", "add", "vol.img", "--key-file", "one.key")},
	} {
		s := onTerminal(t, dir, tt.args, nil)
		s.expect(tt.prompt)
		s.until("the end of the echo", func() bool { return !s.echoes() })
		s.types("half of a ses") // it stays unseen
		s.types("\x03")
		s.expect(sentence)
		s.ends(exitFailure)
		if !s.echoes() {
			t.Error("the terminal is left without echo")
		}
	}
	s := onTerminal(t, dir, []string{"erase", "vol.img"}, nil)
	s.expect(" to go on: ")
	s.types("\x03")
	s.expect(sentence)
	s.ends(exitFailure)
	same()
}

// TestInterruptDerivation: ^C while a key is derived leaves the header as it
// was.
func TestInterruptDerivation(t *testing.T) {
	t.Parallel()
	dir, image := volumeIn(t)
	same := unchanged(t, image)
	write(t, filepath.Join(dir, "two.key"), "sesame two")
	slow := []string{"key", "add", "vol.img", "--key-file", "one.key", "--new-key-file", "two.key", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000000"}
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM} {
		s := onTerminal(t, dir, slow, nil)
		s.expect("deriving a key: pbkdf2-sha256, 1000000 iterations")
		if sig == unix.SIGINT {
			s.types("\x03")
		} else if err := s.cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		s.expect("cryptctl: interrupted; the header is as it was or as it was to be")
		s.ends(exitFailure)
		same()
		if !regexp.MustCompile(`(?s)deriving a key: [^\r]*\r\x1b\[K[^\n]*cryptctl: interrupted`).MatchString(s.text()) &&
			!regexp.MustCompile(`(?s)\^C.*\r\x1b\[Kcryptctl: interrupted`).MatchString(s.text()) {
			t.Errorf("the sentence does not stand on a line of its own: %q", s.text())
		}
	}
	out, _ := cryptctl(t, dir, 0, "check", "vol.img")
	if out != "vol.img: sound\n" {
		t.Errorf("check says %q", out)
	}
	// A second ^C ends it at once.
	s := onTerminal(t, dir, append(slow[:len(slow)-1:len(slow)-1], "60000000"), nil)
	s.expect("deriving a key: ")
	s.types("\x03")
	time.Sleep(200 * time.Millisecond) // the first one takes its handler away
	begin := time.Now()
	s.types("\x03")
	s.ends(-1)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v to end", took)
	}
	same()
}
