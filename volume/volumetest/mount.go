package volumetest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/volume"
)

// mount is a mounted file system. Swap that is on is one too, without content.
type mount struct {
	device, dir string
	covered     string // the directory in covered; "" for swap
}

// The files of a directory in covered.
const (
	hiddenDir   = "hidden"  // what was at the mount point
	pointFile   = "point"   // text: the mount point
	contentFile = "content" // text: where the content belongs
)

// at returns what is mounted on a directory: the last one is on top.
func (s *System) at(dir string) (m mount, there bool) {
	for _, m := range slices.Backward(s.mounts) {
		if m.dir == dir {
			return m, true
		}
	}
	return mount{}, false
}

// Mount implements [volume.System]. As the kernel it mounts only what is there.
func (s *System) Mount(device, dir, kind string) error {
	return s.call("Mount", []string{name(device), dir, kind}, func() error {
		is, id, err := filesystem(device)
		if err != nil {
			return err
		}
		if is != kind {
			return fmt.Errorf("%s holds %q and no %s", device, is, kind)
		}
		if err := s.mounted(device); err != nil {
			return err
		}
		m := mount{device: device, dir: dir}
		if kind != volume.Swap {
			if m.covered, err = s.cover(dir, id); err != nil {
				return err
			}
		}
		s.mounts = append(s.mounts, m)
		return nil
	})
}

// cover moves the content of a file system to a mount point, and what is there
// aside.
func (s *System) cover(dir, id string) (covered string, err error) {
	content := s.path("content", id)
	s.covers++
	covered = s.path("covered", fmt.Sprintf("%06d", s.covers))
	return covered, errors.Join(
		os.MkdirAll(content, 0o755),
		os.MkdirAll(dir, 0o755),
		os.MkdirAll(covered, 0o700),
		os.WriteFile(filepath.Join(covered, pointFile), []byte(dir), 0o600),
		os.WriteFile(filepath.Join(covered, contentFile), []byte(content), 0o600),
		os.Rename(dir, filepath.Join(covered, hiddenDir)),
		os.Rename(content, dir),
	)
}

// uncover undoes cover.
func uncover(covered string) error {
	dir, err1 := os.ReadFile(filepath.Join(covered, pointFile))
	content, err2 := os.ReadFile(filepath.Join(covered, contentFile))
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	return errors.Join(
		os.Rename(string(dir), string(content)),
		os.Rename(filepath.Join(covered, hiddenDir), string(dir)),
		os.RemoveAll(covered),
	)
}

// uncoverAll unmounts what an earlier machine had mounted, the last first.
func (s *System) uncoverAll() error {
	left, err := os.ReadDir(s.path("covered"))
	for _, entry := range slices.Backward(left) {
		err = errors.Join(err, uncover(s.path("covered", entry.Name())))
	}
	return err
}

// mounted is an error when a device is mounted.
func (s *System) mounted(device string) error {
	for _, m := range s.mounts {
		if m.device == device {
			return &mapping.BusyError{What: device, Holders: []string{"mounted on " + m.dir}}
		}
	}
	return nil
}

// Mounted implements [volume.System].
func (s *System) Mounted(dir string) (device string, err error) {
	err = s.call("Mounted", []string{dir}, func() error {
		m, _ := s.at(dir)
		device = m.device
		return nil
	})
	return device, err
}

// Unmount implements [volume.System]. A mount below another keeps that in use.
func (s *System) Unmount(dir string) error {
	return s.call("Unmount", []string{dir}, func() error {
		m, there := s.at(dir)
		if !there {
			return fmt.Errorf("nothing is mounted on %s: %w", dir, fs.ErrInvalid)
		}
		if err := s.busy(dir, dir); err != nil {
			return err
		}
		i := slices.Index(s.mounts, m)
		for _, above := range s.mounts[i+1:] {
			if strings.HasPrefix(above.dir, dir+"/") {
				return &mapping.BusyError{What: dir, Holders: []string{"mount " + strconv.Quote(above.dir)}}
			}
		}
		s.mounts = slices.Delete(s.mounts, i, i+1)
		if m.covered == "" {
			return nil
		}
		return uncover(m.covered)
	})
}
