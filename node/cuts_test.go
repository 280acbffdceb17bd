package node_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// flow is something that is cut off everywhere.
type flow struct {
	name  string
	start string // configuration of the node before; "" for a blank one in maintenance
	run   func(t *testing.T, r *rig) error
	goal  string // configuration that the flow is about
	loses []string
}

var errCut = errors.New("the power was cut")

func flows() []flow {
	old, plain := config(k("s0", "s1"), k("e0", "e1")), config(nil, nil)
	rotated := config(k("S0"), k("E0", "E1", "E2"))
	apply := func(config string, mode node.Mode) func(t *testing.T, r *rig) error {
		return func(t *testing.T, r *rig) error {
			_, err := r.Apply(t.Context(), []byte(config), mode)
			return err
		}
	}
	staged := func(config, label string) func(t *testing.T, r *rig) error {
		return func(t *testing.T, r *rig) error {
			if _, err := r.Apply(t.Context(), []byte(config), node.Staged); err != nil {
				return err
			}
			return errors.Join(r.Reset(t.Context(), k(label)), r.Close(t.Context()), r.Boot(t.Context()))
		}
	}
	wiped := func(config string) func(t *testing.T, r *rig) error {
		return func(t *testing.T, r *rig) error {
			if err := errors.Join(r.Reset(t.Context(), k("STATE")), r.Close(t.Context()), r.Boot(t.Context())); err != nil {
				return err
			}
			_, err := r.Apply(t.Context(), []byte(config), node.Auto)
			return err
		}
	}
	both := k("STATE", "EPHEMERAL")
	return []flow{
		{"first configuration, encrypted", "", apply(old, node.Auto), old, both},
		{"first configuration, plain", "", apply(plain, node.Auto), plain, both},
		{"rotation", old, apply(rotated, node.Auto), rotated, nil},
		{"rotation, staged, and boot", old, func(t *testing.T, r *rig) error {
			return errors.Join(apply(rotated, node.Staged)(t, r), r.Close(t.Context()), r.Boot(t.Context()))
		}, rotated, nil},
		{"trial", old, apply(rotated, node.Try), rotated, nil},
		{"trial, kept", old, func(t *testing.T, r *rig) error {
			return errors.Join(apply(rotated, node.Try)(t, r), apply(rotated, node.Auto)(t, r))
		}, rotated, nil},
		{"trial, then another", old, func(t *testing.T, r *rig) error {
			return errors.Join(apply(rotated, node.Try)(t, r), apply(config(k("x0"), k("e0")), node.Auto)(t, r))
		}, config(k("x0"), k("e0")), nil},
		{"EPHEMERAL to encrypted", config(k("s0"), nil), staged(config(k("s0"), k("e0")), "EPHEMERAL"), config(k("s0"), k("e0")), k("EPHEMERAL")},
		{"EPHEMERAL to plain", old, staged(config(k("s0", "s1"), nil), "EPHEMERAL"), config(k("s0", "s1"), nil), k("EPHEMERAL")},
		{"STATE to encrypted", config(nil, k("e0")), wiped(config(k("s0"), k("e0"))), config(k("s0"), k("e0")), k("STATE")},
		{"STATE to plain", old, wiped(config(nil, k("e0", "e1"))), config(nil, k("e0", "e1")), k("STATE")},
	}
}

// TestPowerCuts cuts each flow off before every write that must last, and before
// and after every call of the system. The next boot comes up, with everything
// that the flow does not wipe, and the flow's goal can be reached.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	var cuts atomic.Int64
	t.Run("all", func(t *testing.T) {
		for _, f := range flows() {
			t.Run(f.name, func(t *testing.T) {
				t.Parallel()
				start := f.prepare(t)
				for _, where := range []string{"write", "before", "after"} {
					stride := 1
					if testing.Short() {
						stride = 5
					}
					for at := 1; ; at += stride {
						done := f.cut(t, start, where, at)
						cuts.Add(1)
						if done || t.Failed() {
							break
						}
					}
				}
			})
		}
	})
	fmt.Fprintf(os.Stdout, "node: %d power cuts\n", cuts.Load())
	if !t.Failed() && !testing.Short() && cuts.Load() < 300 {
		t.Errorf("only %d cuts", cuts.Load())
	}
}

