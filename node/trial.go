package node

import (
	"context"
	"time"

	"github.com/cryptctl/cryptctl/volume"
)

// trial is a configuration that is taken back unless another one comes.
type trial struct {
	before *machine
	lasts  time.Duration
	timer  *time.Timer
	over   bool // it could not be taken back yet
}

// Try is Apply in mode Try with a time of its own.
func (n *Node) Try(ctx context.Context, text []byte, timeout time.Duration) (*Applied, error) {
	return n.applyFor(ctx, text, Try, timeout)
}

// try makes a configuration the one in force, but not that of the next boot.
// Its keys are written down, since the headers get them.
func (n *Node) try(ctx context.Context, m *machine, lasts time.Duration) error {
	before := n.base()
	if err := n.files().keepFormer(m); err != nil {
		return err
	}
	n.endTrial()
	t := &trial{before: before, lasts: lasts}
	n.trial = t
	n.setTrial(true)
	err := n.activate(ctx, m, true, (*volume.Volume).Reconcile)
	t.timer = time.AfterFunc(lasts, func() { n.trialOver(t) })
	return err
}

// trialOver takes a trial back whose time is over.
func (n *Node) trialOver(t *trial) {
	ctx, end, err := n.begin(context.Background())
	if err != nil { // who closes the node takes it back, unless he gives up
		time.AfterFunc(t.again(), func() { n.trialOver(t) })
		return
	}
	defer end()
	if n.trial != t {
		return // another Apply came first
	}
	// No call waits for a key server that another key can do without: finish does.
	if err := n.revert(ctx, (*volume.Volume).ReconcileLocal); err != nil {
		n.notice("taking the configuration on trial back, which is tried again: %v", err)
	}
}

// takeBackTime is how long closing a node may wait for keys that open what a trial
// has changed.
const takeBackTime = 10 * time.Second

// A trial that could not be taken back stands as long again until the next attempt,
// within these bounds: each one opens volumes, and writes.
const (
	againFirst = time.Second
	againAfter = time.Minute
)

// again is how long the next attempt to take a trial back has to wait.
func (t *trial) again() time.Duration { return max(againFirst, min(t.lasts, againAfter)) }

// revert takes a configuration on trial back.
func (n *Node) revert(ctx context.Context, sync reconciler) error {
	return n.takeBack(func(m *machine) error { return n.activate(ctx, m, false, sync) })
}

// revertLocally is revert for a node that is being closed: it opens nothing, and no
// key server is waited for that another key can do without. The next boot does the
// rest.
func (n *Node) revertLocally(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, takeBackTime)
	defer stop()
	return n.takeBack(func(m *machine) error {
		err := n.rekey(ctx, m, false, (*volume.Volume).ReconcileLocal)
		n.settle()
		return err
	})
}

// takeBack puts the configuration before a trial in force. Until the slots have their
// keys again the status shows the trial, and it is tried again.
func (n *Node) takeBack(inForce func(*machine) error) error {
	t := n.trial
	if t == nil {
		return nil
	}
	t.timer.Stop()
	t.over = true
	n.log.Info("the configuration on trial is taken back")
	if err := inForce(t.before); err != nil {
		t.timer.Reset(t.again())
		return err
	}
	n.endTrial()
	return nil
}

// keepTrial lets what is on trial stay until another configuration is in force.
// STATE then opens by its keys, and META says so.
func (n *Node) keepTrial() error {
	if n.trial == nil {
		return nil
	}
	n.endTrial()
	return n.noteInStep()
}

// endTrial has nothing be taken back any more.
func (n *Node) endTrial() {
	if n.trial == nil {
		return
	}
	n.trial.timer.Stop()
	n.trial = nil
	n.setTrial(false)
}

func (n *Node) setTrial(on bool) {
	n.view.mu.Lock()
	n.view.status.Trial = on
	n.view.mu.Unlock()
}
