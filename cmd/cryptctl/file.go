package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// writeFile writes to a file of which either all or nothing is there afterwards;
// - is stdout.
func writeFile(cmd *cobra.Command, path string, content []byte) error {
	if path == "-" {
		_, err := cmd.OutOrStdout().Write(content)
		return err
	}
	return replaceFile(path, content, 0o644)
}

// replaceFile gives a file this content and mode, in one step: after a crash or
// a full disk it is the old file or the new one, never a part. A symbolic link
// stays and leads to the new one, which has the owner of the old one where that
// is allowed. What is no file, such as /dev/null, is refused.
func replaceFile(path string, content []byte, mode fs.FileMode) error {
	target, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		target = path
	} else if err != nil {
		return err
	}
	old, err := os.Lstat(target)
	if err == nil && !old.Mode().IsRegular() {
		return fmt.Errorf("%s is no file that could be replaced; name another one, or - for stdout", path)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(target), ".cryptctl-*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if old != nil {
		keepOwner(f, old)
	}
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), target)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(target))
}

// keepOwner gives f the owner of a file, which only root may do; for others the
// new file is theirs.
func keepOwner(f *os.File, of fs.FileInfo) {
	if s, ok := of.Sys().(*syscall.Stat_t); ok && (int(s.Uid) != os.Geteuid() || int(s.Gid) != os.Getegid()) {
		_ = f.Chown(int(s.Uid), int(s.Gid))
	}
}
