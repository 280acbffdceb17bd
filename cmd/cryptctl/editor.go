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
	"strconv"
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
		command: cmp.Or(strings.TrimSpace(os.Getenv("TALOS_EDITOR")), strings.TrimSpace(os.Getenv("EDITOR")), "vi"),
		signals: make(chan os.Signal, 8),
	}
	beside, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	signal.Notify(e.signals, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGHUP)
	if e.dir, err = privateDir(beside, os.Getenv("XDG_RUNTIME_DIR"), "/dev/shm"); err != nil {
		signal.Stop(e.signals)
		return nil, fmt.Errorf("there is no place for a copy to edit: %w", err)
	}
	e.path = filepath.Join(e.dir, filepath.Base(file))
	return e, nil
}

// privateDir makes a directory that only its owner can enter, in the first of
// the parents where it can be made and nobody else can put another in its place;
// in the last resort where those who can, can do so with the file. A relative
// path does not count (XDG Base Directory Specification, "Environment variables").
func privateDir(last string, parents ...string) (string, error) {
	const pattern = ".cryptctl-edit-*"
	for _, parent := range parents {
		if real, err := filepath.EvalSymlinks(parent); err == nil && filepath.IsAbs(parent) && ours(real) {
			if dir, err := os.MkdirTemp(real, pattern); err == nil {
				return dir, nil
			}
		}
	}
	return os.MkdirTemp(last, pattern)
}

// ours reports whether what the user makes in a directory can be replaced by the
// user and root only: the directory and each on the way there is theirs, is no
// link, and where others can write they can move only what is theirs (sticky).
func ours(dir string) bool {
	for {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() {
			return false
		}
		if uid := ownerOf(info); uid != 0 && uid != os.Geteuid() {
			return false
		}
		if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
		dir = filepath.Dir(dir)
	}
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
	in := document.Report{Name: filepath.Base(e.path)}
	saved, ok := document.ReadFile(&in, e.path, document.MaxSource)
	if !ok {
		e.keep = true
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
	cmd := e.program()
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
			end(cmd.Process.Pid, syscall.SIGTERM)
		case <-kill:
			end(cmd.Process.Pid, syscall.SIGKILL)
		}
	}
}

// program is the editor's command, run by the shell if it has what is special to
// it (POSIX, XCU 2.2). The shell does not end before the editor does: the keys
// are not for it, and it answers other signals then.
func (e *editor) program() *exec.Cmd {
	if !strings.ContainsAny(e.command, "|&;<>()$`\\\"' \t\n*?[#~=%") {
		return exec.Command(e.command, e.path)
	}
	const first = "trap : INT QUIT; trap 'exit 143' HUP TERM; "
	return exec.Command("/bin/sh", "-c", first+e.command+` "$1"`, "sh", e.path)
}

// end sends a signal to a process and to those that it started: a shell does not
// hand it on.
func end(pid int, s syscall.Signal) {
	for _, p := range append(descendants(pid), pid) {
		_ = syscall.Kill(p, s) // it may have ended
	}
}

// descendants returns the processes that one started, and those that they did
// (proc(5), /proc/PID/task/TID/children).
func descendants(pid int) (out []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, _ := os.ReadFile(list)
		for _, word := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				out = append(append(out, descendants(child)...), child)
			}
		}
	}
	return out
}
