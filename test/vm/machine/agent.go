package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// agent is our end of the guest program's serial port.
type agent struct {
	conn io.ReadWriteCloser

	mu      sync.Mutex
	last    int
	waiting map[int]chan wire.Reply
	ready   chan struct{} // closed by the guest's first line
}

func newAgent(conn io.ReadWriteCloser) *agent {
	a := &agent{conn: conn, waiting: map[int]chan wire.Reply{}, ready: make(chan struct{})}
	go a.receive()
	return a
}

// receive hands replies to those who wait for them, until the machine is off.
func (a *agent) receive() {
	defer a.conn.Close()
	lines := bufio.NewReader(a.conn)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var reply wire.Reply
		if json.Unmarshal(line, &reply) != nil {
			continue // noise of a machine that was cut off
		}
		if reply.ID == 0 {
			close(a.ready)
			continue
		}
		a.mu.Lock()
		to := a.waiting[reply.ID]
		delete(a.waiting, reply.ID)
		a.mu.Unlock()
		if to != nil {
			to <- reply
		}
	}
}

// Error is what an act in the machine failed with.
type Error struct {
	Act  string
	Text string
	Kind wire.Kind
}

func (e *Error) Error() string { return e.Act + ": " + e.Text }

// call asks for an act and waits for the reply.
func (a *agent) call(ctx context.Context, act string, args, result any) error {
	text, err := json.Marshal(args)
	if err != nil {
		return err
	}
	to := make(chan wire.Reply, 1)
	a.mu.Lock()
	a.last++
	id := a.last
	a.waiting[id] = to
	line, _ := json.Marshal(wire.Call{ID: id, Act: act, Args: text})
	_, err = a.conn.Write(append(line, '\n'))
	a.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%s: %w (%w)", act, errOff, err) // QEMU holds the other end
	}
	select {
	case reply := <-to:
		if reply.Error != "" {
			return &Error{act, reply.Error, reply.Kind}
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(reply.Result, result)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", act, context.Cause(ctx))
	}
}
