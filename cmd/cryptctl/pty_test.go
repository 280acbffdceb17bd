package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
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