// prepare returns the directory of a machine as it is before the flow.
func (f flow) prepare(t *testing.T) string {
	t.Helper()
	var r *rig
	if f.start == "" {
		r = newRig(t)
		r.mustReboot(t)
	} else {
		r = running(t, f.start)
		r.write(t, "STATE")
		r.write(t, "EPHEMERAL")
	}
	r.sys.Reboot()
	return filepath.Dir(r.root)
}

// copyOf returns a machine that is a copy of another one.
func copyOf(t *testing.T, dir string) *rig {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o700)
		}
		return copySparse(filepath.Join(to, rel), path)
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.sys, r.root = volumetest.New(t, to), filepath.Join(to, "root")
	r.opts.Root = r.root
	return r
}

// copySparse copies a file and leaves zeros out.
func copySparse(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	const chunk = 64 << 10
	zeros := make([]byte, chunk)
	for at := 0; at < len(b) && err == nil; at += chunk {
		if p := b[at:min(at+chunk, len(b))]; !bytes.Equal(p, zeros[:len(p)]) {
			_, err = f.WriteAt(p, int64(at))
		}
	}
	return errors.Join(err, f.Truncate(int64(len(b))), f.Close())
}

// cut cuts the flow off at one place; done says that it got to its end before.
func (f flow) cut(t *testing.T, start, where string, at int) (done bool) {
	t.Helper()
	r := copyOf(t, start)
	r.mustReboot(t)
	n, step, calls := 0, "", len(r.sys.Calls())
	switch where {
	case "write":
		r.CutBefore(func(s string) error {
			if n++; n < at {
				return nil
			}
			if n == at {
				step = s
				r.sys.CutBefore("", 1)
			}
			return errCut
		})
	case "before":
		r.sys.CutBefore("", at)
	case "after":
		r.sys.CutAfter("", at)
	}
	err := f.run(t, r)
	if where != "write" {
		n = len(r.sys.Calls()) - calls
	}
	if done = n < at; done && err != nil {
		t.Fatalf("without a cut: %v", err)
	}
	what := fmt.Sprintf("%s %d %s (%v)", where, at, step, err)
	if bootErr := r.reboot(t); bootErr != nil {
		t.Errorf("cut at %s: boot: %v", what, bootErr)
		return done
	}
	for _, label := range k("STATE", "EPHEMERAL") {
		if f.wipes(label) || r.Status().Phase == node.Maintenance && label == "EPHEMERAL" {
			continue
		}
		if v := r.volume(t, label); v.Phase != node.VolumeOpen || !r.has(t, label) {
			t.Errorf("cut at %s: %s lost: %+v", what, label, v)
		}
	}
	f.reach(t, r, what)
	return done
}

func (f flow) wipes(label string) bool {
	for _, l := range f.loses {
		if l == label {
			return true
		}
	}
	return false
}

// reach goes on to the goal from wherever the cut left the node.
func (f flow) reach(t *testing.T, r *rig, what string) {
	t.Helper()
	if r.Status().Phase == node.Running {
		if _, err := r.Apply(t.Context(), []byte(f.goal), node.Staged); err != nil {
			t.Errorf("cut at %s: %v", what, err)
			return
		}
		if len(f.loses) == 1 && r.needsWipe(t, f.loses[0]) {
			if err := r.Reset(t.Context(), f.loses); err != nil {
				t.Errorf("cut at %s: %v", what, err)
			}
		}
		r.mustReboot(t)
	}
	if r.Status().Phase == node.Maintenance {
		r.apply(t, f.goal, node.Auto)
	}
	r.mustReboot(t)
	r.wantPhase(t, node.Running)
	r.wantOpen(t, "STATE", "EPHEMERAL")
	for _, label := range k("STATE", "EPHEMERAL") {
		if p := r.volume(t, label).Pending; len(p) > 0 {
			t.Errorf("cut at %s: %s pending %q", what, label, p)
		}
		if !f.wipes(label) && !r.has(t, label) {
			t.Errorf("cut at %s: the data of %s is lost", what, label)
		}
	}
	if left := r.metaTags(t); len(left) > 2 {
		t.Errorf("cut at %s: META has %v", what, left)
	}
}

// needsWipe reports whether a volume is not yet as its configuration says.
func (r *rig) needsWipe(t *testing.T, label string) bool {
	t.Helper()
	v := r.volume(t, label)
	for _, p := range v.Pending {
		if len(p) > 6 && p[len(p)-6:] == "(wipe)" {
			return true
		}
	}
	return v.Phase == node.VolumeRefused
}
