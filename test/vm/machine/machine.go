// Package machine starts virtual machines with QEMU for the tests of test/vm:
// emulated (TCG), so that they run where /dev/kvm does not, with Debian's cloud
// kernel and an initramfs made here.
//
//	test ──calls──> guest program   virtio serial port, see package wire
//	     <─console─ kernel, guest   serial port, kept and printed on failure
//	     ──QMP────> QEMU            why the machine went off
//	     ──Kill───> QEMU            a power cut
//
// A machine may have a TPM, whose state outlives it, and may start as one of
// metal does: by firmware that verifies and measures an image ([Firmware], [UKI]).
//
// Disks are raw files with cache=writeback: what the guest writes is in the
// host's page cache at once and on its disk after a flush, so a killed QEMU
// leaves what was flushed, and mostly what was written. A disk that records
// ([Record]) can also be cut at a chosen write, and lose what was not flushed.
package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// Config says what machine is started. The zero value has no disks.
type Config struct {
	Kernel    Kernel
	Initramfs string   // a file that [Initramfs.WriteFile] wrote
	Disks     []*Disk  // /dev/vda, /dev/vdb, ...
	TPM       *TPM     // /dev/tpm0
	Append    []string // more words for the kernel's command line
	// Firmware starts the machine from an image, which has a kernel, an initramfs
	// and words of its own. Those above then serve to boot it by hand after a
	// failure.
	Firmware  *Firmware
	Args      []string // more arguments for QEMU
	MemoryMiB int      // default 512
	CPUs      int      // default 2
	// Deadline is how long the machine may run; then it is killed and the test
	// fails. Default 2 minutes.
	Deadline time.Duration
}

// Machine is a running virtual machine.
type Machine struct {
	Console *Console

	t       testing.TB
	config  Config
	dir     string
	cmd     *exec.Cmd
	agent   *agent
	qmp     *qmp
	ctx     context.Context // ends when the machine is off
	off     context.CancelCauseFunc
	stopped chan struct{}
	started time.Time
}

