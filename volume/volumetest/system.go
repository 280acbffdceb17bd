package volumetest

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/volume"
)

// ErrPowerCut is what every call gives after the power was cut.
var ErrPowerCut = errors.New("the power is cut")

// System is the machine. Several goroutines may use it.
type System struct {
	t   testing.TB
	dir string

	mu     sync.Mutex
	labels map[string][]string // the devices of each label
	mapped map[string]mapped   // by name
	mounts []mount             // the oldest first
	covers int                 // mounts so far
	held   map[string][]string // who uses a mapping or a mount point, by its name
	calls  []Call
	faults []fault
	off    bool
}

var _ volume.System = (*System)(nil)

// mapped is an open mapping.
type mapped struct {
	uuid   string // of the mapping
	file   string // in decrypted
	device string
}

// New returns the machine whose partitions and contents are in a directory: an
// empty one for a new machine.
func New(t testing.TB, dir string) *System {
	t.Helper()
	s := &System{t: t, dir: dir, labels: map[string][]string{}, mapped: map[string]mapped{}, held: map[string][]string{}}
	for _, sub := range []string{"disk", "decrypted", "content", "covered"} {
		s.must(os.MkdirAll(s.path(sub), 0o700))
	}
	s.must(os.RemoveAll(s.path("mapper")))
	s.must(os.Mkdir(s.path("mapper"), 0o700))
	s.must(s.uncoverAll())
	images, err := os.ReadDir(s.path("disk"))
	s.must(err)
	for _, image := range images {
		label, err := url.PathUnescape(image.Name())
		s.must(err)
		s.labels[label] = []string{s.path("disk", image.Name())}
	}
	return s
}

func (s *System) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir}, parts...)...)
}

// must is for what is no part of a test.
func (s *System) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// Reboot cuts the power, if it is on, and returns the machine as it comes up
// again: the same partitions, nothing mapped or mounted, no faults, no calls.
func (s *System) Reboot() *System {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off = true
	next := New(s.t, s.dir)
	next.labels = s.labels
	return next
}

// AddPartition makes an empty partition and returns its device.
func (s *System) AddPartition(label string, size int64) (device string) {
	s.t.Helper()
	device = s.path("disk", url.PathEscape(label))
	f, err := os.OpenFile(device, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	s.must(err)
	s.must(errors.Join(f.Truncate(size), f.Close()))
	s.SetLabel(label, device)
	return device
}

// SetLabel says which devices have a label: with none it is missing, with two it
// is ambiguous.
func (s *System) SetLabel(label string, devices ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.labels[label] = devices
}

// Hold makes a mapping, by its name, or a mount point in use by someone else,
// until it is held by nobody.
func (s *System) Hold(what string, holders ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[what] = holders
}

// Find implements [volume.System].
func (s *System) Find(label string) (device string, err error) {
	err = s.call("Find", []string{label}, func() error {
		switch devices := s.labels[label]; len(devices) {
		case 0:
			return fmt.Errorf("%w %q", volume.ErrMissing, label)
		case 1:
			device = devices[0]
			return nil
		default:
			return fmt.Errorf("%w %q: %s", volume.ErrAmbiguous, label, strings.Join(devices, ", "))
		}
	})
	return device, err
}

// busy is an error when a mapping or a mount point is held.
func (s *System) busy(what, name string) error {
	if holders := s.held[name]; len(holders) > 0 {
		return &mapping.BusyError{What: what, Holders: slices.Clone(holders)}
	}
	return nil
}

// user is an error when a device is mapped or mounted.
func (s *System) user(device string) error {
	for name, m := range s.mapped {
		if m.device == device {
			return &mapping.BusyError{What: device, Holders: []string{"used by mapping " + name}}
		}
	}
	for _, m := range s.mounts {
		if m.device == device {
			return &mapping.BusyError{What: device, Holders: []string{"mounted on " + m.dir}}
		}
	}
	return nil
}

// name is what the log has for a device: the label or the name of a mapping.
func name(device string) string { return filepath.Base(device) }
