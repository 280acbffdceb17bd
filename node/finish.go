package node

import (
	"context"
	"errors"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/volume"
)

// reconciler brings the slots of an open volume in step: [volume.Volume.Reconcile],
// or ReconcileLocal, which leaves the rest for finish.
type reconciler func(*volume.Volume, context.Context) (*keys.Report, error)

// finishLater has the background do what is left. The next flow interrupts it, and
// it goes on after that one.
func (n *Node) finishLater() {
	n.interrupt = func() {}
	if len(n.asking) == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	n.interrupt = func() {
		stop()
		<-done
	}
	go func() {
		defer close(done)
		defer stop()
		n.finish(ctx)
		n.release()
	}()
}

// Finish does what Boot left to the background, and waits for it: for programs that
// end after the boot. Until then other calls wait, too; the end of ctx ends the wait.
func (n *Node) Finish(ctx context.Context) {
	ctx, end, err := n.begin(ctx)
	if err != nil {
		return // the node is being closed, or there is no time left
	}
	defer end()
	n.finish(ctx)
}

// finish waits for the key servers that the boot did not wait for, and brings the
// slots of their volumes in step. The volumes stayed unlocked for that, since a key
// that opened one may be out of reach by now, behind the latch. Each key has its
// time limit, so that it ends.
func (n *Node) finish(ctx context.Context) {
	if len(n.asking) == 0 {
		return
	}
	for _, name := range n.open() {
		if !n.asking[name] {
			continue
		}
		if err := n.before("slots of " + name); err != nil {
			return
		}
		report, err := n.volumeOf(name).Reconcile(ctx)
		if report == nil && ctx.Err() != nil {
			return
		}
		if name == stateName && report != nil {
			err = errors.Join(err, n.noteFinished(report, err))
		}
		n.reconciled(name, report, err)
	}
	n.settle()
}

// noteFinished has META follow the slots of STATE.
func (n *Node) noteFinished(report *keys.Report, failed error) error {
	notes, err := n.readNotes()
	want := n.config.encryption(stateName)
	if err != nil || !proven(report) || sameKeys(notes.state, want) && len(notes.candidates) == 0 {
		return err
	}
	return n.noteKeys(report, failed, notes, want)
}

// noteInStep has META follow a STATE whose slots have the keys of the configuration
// in force already: while those were on trial, META did not.
func (n *Node) noteInStep() error {
	report := n.reports[stateName]
	if report == nil || n.inStep[stateName] != n.config || n.config.encryption(stateName) == nil {
		return nil // the slots have other keys, or none
	}
	return n.noteFinished(report, nil)
}

// askLater notes that a volume has keys which were not waited for.
func (n *Node) askLater(name string, r *keys.Report) {
	if delete(n.asking, name); r != nil && len(r.Asking) > 0 && !n.volumeOf(name).Reconciled() {
		n.asking[name] = true
	}
}

// stopAsking leaves the slots of a volume as they are.
func (n *Node) stopAsking(name string) {
	if !n.asking[name] {
		return
	}
	delete(n.asking, name)
	if v := n.volumeOf(name); v != nil {
		v.Release()
	}
	n.view.volume(name, func(s *VolumeStatus) { s.Asking = nil })
}
