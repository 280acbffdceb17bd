package volumetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/mapping"
)

// Activate implements [volume.System]. As the real one it refuses a key that the
// header did not confirm.
func (s *System) Activate(h *luks.Header, key *luks.VolumeKey, device *os.File, opts mapping.Options) (m *mapping.Mapping, err error) {
	err = s.call("Activate", []string{opts.Name, name(device.Name())}, func() error {
		if !h.Confirmed(key) {
			return errors.New("this is not the key of the volume")
		}
		id := sha256.Sum256(append([]byte(h.UUID()), key.Bytes().Bytes()...))
		want := mapped{mappingUUID(h, opts.Name), s.path("decrypted", fmt.Sprintf("%x", id[:8])), device.Name()}
		now, existing := s.mapped[opts.Name]
		if existing && now != want {
			return mapping.ErrNameTaken
		}
		if !existing {
			if err := s.user(device.Name()); err != nil {
				return err
			}
			if err := s.mapIt(h, want, opts.Name); err != nil {
				return err
			}
		}
		m = s.mapping(opts.Name)
		m.Existing = existing
		return nil
	})
	return m, err
}

// mapIt makes the file behind a mapping, unless it is there from before, and the
// mapping.
func (s *System) mapIt(h *luks.Header, m mapped, name string) error {
	if _, err := os.Stat(m.file); errors.Is(err, fs.ErrNotExist) {
		if err := decrypted(h, m); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	s.mapped[name] = m
	return os.Symlink(m.file, s.path("mapper", name))
}

// decrypted makes what is seen of a volume that nobody has written to: its zeros,
// decrypted, are noise.
func decrypted(h *luks.Header, m mapped) error {
	info, err := os.Stat(m.device)
	if err != nil {
		return err
	}
	size := info.Size() - int64(h.Segments()[0].Offset)
	noise := bytes.Repeat([]byte{0x99}, int(min(size, 64<<10)))
	return errors.Join(os.WriteFile(m.file, noise, 0o600), os.Truncate(m.file, size))
}

func mappingUUID(h *luks.Header, name string) string {
	return "CRYPT-LUKS2-" + strings.ReplaceAll(h.UUID(), "-", "") + "-" + name
}

func (s *System) mapping(name string) *mapping.Mapping {
	return &mapping.Mapping{Name: name, UUID: s.mapped[name].uuid, Path: s.path("mapper", name)}
}

// Mapped implements [volume.System].
func (s *System) Mapped(h *luks.Header, name string) (m *mapping.Mapping, err error) {
	err = s.call("Mapped", []string{name}, func() error {
		now, there := s.mapped[name]
		switch {
		case !there:
			return mapping.ErrNotOpen
		case now.uuid != mappingUUID(h, name):
			return mapping.ErrNameTaken
		}
		m = s.mapping(name)
		m.Existing = true
		return nil
	})
	return m, err
}

// Deactivate implements [volume.System].
func (s *System) Deactivate(name string) error {
	return s.call("Deactivate", []string{name}, func() error {
		if _, there := s.mapped[name]; !there {
			return mapping.ErrNotOpen
		}
		if err := errors.Join(s.busy("mapping "+name, name), s.user(s.path("mapper", name))); err != nil {
			return err
		}
		delete(s.mapped, name)
		return os.Remove(s.path("mapper", name))
	})
}
