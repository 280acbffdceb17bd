package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// TPM is an emulated TPM 2.0 whose state survives the machines it is in.
type TPM struct {
	State string // directory
}

// NewTPM makes a fresh TPM, which goes with the test.
func NewTPM(t testing.TB) *TPM {
	t.Helper()
	return &TPM{State: t.TempDir()}
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
