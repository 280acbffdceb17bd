//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// none is the result of acts that have none.
type none struct{}

func runProgram(r wire.Run) (wire.Ran, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(r.Stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return wire.Ran{}, err
	}
	return wire.Ran{Code: cmd.ProcessState.ExitCode(), Out: out.String(), Err: errs.String()}, nil
}

func readFile(f wire.File) (wire.File, error) {
	content, err := os.ReadFile(f.Path)
	return wire.File{Path: f.Path, Content: content}, err
}

// writeFile writes a file and returns when it is on the disk.
func writeFile(f wire.File) (none, error) {
	file, err := os.Create(f.Path)
	if err != nil {
		return none{}, err
	}
	_, err = file.Write(f.Content)
	return none{}, errors.Join(err, file.Sync(), file.Close())
}

func readSpan(s wire.Span) (wire.Span, error) {
	file, err := os.Open(s.Path)
	if err != nil {
		return s, err
	}
	defer file.Close()
	s.Content = make([]byte, s.Length)
	_, err = file.ReadAt(s.Content, s.Offset)
	return s, err
}

// writeSpan overwrites a part of a file or device, and returns when that is on
// the disk.
func writeSpan(s wire.Span) (none, error) {
	file, err := os.OpenFile(s.Path, os.O_WRONLY, 0)
	if err != nil {
		return none{}, err
	}
	_, err = file.WriteAt(s.Content, s.Offset)
	return none{}, errors.Join(err, file.Sync(), file.Close())
}

func remove(f wire.File) (none, error) { return none{}, os.Remove(f.Path) }

func link(f wire.File) (none, error) { return none{}, os.Symlink(string(f.Content), f.Path) }

// stat looks at a path. A link that leads nowhere has nothing but its target.
func stat(f wire.File) (s wire.Stat, err error) {
	if s.Link, err = os.Readlink(f.Path); err != nil && !errors.Is(err, unix.EINVAL) {
		return s, err
	}
	var st unix.Stat_t
	if unix.Stat(f.Path, &st) != nil {
		return s, nil
	}
	switch s.Size = st.Size; st.Mode & unix.S_IFMT {
	case unix.S_IFBLK:
		s.Device = mapping.Number{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
		s.Size, err = blockSize(f.Path)
		return s, err
	case unix.S_IFCHR:
		s.Device = mapping.Number{Major: unix.Major(st.Rdev), Minor: unix.Minor(st.Rdev)}
	}
	return s, nil
}

func blockSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}

func mount(m wire.Mount) (none, error) {
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return none{}, err
	}
	return none{}, wrap("mount", m.Source, unix.Mount(m.Source, m.Target, m.Type, 0, ""))
}

func unmount(m wire.Mount) (none, error) {
	flags := 0
	if m.Lazy {
		flags = unix.MNT_DETACH
	}
	return none{}, wrap("unmount", m.Target, unix.Unmount(m.Target, flags))
}

func wrap(op, path string, err error) error {
	if err == nil {
		return nil
	}
	return &os.PathError{Op: op, Path: path, Err: err}
}

// handles keeps files open between calls.
type handles struct {
	mu    sync.Mutex
	files map[string]*os.File
}

func (h *handles) hold(f wire.File) (none, error) {
	file, err := os.Open(f.Path)
	if err != nil {
		return none{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files[f.Path] = file
	return none{}, nil
}

func (h *handles) release(f wire.File) (none, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	file, ok := h.files[f.Path]
	if !ok {
		return none{}, errors.New(f.Path + " is not held")
	}
	delete(h.files, f.Path)
	return none{}, file.Close()
}
