package node_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/meta"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/volume/volumetest"
)

// asked waits until somebody asks the key server.
func (s *keyServer) waitAsked(t *testing.T) {
	t.Helper()
	select {
	case <-s.asked:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody asks the key server")
	}
}

// soon fails unless it ends without waiting for anyone.
func soon(t *testing.T, what string, do func() error) error {
	t.Helper()
	begin := time.Now()
	err := do()
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("%s took %s", what, took)
	}
	return err
}

// TestCloseWhileApplying: a shutdown waits for no key server that an Apply waits for.
// The next boot has all volumes and goes on.
func TestCloseWhileApplying(t *testing.T) {
	t.Parallel()
	for _, mode := range []node.Mode{node.Auto, node.Try} {
		s := newKeyServer(t)
		r := running(t, config(k("s0"), k("e0")))
		r.patient()
		r.mustReboot(t)
		r.write(t, "EPHEMERAL")
		s.turn(silent)
		s.asked = make(chan struct{}, 100)
		goal := s.served(config(k("s1"), k("e1")))
		applied := make(chan error, 1)
		go func() {
			_, err := r.Apply(context.Background(), []byte(goal), mode)
			applied <- err
		}()
		s.waitAsked(t)
		if _, err := r.Apply(t.Context(), []byte(goal), node.Staged); !errors.Is(err, node.ErrPhase) || !strings.Contains(err.Error(), "another apply is in progress") {
			t.Errorf("%s: a second apply meanwhile: %v", mode, err)
		}
		booted := make(chan error, 1)
		go func() { booted <- r.Boot(context.Background()) }() // waits for its turn
		if err := soon(t, "close", func() error { return r.Close(context.Background()) }); err != nil {
			t.Errorf("%s: close: %v", mode, err)
		}
		for what, ended := range map[string]chan error{"apply": applied, "boot": booted} {
			if err := <-ended; err == nil || !strings.Contains(err.Error(), "the node is being closed") {
				t.Errorf("%s: %s: %v", mode, what, err)
			}
		}
		if calls := r.sys.Calls("Deactivate"); len(calls) != 2 {
			t.Errorf("%s: closed: %v", mode, calls)
		}
		s.turn(answers)
		r.mustReboot(t)
		r.Finish(t.Context())
		r.wantOpen(t, bothVolumes...)
		with := map[node.Mode]string{node.Auto: "1", node.Try: "0"}[mode]
		if r.opened(t, with, map[string]string{"0": "1", "1": "0"}[with]); !r.has(t, "EPHEMERAL") {
			t.Errorf("%s: data lost", mode)
		}
		r.forgotten(t)
	}
}

// TestCloseOnTrial: a shutdown takes a trial back as far as no key server is needed
// for it, and the next boot does the rest.
func TestCloseOnTrial(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	r := running(t, s.served(config(k("s0"), k("e0"))))
	r.patient()
	r.mustReboot(t)
	r.settled(t)
	for _, tried := range []string{config(k("s1"), k("e1")), s.servedOnly(t)} {
		s.turn(answers)
		r.apply(t, tried, node.Try)
		s.turn(silent)
		waits := tried == s.servedOnly(t) // what opens EPHEMERAL can be had of nobody else
		begin := time.Now()
		if err := r.Close(context.Background()); (err != nil) != waits {
			t.Errorf("close: %v", err)
		}
		if took := time.Since(begin); took > 15*time.Second || took > 5*time.Second && !waits {
			t.Errorf("closing took %s", took)
		}
		if calls := r.sys.Calls("Deactivate"); len(calls) != 2 {
			t.Errorf("closed: %v", calls)
		}
		if !waits {
			r.opened(t, "0", "1")
		}
		s.turn(answers)
		r.mustReboot(t)
		r.Finish(t.Context())
		r.wantOpen(t, bothVolumes...)
		r.opened(t, "0", "1")
		r.forgotten(t)
	}
}

// TestWaitsForItsTurn: who waits for a flow waits as long as he has time. One who
// gives up closing the node stops nothing for good.
func TestWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	r := onTrial(t, 200*time.Millisecond)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer stop()
	r.Flow(func() {
		time.Sleep(300 * time.Millisecond) // the trial is over, and waits for its end
		if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("close: %v", err)
		}
		if _, err := r.Apply(ctx, []byte(config(k("s1"), k("e1"))), node.Auto); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("apply: %v", err)
		}
	})
	r.wantPhase(t, node.Running)
	r.takenBack(t)
	r.opened(t, "0", "1")
	r.apply(t, config(k("s1"), k("e1")), node.Auto)
	r.opened(t, "1", "0")
}

// TestTwoCloses: one who gives up closing a node that another one closes leaves
// nothing that a later Close cannot end.
func TestTwoCloses(t *testing.T) {
	t.Parallel()
	s := newKeyServer(t)
	r := running(t, config(k("s0"), k("e0")))
	r.patient()
	r.mustReboot(t)
	r.apply(t, s.servedOnly(t), node.Auto)
	r.sys = r.sys.Reboot()
	r.renew()
	s.turn(silent)
	closed, booted := make(chan error, 1), make(chan error, 1)
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	r.Flow(func() {
		go func() { closed <- r.Close(context.Background()) }()
		time.Sleep(20 * time.Millisecond)
		if err := r.Close(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the second close: %v", err)
		}
		go func() { booted <- r.Boot(context.Background()) }() // behind the first
		time.Sleep(100 * time.Millisecond)
	})
	if err := <-closed; err != nil {
		t.Errorf("the first close: %v", err)
	}
	time.Sleep(100 * time.Millisecond)
	ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
	defer stop()
	if err := r.Close(ctx); err != nil {
		t.Errorf("the third close: %v", err)
	}
	s.turn(answers)
	if err := <-booted; err == nil || !strings.Contains(err.Error(), "the node is being closed") {
		t.Errorf("boot: %v", err)
	}
}

// TestUntilClosed: who boots until the node is up is told that it was closed.
func TestUntilClosed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sys := volumetest.New(t, dir)
	sys.AddPartition("META", meta.Size) // and no STATE
	n := node.New(node.Options{System: sys, Root: filepath.Join(dir, "root")})
	up := make(chan error, 1)
	go func() { up <- n.BootUntilUp(t.Context(), node.Backoff{First: time.Second, Most: time.Second}) }()
	for deadline := time.Now().Add(20 * time.Second); n.Status().Phase != node.Failed; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the boot does not fail")
		}
	}
	if err := n.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-up; err == nil || !strings.Contains(err.Error(), "the node is being closed") {
		t.Errorf("a node that was closed is up: %v", err)
	}
}
