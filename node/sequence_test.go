package node_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
)

// locked is a configuration whose key of EPHEMERAL is locked to STATE.
func locked(state, ephemeral string) string {
	c := config(k(state), k(ephemeral))
	return strings.Replace(c, "    - slot: 0\n      static:\n        passphrase: \""+ephemeral, "    - slot: 0\n      lockToState: true\n      static:\n        passphrase: \""+ephemeral, 1)
}

// TestSequences: operations in an order that nobody planned. After each the node
// boots with all volumes and their data.
func TestSequences(t *testing.T) {
	t.Parallel()
	a, b, c := config(k("a"), k("a0", "a1")), config(k("b"), k("b0")), config(k("c"), k("c0", "c1", "c2"))
	plain := config(k("a"), nil)
	for _, test := range []struct {
		name  string
		start string
		run   func(t *testing.T, r *rig)
	}{
		{"staged, and booted again while it runs", a, func(t *testing.T, r *rig) {
			r.apply(t, b, node.Staged)
			if err := r.Boot(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !r.opensWith(t, "EPHEMERAL", "a0") {
				t.Error("booting again made a staged configuration the one in force")
			}
		}},
		{"booted again during a trial", a, func(t *testing.T, r *rig) {
			r.apply(t, b, node.Try)
			if err := r.Boot(t.Context()); !errors.Is(err, node.ErrPhase) {
				t.Errorf("boot: %v", err)
			}
			if err := r.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Apply(t.Context(), []byte(c), node.Auto); !errors.Is(err, node.ErrPhase) {
				t.Errorf("apply to a closed node: %v", err)
			}
		}},
		{"staged, then on trial, then taken back", a, func(t *testing.T, r *rig) {
			r.apply(t, b, node.Staged)
			r.apply(t, c, node.Try)
			if err := r.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}},
		{"staged twice, cut off during the second boot", a, func(t *testing.T, r *rig) {
			r.apply(t, b, node.Staged)
			r.apply(t, c, node.Staged)
			r.sys = r.sys.Reboot()
			r.renew()
			r.CutBefore(func(step string) error {
				if step == "slots of EPHEMERAL" {
					return errCut
				}
				return nil
			})
			r.Boot(t.Context())
		}},
		{"plain staged without a wipe, then other keys", a, func(t *testing.T, r *rig) {
			r.apply(t, plain, node.Staged)
			r.mustReboot(t)
			if v := r.volume(t, "EPHEMERAL"); v.Phase != node.VolumeRefused {
				t.Errorf("%+v", v)
			}
			r.apply(t, c, node.Staged)
		}},
		{"lockToState taken away", locked("a", "a0"), func(t *testing.T, r *rig) {
			r.apply(t, b, node.Staged)
		}},
		{"lockToState added, on trial", a, func(t *testing.T, r *rig) {
			r.apply(t, locked("a", "a0"), node.Try)
		}},
		{"a busy reset, and booted again", a, func(t *testing.T, r *rig) {
			r.sys.Hold(r.dir("EPHEMERAL"), "process 7")
			if err := r.Reset(t.Context(), k("EPHEMERAL")); err == nil {
				t.Error("wiped in use")
			}
			if err := r.Boot(t.Context()); err != nil {
				t.Errorf("boot: %v", err)
			}
			r.wantPhase(t, node.Running)
			r.editMeta(t, func(m *meta.Meta) { m.Delete(194) }) // changed his mind
		}},
		{"a configuration that cannot be read", a, func(t *testing.T, r *rig) {
			if err := os.WriteFile(filepath.Join(r.dir("STATE"), "config.yaml"), []byte("machine: ["), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := r.reboot(t); err == nil || !strings.Contains(err.Error(), "apply another one") {
				t.Fatalf("boot: %v", err)
			}
			r.apply(t, a, node.Auto)
			r.wantPhase(t, node.Running)
		}},
		{"the daemon is restarted, with other keys staged", a, func(t *testing.T, r *rig) {
			r.apply(t, b, node.Staged)
			r.renew()
			if err := r.Boot(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.wantOpen(t, "STATE", "EPHEMERAL")
			if calls := r.sys.Calls("Mkfs", "Zero", "Unmount", "Deactivate"); len(calls) != 2 { // the two Mkfs of the first boot
				t.Errorf("calls %v", calls)
			}
			if !r.opensWith(t, "EPHEMERAL", "b0") || r.opensWith(t, "STATE", "a") {
				t.Error("the slots were not reconciled")
			}
		}},
		{"META names what is no volume", a, func(t *testing.T, r *rig) {
			r.sys.AddPartition("EFI", 1<<20)
			r.replace(t, "EFI", []byte(strings.Repeat("boot", 1<<18)))
			r.editMeta(t, func(m *meta.Meta) { m.Set(194, []byte(`["EFI","META"]`)) })
			r.mustReboot(t)
			if !strings.HasPrefix(string(r.image(t, "EFI")), "bootboot") {
				t.Error("the partition of the boot loader was wiped")
			}
			r.editMeta(t, func(m *meta.Meta) { m.Delete(194) })
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := running(t, test.start)
			r.write(t, "STATE")
			r.write(t, "EPHEMERAL")
			test.run(t, r)
			for range 2 {
				r.mustReboot(t)
				r.wantPhase(t, node.Running)
				r.wantOpen(t, "STATE", "EPHEMERAL")
				if !r.has(t, "STATE") || !r.has(t, "EPHEMERAL") {
					t.Error("data lost")
				}
			}
		})
	}
}

// TestSecondFirst: the first configuration fails when STATE is made already, and
// another one follows.
func TestSecondFirst(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"config.yaml", "META"} {
		for _, second := range []string{config(k("b"), k("b0")), config(nil, k("b0"))} {
			r := newRig(t)
			r.mustReboot(t)
			formatted := false
			r.CutBefore(func(s string) error {
				formatted = formatted || r.header(t, "STATE") != nil
				if s == step && formatted {
					return errCut
				}
				return nil
			})
			if _, err := r.Apply(t.Context(), []byte(config(k("a"), k("a0"))), node.Auto); !errors.Is(err, errCut) {
				t.Fatalf("%s: the first: %v", step, err)
			}
			r.CutBefore(nil)
			r.apply(t, second, node.Auto)
			for range 2 {
				r.wantPhase(t, node.Running)
				r.wantOpen(t, "STATE", "EPHEMERAL")
				r.mustReboot(t)
			}
		}
	}
}

// TestMissingWhileWiped: a wipe that META notes waits for the partition.
func TestMissingWhileWiped(t *testing.T) {
	t.Parallel()
	for _, label := range k("EPHEMERAL", "STATE") {
		r := running(t, config(k("s0"), k("e0")))
		path, err := r.sys.Find(label)
		if err != nil {
			t.Fatal(err)
		}
		r.sys = r.sys.Reboot()
		r.editMeta(t, func(m *meta.Meta) { m.Set(194, []byte(`["`+label+`"]`)) })
		r.sys.SetLabel(label)
		r.renew()
		if err := r.Boot(t.Context()); (err == nil) != (label == "EPHEMERAL") {
			t.Errorf("boot without %s: %v", label, err)
		}
		before := r.header(t, map[string]string{"STATE": "EPHEMERAL", "EPHEMERAL": "STATE"}[label]).UUID()
		r.sys = r.sys.Reboot()
		r.sys.SetLabel(label, path)
		r.renew()
		if err := r.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if label == "STATE" {
			r.wantPhase(t, node.Maintenance)
			r.apply(t, config(k("s0"), k("e0")), node.Auto)
		}
		r.wantOpen(t, "STATE", "EPHEMERAL")
		if !r.volume(t, label).Formatted {
			t.Errorf("%s was not wiped", label)
		}
		if r.header(t, map[string]string{"STATE": "EPHEMERAL", "EPHEMERAL": "STATE"}[label]).UUID() != before {
			t.Error("the other one was")
		}
	}
}

// TestWipeFails: a wipe that fails keeps its note, and nothing else down.
func TestWipeFails(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	failed := errors.New("medium error")
	r.sys.FailAt("Zero", 1, failed)
	if err := r.Reset(t.Context(), k("EPHEMERAL")); !errors.Is(err, failed) {
		t.Fatalf("reset: %v", err)
	}
	r.sys = r.sys.Reboot()
	r.sys.FailAt("Zero", 1, failed)
	r.renew()
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantPhase(t, node.Running)
	if v := r.volume(t, "EPHEMERAL"); v.Phase == node.VolumeOpen || !strings.Contains(v.Errors[0], "its wipe is not finished") {
		t.Errorf("%+v", v)
	}
	r.mustReboot(t)
	r.wantOpen(t, "EPHEMERAL")
	if !r.volume(t, "EPHEMERAL").Formatted {
		t.Error("it was not wiped")
	}
}

// TestWipeOfStateFails: STATE is not taken for empty, and its wipe goes on.
func TestWipeOfStateFails(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.write(t, "STATE")
	r.sys.FailAt("Zero", 1, errors.New("medium error"))
	if err := r.Reset(t.Context(), k("STATE")); err == nil {
		t.Fatal("the wipe did not fail")
	}
	r.wantPhase(t, node.Failed)
	if _, err := r.Apply(t.Context(), []byte(config(nil, nil)), node.Auto); !errors.Is(err, node.ErrPhase) {
		t.Errorf("apply: %v", err)
	}
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantPhase(t, node.Maintenance)
	r.apply(t, config(k("s0"), k("e0")), node.Auto)
	if r.wantOpen(t, "STATE", "EPHEMERAL"); r.has(t, "STATE") {
		t.Error("STATE was not wiped")
	}
}

// TestHalfClosed: STATE is unmounted and its mapping stays. What lies in its
// directory then is not taken for what STATE holds.
func TestHalfClosed(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.write(t, "STATE")
	r.sys.Hold("luks2-STATE", "a container")
	if err := r.Reset(t.Context(), k("STATE")); err == nil {
		t.Fatal("wiped in use")
	}
	if _, err := r.Apply(t.Context(), []byte(config(k("s1"), k("e1"))), node.Auto); !errors.Is(err, node.ErrPhase) {
		t.Errorf("apply: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(r.dir("STATE"), "*")); len(left) > 0 {
		t.Errorf("written where STATE was: %q", left)
	}
	r.mustReboot(t)
	r.wantPhase(t, node.Maintenance)
	r.apply(t, config(k("s0"), k("e0")), node.Auto)
	if r.wantOpen(t, "STATE", "EPHEMERAL"); r.has(t, "STATE") {
		t.Error("STATE was not wiped")
	}
}

// TestLateFailure: the first configuration, a plain one, fails at its last step.
// Booting again undoes it; what comes after is never wiped.
func TestLateFailure(t *testing.T) {
	t.Parallel()
	for _, step := range []int{2, 3} { // of META: before and after STATE is made
		r := newRig(t)
		r.mustReboot(t)
		n := 0
		r.CutBefore(func(s string) error {
			if s == "META" {
				n++
			}
			if n >= step {
				return errCut
			}
			return nil
		})
		if _, err := r.Apply(t.Context(), []byte(config(nil, nil)), node.Auto); err == nil && step == 2 {
			t.Fatal("the last step did not fail")
		}
		r.CutBefore(nil)
		if err := r.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r.Status().Phase == node.Maintenance {
			r.apply(t, config(nil, nil), node.Auto)
		}
		r.write(t, "STATE")
		r.mustReboot(t)
		r.wantPhase(t, node.Running)
		if !r.has(t, "STATE") {
			t.Errorf("META write %d failed: STATE was wiped afterwards", step)
		}
	}
}

// TestNotRecorded: a volume that is not there and was never recorded, such as one
// of Talos, has the keys of the configuration that was in force.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.write(t, "EPHEMERAL")
	if err := os.Remove(filepath.Join(r.dir("STATE"), "cryptctl/identities.json")); err != nil {
		t.Fatal(err)
	}
	path, _ := r.sys.Find("EPHEMERAL")
	r.sys = r.sys.Reboot()
	r.sys.SetLabel("EPHEMERAL")
	r.renew()
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.apply(t, config(k("s0"), k("e1")), node.Auto)
	r.sys = r.sys.Reboot()
	r.sys.SetLabel("EPHEMERAL", path)
	r.renew()
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.wantOpen(t, "EPHEMERAL"); !r.has(t, "EPHEMERAL") || !r.opensWith(t, "EPHEMERAL", "e1") {
		t.Error("its keys were forgotten")
	}
}

// TestSetAside: a stored configuration that cannot be read is not lost.
func TestSetAside(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	if err := os.WriteFile(filepath.Join(r.dir("STATE"), "config.yaml"), []byte("machine: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	if r.reboot(t) == nil {
		t.Fatal("it could be read")
	}
	r.apply(t, config(k("s0"), k("e1")), node.Auto)
	kept, _ := filepath.Glob(filepath.Join(r.dir("STATE"), "cryptctl/former/*.yaml"))
	if len(kept) != 1 {
		t.Fatalf("kept %q", kept)
	}
	if text, err := os.ReadFile(kept[0]); err != nil || string(text) != "machine: [" {
		t.Errorf("%q, %v", text, err)
	}
}

// TestSaltInUse: that another key is configured does not mean that it opens.
func TestSaltInUse(t *testing.T) {
	t.Parallel()
	conf := strings.Replace(locked("s0", "e0"), "        passphrase: \"e0\"\n", "        passphrase: \"e0\"\n    - slot: 1\n      kms:\n        endpoint: grpc://127.0.0.1:1\n", 1)
	r := running(t, locked("s0", "e0"))
	r.apply(t, conf, node.Staged)
	r.mustReboot(t)
	if v := r.volume(t, "EPHEMERAL"); v.Phase != node.VolumeOpen {
		t.Fatalf("%+v", v)
	}
	if err := r.Reset(t.Context(), k("STATE")); err == nil || !strings.Contains(err.Error(), "locked to STATE") {
		t.Errorf("wiping the salt: %v", err)
	}
	both := strings.Replace(conf, "kms:\n        endpoint: grpc://127.0.0.1:1\n", "static:\n        passphrase: other\n", 1)
	r.apply(t, both, node.Auto)
	if err := r.Reset(t.Context(), k("STATE")); err != nil {
		t.Errorf("another key opens: %v", err)
	}
}

// TestWaits: a volume whose directory lies on EPHEMERAL waits for it.
func TestWaits(t *testing.T) {
	t.Parallel()
	conf := config(k("s0"), k("e0"), "data")
	r := running(t, conf, "u-data")
	r.wantOpen(t, "u-data")
	path, _ := r.sys.Find("EPHEMERAL")
	r.sys = r.sys.Reboot()
	r.sys.SetLabel("EPHEMERAL")
	r.renew()
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := r.volume(t, "u-data"); v.Phase == node.VolumeOpen || !strings.Contains(v.Errors[0], "waits for EPHEMERAL") {
		t.Errorf("%+v", v)
	}
	r.sys.SetLabel("EPHEMERAL", path)
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantOpen(t, "EPHEMERAL", "u-data")
}

// TestBackoff: boot is tried again while a key server may come back, and ends
// when somebody else brought the node up.
func TestBackoff(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	path, _ := r.sys.Find("STATE")
	r.sys = r.sys.Reboot()
	r.sys.SetLabel("STATE")
	r.renew()
	time.AfterFunc(50*time.Millisecond, func() { r.sys.SetLabel("STATE", path) })
	if err := r.BootUntilUp(t.Context(), node.Backoff{First: time.Millisecond, Most: 100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	r.wantOpen(t, "STATE", "EPHEMERAL")
	r.sys = r.sys.Reboot()
	r.editMeta(t, func(m *meta.Meta) { m.Set(9, []byte("null")) })
	r.renew()
	if err := r.BootUntilUp(t.Context(), node.DefaultBackoff); err == nil {
		t.Error("it came up")
	} // and did not wait five seconds for what cannot pass
}
