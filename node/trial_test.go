package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
)

// onTrial is a machine that runs with the keys s0 and e0, and has s1 and e1 on trial.
func onTrial(t *testing.T, lasts time.Duration) *rig {
	t.Helper()
	r := running(t, config(k("s0"), k("e0")))
	if _, err := r.Try(t.Context(), []byte(config(k("s1"), k("e1"))), lasts); err != nil {
		t.Fatal(err)
	}
	if !r.Status().Trial {
		t.Fatal("nothing is on trial")
	}
	return r
}

// takenBack waits until nothing is on trial.
func (r *rig) takenBack(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); r.Status().Trial; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it is not taken back")
		}
	}
}

// opened fails unless both volumes open with the keys of a number, and not with
// those of another.
func (r *rig) opened(t *testing.T, with, not string) {
	t.Helper()
	for label, name := range map[string]string{"STATE": "s", "EPHEMERAL": "e"} {
		if !r.opensWith(t, label, name+with) || r.opensWith(t, label, name+not) {
			t.Errorf("%s opens with %s%s: %v, with %s%s: %v", label, name, with, r.opensWith(t, label, name+with), name, not, r.opensWith(t, label, name+not))
		}
	}
}

// metaOpens fails unless META has exactly this key of STATE, for every reader.
func (r *rig) metaOpens(t *testing.T, key string) {
	t.Helper()
	r.editMeta(t, func(m *meta.Meta) {
		value, _ := m.Get(meta.StateEncryptionConfig)
		e, err := meta.ParseEncryption(value)
		if err != nil || len(e.Keys) != 1 || e.Keys[0].Static == nil || !e.Keys[0].Static.Equal(secretOf(key)) {
			t.Errorf("META's key of STATE is not %s: %s, %v", key, value, err)
		}
		if tags := m.Tags(); !slices.Equal(tags, []meta.Tag{9, 192}) {
			t.Errorf("tags in META: %v", tags)
		}
	})
	if !r.opensWith(t, "STATE", key) {
		t.Errorf("META's key %s does not open STATE", key)
	}
}

// TestConfirmed: a trial that another Apply keeps has META name keys that open
// STATE, at once, whatever is cut off.
func TestConfirmed(t *testing.T) {
	t.Parallel()
	same, other := config(k("s1"), k("e1")), config(k("s1"), k("e2"))
	for _, test := range []struct {
		name, config string
		mode         node.Mode
	}{
		{"the same, now", same, node.NoReboot},
		{"the same, on the next boot", same, node.Staged},
		{"other keys of EPHEMERAL", other, node.Auto},
	} {
		r := onTrial(t, time.Hour)
		r.apply(t, test.config, test.mode)
		t.Log(test.name)
		r.metaOpens(t, "s1")
		r.mustReboot(t)
		r.wantOpen(t, "STATE", "EPHEMERAL")
		r.metaOpens(t, "s1")
		r.forgotten(t)
	}
}

