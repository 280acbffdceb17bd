package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// Words is the kernel's command line: what all machines have, and what Append
// says.
func (c Config) Words() string {
	return strings.Join(append([]string{
		"console=ttyS0", "rdinit=/init", "loglevel=5",
		"panic=-1",                       // a panic ends QEMU, with -no-reboot
		"cryptomgr.notests",              // self-tests of every cipher take seconds here
		"random.trust_cpu=1",             // no waiting for entropy
		"tsc=reliable", "no_timer_check", // an emulated clock on a busy host fails the kernel's checks
	}, c.Append...), " ")
}

// hardware returns QEMU's arguments for the machine, all but the back ends of
// the character devices "console" and "agent". tpm is swtpm's socket.
func (c Config) hardware(tpm string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35,accel=tcg", "-cpu", "max", "-smp", strconv.Itoa(c.CPUs), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=" + wire.Port,
	}
	if c.Firmware != nil {
		args = append(args, c.Firmware.args()...)
	} else {
		args = append(args, "-kernel", c.Kernel.Image, "-initrd", c.Initramfs, "-append", c.Words())
	}
	for i, d := range c.Disks {
		args = append(args, d.args(i)...)
	}
	if tpm != "" {
		args = append(args, "-chardev", "socket,id=tpm,path="+tpm, "-tpmdev", "emulator,id=tpm0,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm0")
	}
	return append(args, c.Args...)
}

// Disk is a raw image that survives the machines it is in.
type Disk struct {
	Path     string
	ReadOnly bool

	recording *Recording // see [Record]
	socket    string     // of the server, in a machine that runs
}

// NewDisk makes a blank disk, which goes with the test.
func NewDisk(t testing.TB, size int64) *Disk {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return &Disk{Path: path}
}

func (d *Disk) args(i int) []string {
	drive := fmt.Sprintf("file=%s,format=raw,if=none,id=disk%d,cache=writeback,discard=unmap", d.Path, i)
	if d.socket != "" {
		drive = fmt.Sprintf("driver=nbd,server.type=unix,server.path=%s,if=none,id=disk%d,cache=writeback,discard=unmap", d.socket, i)
	}
	if d.ReadOnly {
		drive += ",readonly=on"
	}
	return []string{"-drive", drive, "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=disk%d", i, i)}
}
