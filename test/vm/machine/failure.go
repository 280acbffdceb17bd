package machine

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// finish switches the machine off when the test has not, and tells a failed test
// apart.
func (m *Machine) finish() {
	if m.cmd != nil && m.cmd.Process != nil {
		m.Kill()
	}
	os.RemoveAll(m.dir)
	if !m.t.Failed() {
		return
	}
	m.t.Logf("console of the machine:\n    %s", strings.ReplaceAll(strings.TrimSpace(m.Console.String()), "\n", "\n    "))
	script, err := m.writeScript()
	if err != nil {
		m.t.Logf("no script to boot the machine by hand: %v", err)
		return
	}
	m.t.Logf("to boot the machine by hand, with its disks as they are now and a shell:\n    %s\nto run the test again:\n    go test -tags vm -count=1 -v -run '^%s$' ./test/vm/...",
		script, strings.ReplaceAll(m.t.Name(), "/", "$/^"))
}

// writeScript keeps what the machine is made of in a directory, and writes the
// command that boots it there. A TPM is left out, its state went on with swtpm; and
// so is firmware, which starts signed images only.
func (m *Machine) writeScript() (string, error) {
	qemu, err := FindProgram("qemu-system-x86_64")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("/tmp", "vm-failed-") // not below TMPDIR, which may be memory
	if err != nil {
		return "", err
	}
	config := m.config
	config.Initramfs = filepath.Join(dir, "initramfs")
	if err := copyFile(config.Initramfs, m.config.Initramfs); err != nil {
		return "", err
	}
	config.Disks = nil
	for i, d := range m.config.Disks {
		kept := Disk{ReadOnly: d.ReadOnly}
		kept.Path = filepath.Join(dir, fmt.Sprintf("disk%d", i))
		if err := copyFile(kept.Path, d.Path); err != nil {
			return "", err
		}
		config.Disks = append(config.Disks, &kept)
	}
	config.Firmware, config.Append = nil, append(slices.Clone(config.Append), "vm.shell")
	args := append(config.hardware(""), "-chardev", "stdio,id=console,signal=off", "-chardev", "null,id=agent")
	var text strings.Builder
	fmt.Fprintf(&text, "#!/bin/sh\n# Leaving the shell of the machine switches it off.\nexec %s", qemu)
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			text.WriteString(" \\\n\t")
		}
		fmt.Fprintf(&text, " '%s'", a)
	}
	path := filepath.Join(dir, "boot.sh")
	return path, os.WriteFile(path, []byte(text.String()+"\n"), 0o755)
}

// copyFile copies a file and leaves its holes holes.
func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	buf, at := make([]byte, 64<<10), int64(0)
	for {
		n, err := io.ReadFull(in, buf)
		if n > 0 && strings.Trim(string(buf[:n]), "\x00") != "" {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Truncate(at)
		}
		if err != nil {
			return err
		}
	}
}
