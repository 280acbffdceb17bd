package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cryptctl/cryptctl/internal/durable"
)

// Write writes the certificate (0644) and the key (0600) to two new files. A file
// that is there already is an error, and stays; then neither is written.
func (p Pair) Write(certPath, keyPath string) error {
	if err := absent(certPath); err != nil {
		return err
	}
	if err := writeNew(keyPath, p.Key.Bytes(), 0o600); err != nil {
		return err
	}
	if err := writeNew(certPath, p.Cert, 0o644); err != nil {
		return errors.Join(err, os.Remove(keyPath)) // it is ours, from just now
	}
	return nil
}

func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return exists(path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func exists(path string) error {
	return fmt.Errorf("%w: %s is not replaced; move it away, or choose another name", fs.ErrExist, path)
}

// writeNew makes a file that is whole or not there: a link, unlike a rename,
// fails where the name is taken.
func writeNew(path string, content []byte, mode fs.FileMode) error {
	if err := absent(path); err != nil {
		return err
	}
	folder := filepath.Dir(path)
	f, err := os.CreateTemp(folder, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := fill(f, content, mode); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Link(f.Name(), path); errors.Is(err, fs.ErrExist) {
		return exists(path)
	} else if err != nil {
		return fmt.Errorf("write %s: %w; the folder must be on a file system that has hard links", path, err)
	}
	return durable.SyncDir(folder)
}

func fill(f *os.File, content []byte, mode fs.FileMode) error {
	err := f.Chmod(mode) // CreateTemp makes it 0600; the umask has no say
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
