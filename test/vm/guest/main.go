//go:build linux

// Command guest is process 1 of the virtual machines of test/vm: it mounts the
// kernel's file systems, loads the modules that the initramfs lists, and then
// does what the test on the host calls for (package wire). With "vm.shell" on
// the kernel's command line it starts a shell on the console instead, for people
// who boot a machine of a failed test by hand.
//
// In machines whose process 1 is a node daemon it is a child of that one, which
// has mounted and loaded all that is needed.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("guest:", err)
	}
	powerOff()
}

func run() error {
	os.Setenv("PATH", "/bin")
	os.Setenv("LC_ALL", "C")
	if os.Getpid() == 1 {
		if err := mountAll(); err != nil {
			return err
		}
		if err := loadModules(); err != nil {
			return err
		}
		if err := mountFirmware(); err != nil {
			return err
		}
	} else if _, err := os.Stat(wire.ModuleList); err != nil {
		return fmt.Errorf("this is a program of virtual machines; it does nothing elsewhere (%w)", err)
	}
	words, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(words)), "vm.shell") {
		return shell()
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	return serve(port, acts())
}

// powerOff switches the machine off in good order; elsewhere it ends the program.
func powerOff() {
	if _, err := os.Stat(wire.ModuleList); err != nil {
		os.Exit(1)
	}
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// mountAll mounts what every program expects. There is no udev: nodes come from
// devtmpfs, and those that udev would make are missing.
func mountAll() error {
	for _, m := range []struct{ kind, target string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// mountFirmware mounts what firmware left behind, where it did.
func mountFirmware() error {
	for _, m := range []struct{ kind, target string }{
		{"efivarfs", "/sys/firmware/efi/efivars"}, {"securityfs", "/sys/kernel/security"},
	} {
		err := unix.Mount(m.kind, m.target, m.kind, 0, "")
		if err != nil && err != unix.ENOENT && err != unix.ENODEV {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

func loadModules() error {
	list, err := os.ReadFile(wire.ModuleList)
	if err != nil {
		return err
	}
	for path := range strings.FieldsSeq(string(list)) {
		if err := loadModule(path); err != nil {
			return fmt.Errorf("load %s: %w", path, err)
		}
	}
	return nil
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && err != unix.EEXIST {
		return err
	}
	return nil
}

func shell() error {
	console, err := os.OpenFile("/dev/console", os.O_RDWR, 0) // a child's input may be elsewhere
	if err != nil {
		return err
	}
	defer console.Close()
	cmd := exec.Command("/bin/sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	fmt.Printf("guest: up after %s; programs are in /bin; leave the shell to power off\n", uptime())
	return cmd.Run()
}

func uptime() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano()).Round(time.Millisecond)
}
