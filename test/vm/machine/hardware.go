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

// hardware returns QEMU's arguments for the machine, all but the back ends of
// the character devices "console" and "agent". tpm is swtpm's socket; extra is
// one more word for the kernel.
func (c Config) hardware(tpm, extra string) []string {
	words := append([]string{
		"console=ttyS0", "rdinit=/init", "loglevel=5",
		"panic=-1",                       // a panic ends QEMU, with -no-reboot
		"cryptomgr.notests",              // self-tests of every cipher take seconds here
		"random.trust_cpu=1",             // no waiting for entropy
		"tsc=reliable", "no_timer_check", // an emulated clock on a busy host fails the kernel's checks
	}, c.Append...)
	if extra != "" {
		words = append(words, extra)
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35,accel=tcg", "-cpu", "max", "-smp", strconv.Itoa(c.CPUs), "-m", fmt.Sprintf("%dM", c.MemoryMiB),
		"-kernel", c.Kernel.Image, "-initrd", c.Initramfs, "-append", strings.Join(words, " "),
		"-serial", "chardev:console",
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=" + wire.Port,
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