// Start starts a machine that is off at the end of the test. When the test fails
// it prints the console and how to boot the same machine by hand.
func Start(t testing.TB, config Config) *Machine {
	t.Helper()
	config.MemoryMiB = orDefault(config.MemoryMiB, 512)
	config.CPUs = orDefault(config.CPUs, 2)
	config.Deadline = orDefault(config.Deadline, 2*time.Minute)
	m := &Machine{Console: newConsole(), t: t, config: config, stopped: make(chan struct{}), started: time.Now()}
	m.ctx, m.off = context.WithCancelCause(context.Background())
	var err error
	if m.dir, err = os.MkdirTemp("", "vm-"); err != nil { // short: sockets have 108 bytes for their path
		t.Fatal(err)
	}
	t.Cleanup(m.finish)
	if err := m.launch(); err != nil {
		t.Fatalf("start the machine: %v", err)
	}
	return m
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// launch starts QEMU with one end of two socket pairs.
func (m *Machine) launch() error {
	qemu, err := FindProgram("qemu-system-x86_64")
	if err != nil {
		return err
	}
	tpm := ""
	if m.config.TPM != nil {
		if tpm, err = m.config.TPM.start(m.t, m.dir); err != nil {
			return err
		}
	}
	agentEnd, agentFile, err := socketPair()
	if err != nil {
		return err
	}
	qmpEnd, qmpFile, err := socketPair()
	if err != nil {
		return err
	}
	config, served, err := m.serveDisks()
	if err != nil {
		return err
	}
	args := append(config.hardware(tpm),
		"-chardev", "stdio,id=console,signal=off",
		"-chardev", "socket,id=agent,fd=3",
		"-chardev", "socket,id=qmp,fd=4", "-mon", "chardev=qmp,mode=control",
	)
	m.cmd = exec.Command(qemu, args...)
	m.cmd.ExtraFiles = []*os.File{agentFile, qmpFile}
	m.cmd.Stdout, m.cmd.Stderr = m.Console, m.Console
	if err := m.cmd.Start(); err != nil {
		return err
	}
	agentFile.Close()
	qmpFile.Close()
	m.agent, m.qmp = newAgent(agentEnd), newQMP(qmpEnd)
	limit := time.AfterFunc(m.config.Deadline, func() {
		m.t.Errorf("the machine ran for its deadline of %s and was killed", m.config.Deadline)
		m.cmd.Process.Kill()
	})
	go m.wait(limit, served)
	_, err = m.qmp.do(m.ctx, "qmp_capabilities", struct{}{})
	return err
}

// wait waits for the end of QEMU.
func (m *Machine) wait(limit *time.Timer, served []func()) {
	m.cmd.Wait()
	limit.Stop()
	for _, settle := range served {
		settle() // what QEMU had sent is on the disk now, or never will be
	}
	m.off(errOff)
	close(m.stopped)
}

// serveDisks starts the servers of the disks that record, and returns the machine
// with their sockets.
func (m *Machine) serveDisks() (config Config, served []func(), err error) {
	config = m.config
	config.Disks = slices.Clone(m.config.Disks)
	for i, d := range m.config.Disks {
		if d.recording == nil {
			continue
		}
		disk := *d
		disk.socket = filepath.Join(m.dir, fmt.Sprintf("disk%d", i))
		settle, err := d.recording.serve(disk.socket, func() { m.cmd.Process.Kill() })
		if err != nil {
			return config, nil, err
		}
		config.Disks[i], served = &disk, append(served, settle)
	}
	return config, served, nil
}

// socketPair returns a connection and the file of its other end, for QEMU.
func socketPair() (net.Conn, *os.File, error) {
	syscall.ForkLock.RLock() // a program started meanwhile would keep the ends open
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer ours.Close() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}

// Ready waits until the guest program takes calls, and returns how long the boot
// took.
func (m *Machine) Ready() time.Duration {
	m.t.Helper()
	select {
	case <-m.agent.ready:
	case <-m.ctx.Done():
		m.t.Fatalf("the machine went off while it booted: %s", m.qmp.shutdownReason())
	}
	return time.Since(m.started).Round(10 * time.Millisecond)
}

// Call asks the guest program for an act. The error is an [Error] when the act
// failed.
func (m *Machine) Call(act string, args, result any) error {
	return m.agent.call(m.ctx, act, args, result)
}

// Run runs a program in the machine.
func (m *Machine) Run(stdin string, argv ...string) (wire.Ran, error) {
	var ran wire.Ran
	err := m.Call("run", wire.Run{Argv: argv, Stdin: stdin}, &ran)
	return ran, err
}

// Expect waits for a line of the console.
func (m *Machine) Expect(pattern string) []string {
	m.t.Helper()
	groups, err := m.Console.Wait(m.ctx, regexp.MustCompile(pattern))
	if err != nil {
		m.t.Fatalf("waiting for %q on the console: %v", pattern, err)
	}
	return groups
}

// Until waits for a line of the console or the end of the machine.
func (m *Machine) Until(pattern string) {
	m.Console.Wait(m.ctx, regexp.MustCompile(pattern))
}

// PowerOff has the guest program switch the machine off, and waits for it.
func (m *Machine) PowerOff() {
	m.t.Helper()
	if err := m.Call("poweroff", struct{}{}, nil); err != nil && !errors.Is(err, errOff) {
		m.t.Fatal(err)
	}
	if reason := m.Off(); reason != "guest-shutdown" {
		m.t.Fatalf("the machine did not switch itself off in good order: %q", reason)
	}
}

// Off waits until the machine is off, and says why; see [qmp.shutdownReason].
func (m *Machine) Off() string {
	<-m.stopped
	return m.qmp.shutdownReason()
}

// Kill cuts the power. Calls under way end with an error.
func (m *Machine) Kill() {
	m.cmd.Process.Kill()
	<-m.stopped
}
