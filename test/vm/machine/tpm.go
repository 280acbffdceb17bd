package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// TPM is an emulated TPM 2.0 whose state survives the machines it is in.
type TPM struct {
	State string // directory
}

// NewTPM makes a fresh TPM, which goes with the test. It has the SHA-256 bank
// only: firmware hashes an image once for each.
func NewTPM(t testing.TB) *TPM {
	t.Helper()
	p := &TPM{State: t.TempDir()}
	if err := runTool("", "swtpm_setup", "--tpm2", "--tpmstate", p.State, "--pcr-banks", "sha256"); err != nil {
		t.Fatal(err)
	}
	return p
}

// Copy returns a TPM with the same keys. The machine that this one is in must be
// off.
func (p *TPM) Copy(t testing.TB) *TPM {
	t.Helper()
	other := &TPM{State: t.TempDir()}
	if err := os.CopyFS(other.State, os.DirFS(p.State)); err != nil {
		t.Fatal(err)
	}
	return other
}

// Clear does what the firmware's setup does to clear a TPM: all keys that it has
// sealed are lost, its endorsement key stays.
func (p *TPM) Clear(t testing.TB) {
	t.Helper()
	swtpm, err := FindProgram("swtpm")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	cmd := exec.Command(swtpm, "socket", "--tpm2", "--tpmstate", "dir="+p.State, "--fd", "3", "--flags", "not-need-init,startup-clear")
	cmd.ExtraFiles = []*os.File{theirs}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	_, err = tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}}.Execute(transport.FromReadWriter(ours))
	ours.Close() // which ends swtpm
	if err := errors.Join(err, cmd.Wait()); err != nil {
		t.Fatalf("clear the TPM: %v", err)
	}
}

// start starts swtpm for one machine and returns its control socket. It ends
// when QEMU closes the connection.
func (p *TPM) start(t testing.TB, dir string) (socket string, err error) {
	swtpm, err := FindProgram("swtpm")
	if err != nil {
		return "", err
	}
	socket = filepath.Join(dir, "tpm")
	cmd := exec.Command(swtpm, "socket", "--tpm2", "--tpmstate", "dir="+p.State,
		"--ctrl", "type=unixio,path="+socket, "--terminate")
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return socket, nil
		}
		select {
		case err := <-ended:
			return "", fmt.Errorf("swtpm ended at once: %w", err)
		default:
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("swtpm made no socket %s", socket)
		}
	}
}
