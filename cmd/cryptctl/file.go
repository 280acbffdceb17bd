package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/internal/durable"
)

// writeFile writes to a file of which either all or nothing is there afterwards;
// - is stdout.
func writeFile(cmd *cobra.Command, path string, content []byte) error {
	if path == "-" {
		_, err := cmd.OutOrStdout().Write(content)
		return err
	}
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	return replaceFile(path, content, 0o644)
}

// replaceFile gives a file this content and mode, in one step: after a crash or
// a full disk it is the old file or the new one, never a part. A symbolic link
// stays and leads to the new one, which has the owner of the old one where that
// is allowed, and where not no mode by which others than before could read it.
// What is no file, such as /dev/null, is refused.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	target, old, err := replaced(path)
	if err != nil {
		return err
	}
	return putFile(path, target, content, mode, old)
}

// replaced returns the file to which a path leads, and what is there, nil when
// there is nothing.
func replaced(path string) (target string, old fs.FileInfo, err error) {
	target, err = followed(path, new(int))
	if errors.Is(err, fs.ErrNotExist) {
		target = path // which may be a link that leads nowhere
	} else if err != nil {
		return "", nil, err
	}
	old, err = os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return target, nil, nil
	case err != nil:
		return "", nil, err
	case !old.Mode().IsRegular():
		return "", nil, fmt.Errorf("%s is not a regular file; name another one", path)
	}
	return target, old, nil
}

// followed returns where a path leads. It follows no link that someone else made
// in a directory where everyone can make files, as Linux does not when a file is
// opened (proc_sys_fs(5), protected_symlinks). It counts the links.
func followed(path string, links *int) (string, error) {
	dir, name := filepath.Split(path)
	if before := strings.TrimRight(dir, "/"); before != "" {
		to, err := followed(before, links)
		if err != nil {
			return "", err
		}
		dir = strings.TrimRight(to, "/") + "/"
	}
	path = dir + name
	info, err := os.Lstat(path)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return path, err
	}
	in, err := os.Stat(cmp.Or(dir, "."))
	if err != nil {
		return "", err
	}
	if uid := ownerOf(info); in.Mode()&fs.ModeSticky != 0 && uid != os.Geteuid() && uid != ownerOf(in) {
		return "", fmt.Errorf("%s is a link that someone else made in a shared directory; name the file itself", path)
	}
	if *links++; *links > 40 { // path_resolution(7)
		return "", fmt.Errorf("%s leads through too many links; name the file itself", path)
	}
	to, err := os.Readlink(path)
	if err != nil {
		return "", err
	}
	if !filepath.IsAbs(to) {
		to = dir + to
	}
	return followed(to, links)
}

// putFile puts content in the place of target, which has the owner of the old
// file unless that is nil. The path is what the user calls it.
func putFile(path, target string, content []byte, mode fs.FileMode, owner fs.FileInfo) error {
	s, err := stageFile(path, target, content, mode, owner)
	if err != nil {
		return err
	}
	if err := s.put(); err != nil {
		s.drop()
		return err
	}
	return durable.SyncDir(filepath.Dir(target))
}

// staged is a file that will take another's place.
type staged struct{ path, temporary, target string }

// stageFile writes and syncs content beside target, as [putFile] would have it.
func stageFile(path, target string, content []byte, mode fs.FileMode, owner fs.FileInfo) (s staged, err error) {
	s = staged{path: path, target: target}
	f, err := os.CreateTemp(filepath.Dir(target), ".cryptctl-*")
	if err != nil {
		return s, s.failed(err)
	}
	s.temporary = f.Name()
	_, err = f.Write(content)
	if owner != nil && !keepOwner(f, owner) {
		mode = narrowed(mode)
	}
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		s.drop()
		return s, s.failed(err)
	}
	return s, nil
}

func (s staged) put() error {
	if err := os.Rename(s.temporary, s.target); err != nil {
		return s.failed(err)
	}
	return nil
}

func (s staged) drop() { os.Remove(s.temporary) }

// failed says it of the file that is meant, and not of the temporary one.
func (s staged) failed(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	} else if l, ok := errors.AsType[*os.LinkError](err); ok {
		err = l.Err
	}
	return fmt.Errorf("write %s: %w; nothing was written", s.path, err)
}

// keepOwner gives f the owner of a file, which only root may do, or its group,
// which its members may. It reports whether f has the group now.
func keepOwner(f *os.File, of fs.FileInfo) bool {
	s, ok := of.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	if f.Chown(int(s.Uid), int(s.Gid)) != nil {
		_ = f.Chown(-1, int(s.Gid)) // what it is is read below
	}
	now, err := f.Stat()
	if err != nil {
		return false
	}
	t, ok := now.Sys().(*syscall.Stat_t)
	return ok && t.Gid == s.Gid
}

// narrowed returns a mode for another group: it and all others may what both the
// former group and the former others may.
func narrowed(mode fs.FileMode) fs.FileMode {
	both := mode >> 3 & mode & 0o7
	return mode&0o700 | both<<3 | both
}

// ownerOf returns the user id of a file's owner, -1 when it is not known.
func ownerOf(info fs.FileInfo) int {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(s.Uid)
	}
	return -1
}
