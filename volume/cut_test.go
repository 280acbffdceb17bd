package volume_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/volume"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// life opens a volume, mounts it, reconciles it, puts a file there and closes it.
// It says whether the file was there from before.
func life(t *testing.T, s *volumetest.System, device, dir string, spec volume.Spec) (there bool, err error) {
	t.Helper()
	v, err := tryOpen(t, s, device, spec)
	if err != nil {
		return false, err
	}
	if err := v.Mount(t.Context(), dir); err != nil {
		return false, err
	}
	if spec.Encryption != nil {
		if _, err := v.Reconcile(t.Context()); err != nil {
			return false, err
		}
	}
	file := filepath.Join(dir, "file")
	_, err = os.Stat(file)
	there = err == nil
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return there, err
	}
	return there, v.Close()
}

// TestPowerCut cuts the power before and after every call of a first boot. The
// next boot reaches the goal, and makes no file system again that was or could
// have been mounted.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]volume.Spec{"encrypted": encrypted("one"), "plain": plain(volume.Auto)} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, after: %v", name, after), func(t *testing.T) {
				t.Parallel()
				n := 1
				for ; cutAt(t, spec, n, after); n++ {
				}
				if want := map[string]int{"encrypted": 8, "plain": 6}[name]; n != want {
					t.Errorf("a first boot takes %d calls, want %d", n-1, want-1)
				}
			})
		}
	}
}

// cutAt says whether there is an n-th call.
func cutAt(t *testing.T, spec volume.Spec, n int, after bool) (was bool) {
	t.Helper()
	s, device := machine(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if after {
		s.CutAfter("", n)
	} else {
		s.CutBefore("", n)
	}
	_, err := life(t, s, device, dir, spec)
	first := s
	s = s.Reboot()
	if was = errors.Is(err, volumetest.ErrPowerCut); err != nil && !was {
		t.Fatalf("cut at call %d: %v", n, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "file")); err == nil {
		t.Errorf("cut at call %d: mounted after the reboot", n)
	}
	there, err := life(t, s, device, dir, spec)
	if err != nil {
		t.Fatalf("after a cut at call %d: %v; calls:\n%s", n, err, calls(first))
	}
	mayMount := len(first.Calls("Mounted")) > 0 // the volume was open
	if n := len(s.Calls("Mkfs")); mayMount && n != 0 || n > 1 {
		t.Errorf("made %d file systems after\n%s", n, calls(first))
	}
	if written := strings.Contains(calls(first), "Unmount"); there != written {
		t.Errorf("the file is there: %v, after\n%s", there, calls(first))
	}
	s = s.Reboot()
	if there, err := life(t, s, device, dir, spec); err != nil || !there || len(s.Calls("Mkfs")) > 0 {
		t.Errorf("the third boot: the file is there: %v, error %v; calls:\n%s", there, err, calls(s))
	}
	return was
}

// TestPowerCutOfFormat: of a format that was cut off only its note is left, and
// the volume is made all the same. A plain volume takes its place as well.
func TestPowerCutOfFormat(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]volume.Spec{"encrypted": encrypted("one"), "plain": plain(volume.Auto), "raw": plain(volume.None)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, device := machine(t)
			write(t, device, 0, unfinished())
			write(t, device, 8192, noise(4096))
			spec.MayFormat = false
			if name != "raw" {
				refused(t, s, device, spec, volume.ErrEmpty)
			}
			spec.MayFormat = true
			v := open(t, s, device, spec)
			if v.Formatted != (name != "raw") {
				t.Errorf("opened %+v", v)
			}
			shut(t, v)
		})
	}
}
