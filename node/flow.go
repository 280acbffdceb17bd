package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// errClosing ends the flows of a node that is being closed.
var errClosing = errors.New("the node is being closed")

// turns has flows run one after the other. Closing ends the one that runs and those
// that wait; what is being written then is written.
type turns struct {
	held chan struct{} // full while a flow runs

	mu      sync.Mutex
	open    context.Context // of all flows; ends when the node is closed
	ending  context.CancelCauseFunc
	closing int // how many are closing the node
}

func newTurns() *turns {
	t := &turns{held: make(chan struct{}, 1), closing: 1}
	t.reopen()
	return t
}

// take waits for the turn. The context that it returns ends with ctx, and when the
// node is closed; done gives the turn back.
func (t *turns) take(ctx context.Context) (flow context.Context, done func(), err error) {
	t.mu.Lock()
	open := t.open
	t.mu.Unlock()
	flow, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(open, func() { cancel(errClosing) })
	forget := func() {
		stop()
		cancel(nil)
	}
	if err := t.hold(flow); err != nil {
		forget()
		return nil, nil, err
	}
	done = func() {
		forget()
		<-t.held
	}
	if open.Err() != nil { // since it waits
		done()
		return nil, nil, errClosing
	}
	return flow, done, nil
}

// hold waits for the turn as long as the context lasts. A turn that is free is had
// by who has no time left, too.
func (t *turns) hold(ctx context.Context) error {
	select {
	case t.held <- struct{}{}:
		return nil
	default:
	}
	select {
	case t.held <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for what the node is doing: %w", context.Cause(ctx))
	}
}

// takeLast is take for closing: it ends the others. done has the node be used
// again.
func (t *turns) takeLast(ctx context.Context) (done func(), err error) {
	t.mu.Lock()
	t.closing++
	t.ending(errClosing)
	t.mu.Unlock()
	if err := t.hold(ctx); err != nil {
		t.reopen()
		return nil, err
	}
	return func() {
		t.reopen()
		<-t.held
	}, nil
}

// reopen has flows begin again, unless another one is still closing the node: none
// may run with a context that closing does not end.
func (t *turns) reopen() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closing--; t.closing > 0 {
		return
	}
	t.open, t.ending = context.WithCancelCause(context.Background())
}

// begin starts a flow, with a context that [Node.Close] ends; what it returns ends
// it. Nothing goes on in the background in between.
func (n *Node) begin(ctx context.Context) (flow context.Context, end func(), err error) {
	flow, done, err := n.turns.take(ctx)
	if err != nil {
		return nil, nil, err
	}
	n.interrupt()
	return flow, func() { n.end(done) }, nil
}

func (n *Node) end(done func()) {
	n.release()
	n.finishLater()
	done()
}
