package tpmtest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"
)

// Machine is a software TPM in a process of its own. Its methods may be used by
// several goroutines.
type Machine struct {
	t    testing.TB
	dir  string
	mu   sync.Mutex
	cmd  *exec.Cmd
	out  bytes.Buffer
	conn net.Conn
	lent bool // may be left without a connection

	released bool // is without one, but while a command is answered
}

// Start starts a TPM with seeds of its own: no two machines have a key in
// common. It is stopped when the test ends.
func Start(t testing.TB) *Machine {
	t.Helper()
	return begin(t, false)
}

// StartShared starts a TPM that can be lent to other programs.
func StartShared(t testing.TB) *Machine {
	t.Helper()
	return begin(t, true)
}

func begin(t testing.TB, lent bool) *Machine {
	t.Helper()
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Fatal("swtpm is not installed, and this test needs it: apt-get install swtpm")
	}
	// Not t.TempDir: with a long test name its path does not fit a socket address.
	dir, err := os.MkdirTemp("", "swtpm")
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{t: t, dir: dir, lent: lent}
	t.Cleanup(func() {
		m.stop()
		os.RemoveAll(dir)
	})
	m.start()
	return m
}

func (m *Machine) start() {
	m.t.Helper()
	data, ctrl := m.socket(), m.socket()+".ctrl"
	os.Remove(data) // swtpm leaves its sockets behind
	os.Remove(ctrl)
	m.out.Reset()
	args := []string{
		"socket", "--tpm2", "--tpmstate", "dir=" + m.dir, "--server", "type=unixio,path=" + data,
		"--ctrl", "type=unixio,path=" + ctrl, "--flags", "not-need-init,startup-clear",
	}
	if !m.lent {
		// It ends when the connection does: also when the test binary dies without a
		// clean-up.
		args = append(args, "--terminate")
	}
	m.cmd = exec.Command("swtpm", args...)
	m.cmd.Stdout, m.cmd.Stderr = &m.out, &m.out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatalf("start swtpm: %v", err)
	}
	m.dial()
}

func (m *Machine) dial() {
	m.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		conn, err := net.Dial("unix", m.socket())
		if err == nil {
			m.conn = conn
			return
		}
		if time.Now().After(end) {
			m.t.Fatalf("swtpm does not answer: %v\n%s", err, m.out.String())
		}
	}
}

// socket is where commands go; control commands go to the same with ".ctrl", as
// the TCG's software stack expects it.
func (m *Machine) socket() string { return filepath.Join(m.dir, "tpm") }

// Release leaves the TPM of [StartShared] to other programs for good, and returns
// the path of its socket. What is asked of it from then on gets a connection for
// each command.
func (m *Machine) Release() (socket string) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lent {
		m.t.Fatal("only a TPM of StartShared can be released")
	}
	m.released = true
	m.conn.Close()
	return m.socket()
}

// Lend hands the TPM of [StartShared] to another program, which finds it as
// swtpm:path=PATH, and takes it back when f returns.
func (m *Machine) Lend(f func(path string)) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.lent {
		m.t.Fatal("only a TPM of StartShared can be lent")
	}
	m.conn.Close()
	f(m.socket())
	m.dial()
}

func (m *Machine) stop() {
	if m.conn != nil {
		m.conn.Close()
	}
	if m.lent {
		m.cmd.Process.Kill()
	}
	done := make(chan struct{})
	go func() { m.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		m.cmd.Process.Kill()
		<-done
	}
}

// Restart is what a reboot does to a TPM: registers at zero, nothing loaded, the
// seeds and what is persistent as before.
func (m *Machine) Restart() {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop()
	m.start()
	if m.released {
		m.conn.Close()
	}
}

// Send implements [transport.TPM]: one command, one answer.
func (m *Machine) Send(command []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.released {
		m.dial()
		defer func() { m.conn.Close() }()
	}
	if _, err := m.conn.Write(command); err != nil {
		return nil, err
	}
	answer := make([]byte, 4096)
	n, err := m.conn.Read(answer)
	return answer[:n], err
}

// Close implements [transport.TPMCloser]; the machine goes on.
func (m *Machine) Close() error { return nil }

// Open returns the machine as those who open a device get it.
func (m *Machine) Open() (transport.TPMCloser, error) { return m, nil }

// Dir is the folder of the TPM's state.
func (m *Machine) Dir() string { return m.dir }
