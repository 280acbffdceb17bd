//go:build linux

// Noded is a small node daemon that runs as PID 1: it links package node, brings
// the volumes up, and answers `cryptctl status`, `apply` and `reset` until the
// machine goes off. What a real one adds comes after the volumes are there.
//
// Words of the kernel's command line:
//
//	noded.run=PROGRAM     started beside the daemon
//	noded.cost=light      new keyslots cost next to nothing: for tests
//	noded.try=DURATION    how long a configuration is on trial
//	noded.root=DIR        goes before every mount point
//	noded.address=A/BITS  of the first network card; key servers are in its network
//	noded.kms-authorities=FILE  in the boot image: who may issue their certificates
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/logging"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/volume"
)

func main() {
	kms.QuietGRPC()
	do := run
	if os.Getpid() == 1 {
		do = guard
		if err := mountAll(); err != nil {
			fmt.Fprintln(os.Stderr, "noded:", err)
		}
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "noded:", err)
	}
	powerOff(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := loadModules("/modules/order"); err != nil {
		return err
	}
	if err := mountFirmware(); err != nil {
		return err
	}
	words, err := commandLine()
	if err != nil {
		return err
	}
	if err := setNetwork(words["noded.address"]); err != nil {
		fmt.Println("noded:", err) // other keys may open the volumes
	}
	if program := words["noded.run"]; program != "" {
		child := exec.Command(program)
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if err := child.Start(); err != nil {
			return err
		}
	}
	local := slog.NewTextHandler(os.Stdout, nil)
	remote := logging.NewSender(logging.Options{Service: "noded", Local: local})
	defer closeLog(remote)
	how, reboot := unix.LINUX_REBOOT_CMD_POWER_OFF, make(chan struct{}, 1)
	n, err := newNode(words, slog.New(remote.Handler(local)), func() { reboot <- struct{}{} }, func(c *config.Config) { remote.Set(c.Logging) })
	if err != nil {
		return err
	}
	listener, err := node.Listen(node.Socket)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		if err := n.Serve(listener); err != nil {
			fmt.Println("noded: serve:", err)
		}
	}()
	go boot(ctx, n) // which may wait for a key server: reset and reboot do not
	select {
	case <-ctx.Done():
	case <-reboot:
		how = unix.LINUX_REBOOT_CMD_RESTART
		stop()
	}
	if err := n.Close(context.Background()); err != nil {
		fmt.Println("noded:", err) // file systems that are in use survive it
	}
	closeLog(remote)
	return powerOff(how)
}

// closeLog has what is left of the log sent, for a moment.
func closeLog(s *logging.Sender) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	s.Close(ctx)
}

func boot(ctx context.Context, n *node.Node) {
	var derivations atomic.Int64
	counted := kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { derivations.Add(1) }})
	if err := n.BootUntilUp(counted, node.DefaultBackoff); err != nil {
		fmt.Println("noded: stays up for status, apply and reset:", err)
	}
	fmt.Printf("noded: the boot took %d key derivations\n", derivations.Load())
}

// newNode makes the node that the command line describes.
func newNode(words map[string]string, log *slog.Logger, reboot func(), configured func(*config.Config)) (*node.Node, error) {
	opts := node.Options{
		System: volume.Linux{},
		Root:   words["noded.root"],
		Reboot: reboot,
		Phase: func(p node.Phase, reason string) {
			fmt.Printf("noded: %s: %s\n", p, strings.ReplaceAll(reason, "\n", "; "))
		},
		Configured: configured,
	}
	opts.Keys.Log = log
	var err error
	if opts.Machine.KMS.Authorities, err = readAuthorities(words["noded.kms-authorities"]); err != nil {
		return nil, err
	}
	if words["noded.cost"] == "light" {
		opts.Keys.Cost = kdf.Light()
	}
	if text := words["noded.try"]; text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("noded.try: %w", err)
		}
		opts.TryTimeout = d
	}
	return node.New(opts), nil
}

func mountAll() error {
	for _, m := range [][2]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}} {
		if err := os.MkdirAll(m[1], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[0], m[1], m[0], unix.MS_NOSUID, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return nil
}

// mountFirmware mounts what tells whether Secure Boot is on, and what was measured
// into the TPM, where there is such a thing.
func mountFirmware() error {
	for _, m := range [][2]string{{"efivarfs", "/sys/firmware/efi/efivars"}, {"securityfs", "/sys/kernel/security"}} {
		err := unix.Mount(m[0], m[1], m[0], unix.MS_NOSUID|unix.MS_NOEXEC|unix.MS_NODEV, "")
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	return nil
}

// loadModules loads the kernel modules that a file lists, in that order.
func loadModules(list string) error {
	f, err := os.Open(list)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		module, err := os.Open(lines.Text())
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(module.Fd()), "", 0)
		module.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("load %s: %w", lines.Text(), err)
		}
	}
	return nil
}

// commandLine returns the kernel's words of the form NAME=VALUE.
func commandLine() (map[string]string, error) {
	text, err := os.ReadFile("/proc/cmdline")
	words := map[string]string{}
	for _, word := range strings.Fields(string(text)) {
		if name, value, ok := strings.Cut(word, "="); ok {
			words[name] = value
		}
	}
	return words, err
}

// guard is what PID 1 does: it starts the daemon as a child, and waits for it and
// for the orphans that PID 1 inherits. The daemon itself could not, since it waits
// for children of its own.
func guard() error {
	daemon, err := os.StartProcess("/proc/self/exe", []string{"noded", "daemon"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
	})
	if err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == daemon.Pid || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// powerOff writes what is cached and ends the machine.
func powerOff(how int) error {
	unix.Sync()
	return unix.Reboot(how)
}