// TestConfirmedLater: META could not be written when a trial was kept. Another Apply,
// or a boot, sees to that.
func TestConfirmedLater(t *testing.T) {
	t.Parallel()
	for _, reboots := range []bool{false, true} {
		r := onTrial(t, time.Hour)
		r.CutBefore(failAt("META"))
		if _, err := r.Apply(t.Context(), []byte(config(k("s1"), k("e1"))), node.Auto); !errors.Is(err, errCut) {
			t.Fatalf("apply: %v", err)
		}
		r.CutBefore(nil)
		if reboots {
			r.mustReboot(t)
		} else if err := r.Boot(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.wantOpen(t, "STATE", "EPHEMERAL")
		r.metaOpens(t, "s1")
	}
}

// TestConfirmedBySealed: what is applied after a trial has keys that wait for the
// next boot. META names those that STATE has, not those that it will have.
func TestConfirmedBySealed(t *testing.T) {
	t.Parallel()
	m := installed(t, config(k("s0"), k("e0")))
	m.boots(t)
	if !m.latched(t) {
		t.Fatal("the latch is open")
	}
	m.apply(t, config(k("s1"), k("e1")), node.Try)
	if a := m.apply(t, sealedConfig(""), node.Auto); !a.Reboot {
		t.Fatalf("a key that is sealed waits for nothing: %+v", a)
	}
	m.metaOpens(t, "s1")
	m.boots(t)
	m.wantOpen(t, bothVolumes...)
	if m.opensWith(t, "STATE", "s1") || m.opensWith(t, "EPHEMERAL", "e1") {
		t.Error("the keys on trial stayed")
	}
}

// failAt fails one kind of write.
func failAt(step string) func(string) error {
	return func(s string) error {
		if s == step {
			return errCut
		}
		return nil
	}
}

// TestApplyFailsInTrial: an Apply that cannot store its configuration leaves the
// trial as it is.
func TestApplyFailsInTrial(t *testing.T) {
	t.Parallel()
	for _, mode := range []node.Mode{node.Auto, node.Staged, node.Try} {
		r := onTrial(t, 2*time.Second)
		full := filepath.Join(r.dir("STATE"), "config.yaml.new") // where it is written first
		if mode == node.Try {
			full = filepath.Join(r.dir("STATE"), "cryptctl")
			os.Chmod(full, 0)
			os.RemoveAll(filepath.Join(full, "former"))
			full = filepath.Join(full, "former")
			os.WriteFile(full, nil, 0o600)
		} else {
			os.Mkdir(full, 0o700)
		}
		if _, err := r.Apply(t.Context(), []byte(config(k("s2"), k("e2"))), mode); err == nil {
			t.Fatalf("%s: stored where nothing can be", mode)
		}
		if !r.Status().Trial {
			t.Errorf("%s: the trial is over", mode)
		}
		r.opened(t, "1", "2")
		os.Remove(full)
		r.takenBack(t)
		r.opened(t, "0", "1")
	}
}

// TestResetInTrial: STATE goes while a configuration is on trial, and its mapping is
// held by someone: nothing is left to take back.
func TestResetInTrial(t *testing.T) {
	t.Parallel()
	r := onTrial(t, time.Second)
	r.sys.Hold("luks2-STATE", "a container")
	if err := r.Reset(t.Context(), k("STATE")); err == nil || !strings.Contains(err.Error(), "wiped on the next boot") {
		t.Fatalf("reset: %v", err)
	}
	if s := r.Status(); s.Trial || s.Phase != node.Failed || !strings.Contains(s.Reason, "a container") {
		t.Errorf("after it: trial %v, phase %s (%s)", s.Trial, s.Phase, s.Reason)
	}
	if err := r.Boot(t.Context()); err == nil || errors.Is(err, node.ErrPhase) {
		t.Errorf("boot while it is held: %v", err)
	}
	time.Sleep(1100 * time.Millisecond) // the trial's time
	if err := r.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
	r.mustReboot(t)
	r.wantPhase(t, node.Maintenance)
}

// TestNotTakenBack: what is on trial cannot be taken back at once. The status shows
// the trial until it is.
func TestNotTakenBack(t *testing.T) {
	t.Parallel()
	for _, byBoot := range []bool{false, true} {
		lasts := 100 * time.Millisecond
		if byBoot {
			lasts = time.Second
		}
		r := running(t, config(k("s0"), k("e0")))
		tries := make(chan struct{}, 100)
		r.CutBefore(nil)
		if _, err := r.Try(t.Context(), []byte(config(k("s1"), k("e1"))), lasts); err != nil {
			t.Fatal(err)
		}
		r.Flow(func() {
			r.CutBefore(func(string) error {
				tries <- struct{}{}
				return errCut
			})
		})
		for range 2 { // two attempts of its own
			<-tries
			if byBoot {
				break
			}
		}
		r.Flow(func() { r.CutBefore(nil) })
		if byBoot {
			if !r.Status().Trial {
				t.Fatal("the status does not show the trial any more")
			}
			if err := r.Boot(t.Context()); err != nil {
				t.Fatalf("boot: %v", err)
			}
			if r.Status().Trial {
				t.Error("booting did not take it back")
			}
		}
		r.takenBack(t)
		r.opened(t, "0", "1")
		r.metaOpens(t, "s0")
		r.forgotten(t)
		if s := r.Status(); !strings.Contains(strings.Join(s.Notices, "\n"), "which is tried again: the power was cut") {
			t.Errorf("notices %q", s.Notices)
		}
	}
}

// TestTrialTime: a trial lasts as long as it was asked to, by the daemon's client too.
func TestTrialTime(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0"))) // whose trials last an hour
	dir, err := os.MkdirTemp("", "s")         // the path of a socket has 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := node.Listen(filepath.Join(dir, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		l.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	c := node.Client{Socket: filepath.Join(dir, "socket")}
	tried := []byte(config(k("s1"), k("e1")))
	if a, err := c.Apply(t.Context(), tried, node.Try); err != nil || !a.Status.Trial {
		t.Fatalf("%+v, %v", a, err)
	}
	c.TryTimeout = 300 * time.Millisecond
	begin := time.Now()
	if a, err := c.Apply(t.Context(), tried, node.Try); err != nil || !a.Status.Trial {
		t.Fatalf("%+v, %v", a, err)
	}
	r.takenBack(t)
	if took := time.Since(begin); took < c.TryTimeout {
		t.Errorf("taken back after %s", took)
	}
	r.opened(t, "0", "1")
	for _, refused := range []struct {
		mode  node.Mode
		lasts time.Duration
	}{{node.Auto, time.Minute}, {node.Try, -time.Minute}} {
		c.TryTimeout = refused.lasts
		if _, err := c.Apply(t.Context(), tried, refused.mode); err == nil || !strings.Contains(err.Error(), "it is how long mode try lasts") {
			t.Errorf("mode %s, timeout %s: %v", refused.mode, refused.lasts, err)
		}
	}
	r.opened(t, "0", "1")
}

// TestTryStaged: what is staged is tried first. The keys that the headers go back to
// stay written down.
func TestTryStaged(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.write(t, "EPHEMERAL")
	staged := config(k("s0"), k("e1"))
	r.apply(t, staged, node.Staged)
	if _, err := r.Try(t.Context(), []byte(staged), 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	r.takenBack(t)
	if !r.opensWith(t, "EPHEMERAL", "e0") {
		t.Error("EPHEMERAL has not got its key back")
	}
	r.mustReboot(t)
	r.wantOpen(t, bothVolumes...)
	if !r.has(t, "EPHEMERAL") || !r.opensWith(t, "EPHEMERAL", "e1") {
		t.Error("what was staged is not in force")
	}
	r.forgotten(t)
}

// TestTakeBackHoldsNobody: a trial's end waits for no key server that another key can
// do without; its slots are seen to in the background.
func TestTakeBackHoldsNobody(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	r := running(t, s.served(config(k("s0"), k("e0"))), "u-data")
	r.patient()
	r.mustReboot(t)
	r.settled(t)
	s.turn(silent)
	if _, err := r.Try(t.Context(), []byte(config(k("s1"), k("e1"))), 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	r.takenBack(t)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if err := r.Reset(ctx, k("u-data")); err != nil {
		t.Errorf("reset of another volume: %v", err)
	}
	r.opened(t, "0", "1")
	r.asking(t)
	s.turn(answers)
	r.settled(t)
	r.wantOpen(t, bothVolumes...)
	r.forgotten(t)
}

// TestShortTrial: a trial that cannot be taken back is not tried again and again at
// once, however short it is.
func TestShortTrial(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	var begun, tries atomic.Int64
	r.CutBefore(func(step string) error {
		if step == "slots of EPHEMERAL" && begun.Add(1) > 1 {
			tries.Add(1)
			return errCut
		}
		return nil
	})
	if _, err := r.Try(t.Context(), []byte(config(k("s1"), k("e1"))), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	r.Flow(func() { r.CutBefore(nil) })
	if n := tries.Load(); n < 1 || n > 2 {
		t.Errorf("%d attempts within 1.5 s", n)
	}
	r.takenBack(t)
	r.opened(t, "0", "1")
}

// TestNoWayBack: with the latch closed, keys that the TPM sealed are not taken away on
// trial, since they could not be had back.
func TestNoWayBack(t *testing.T) {
	t.Parallel()
	m := installed(t, sealedConfig("", "p0"))
	m.boots(t)
	_, err := m.Apply(t.Context(), []byte(config(k("s1"), k("e1"))), node.Try)
	if !errors.Is(err, node.ErrNeedsMore) || !strings.Contains(err.Error(), "EPHEMERAL: a key that the TPM seals before its latch closes") {
		t.Errorf("try: %v", err)
	}
	if m.Status().Trial || !m.opensWith(t, "EPHEMERAL", "p0") {
		t.Error("it is on trial")
	}
	m.apply(t, sealedConfig("", "p1"), node.Try) // beside them, another one is
	if !m.opensWith(t, "EPHEMERAL", "p1") {
		t.Error("another passphrase is not on trial")
	}
}
