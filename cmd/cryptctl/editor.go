package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/secret"
)

// editor has a text edited in a file of its own: mode 0600, in a directory that
// only its owner can enter, in memory where the machine has a place for that.
// While it exists a signal does not end the program, so that the file goes.
type editor struct {
	command string
	dir     string
	path    string
	signals chan os.Signal
	keep    bool // the file stays: it has the only copy of someone's work
}

// newEditor makes the directory for a copy of a file.
func newEditor(file string) (*editor, error) {
	e := &editor{
		command: cmp.Or(os.Getenv("TALOS_EDITOR"), os.Getenv("EDITOR"), "vi"),
		signals: make(chan os.Signal, 8),
	}
	beside, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	signal.Notify(e.signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	if e.dir, err = privateDir(os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm", beside); err != nil {
		signal.Stop(e.signals)
		return nil, fmt.Errorf("there is no place for a copy to edit: %w", err)
	}
	e.path = filepath.Join(e.dir, filepath.Base(file))
	return e, nil
}

// privateDir makes a directory that only its owner can enter, in the first of
// the parents where it can be made. One with a relative path does not count (XDG
// Base Directory Specification, "Environment variables").
func privateDir(parents ...string) (dir string, err error) {
	for _, parent := range parents {
		if !filepath.IsAbs(parent) {
			continue
		}
		if dir, err = os.MkdirTemp(parent, ".cryptctl-edit-*"); err == nil {
			return dir, nil
		}
	}
	return "", err
}

// close removes the directory with all that the editor left there.
func (e *editor) close() error {
	defer signal.Stop(e.signals)
	if e.keep {
		return nil
	}
	return os.RemoveAll(e.dir)
}

// edit returns what was saved, without the header.
func (e *editor) edit(text *secret.Bytes, header string) (*secret.Bytes, error) {
	if err := e.fill(text, header); err != nil {
		return nil, err
	}
	if err := e.run(); err != nil {
		return nil, err
	}
	if _, err := os.Lstat(e.path); errors.Is(err, fs.ErrNotExist) {
		return secret.Take(nil), nil
	}
	var in document.Report
	saved, ok := document.ReadFile(&in, e.path, document.MaxSource)
	if !ok {
		return nil, in.Sorted()
	}
	defer saved.Wipe()
	return secret.Copy(withoutHeader(saved.Bytes(), header)), nil
}

// fill makes the file anew: the editor may have put anything in its place.
func (e *editor) fill(text *secret.Bytes, header string) error {
	if err := os.RemoveAll(e.path); err != nil {
		return err
	}
	f, err := os.OpenFile(e.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(header)
	if err == nil {
		_, err = f.Write(text.Bytes())
	}
	return errors.Join(err, f.Close())
}

// run runs the editor on the file. The keys that interrupt and quit are the
// editor's to answer, which gets them too; other signals end it, and the command.
func (e *editor) run() error {
	cmd := exec.Command(e.command, e.path)
	if strings.ContainsAny(e.command, " \t\"'\\$") {
		// The shell becomes the editor, so that a signal reaches it.
		cmd = exec.Command("/bin/sh", "-c", "exec "+e.command+` "$1"`, "sh", e.path)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("editor %s: %w; set TALOS_EDITOR or EDITOR", e.command, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var by os.Signal
	var kill <-chan time.Time
	for {
		select {
		case err := <-ended:
			switch {
			case by != nil:
				return fmt.Errorf("ended by a signal: %v", by)
			case err != nil:
				return fmt.Errorf("editor %s: %w", e.command, err)
			}
			return nil
		case s := <-e.signals:
			if s == syscall.SIGINT || s == syscall.SIGQUIT {
				continue
			}
			by, kill = s, time.After(5*time.Second)
			_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		case <-kill:
			_ = cmd.Process.Kill()
		}
	}
}
