package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

// qmp is QEMU's own control channel (docs/interop/qmp-spec.txt): JSON objects
// that are a greeting, an answer, or an event.
type qmp struct {
	conn    io.ReadWriteCloser
	replies chan qmpMessage

	mu     sync.Mutex // one command at a time
	events []qmpMessage
	seen   sync.Mutex // of events
	closed chan struct{}
}

type qmpMessage struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Greeting json.RawMessage `json:"QMP"`
}

func newQMP(conn io.ReadWriteCloser) *qmp {
	q := &qmp{conn: conn, replies: make(chan qmpMessage, 1), closed: make(chan struct{})}
	go q.receive()
	return q
}

func (q *qmp) receive() {
	defer close(q.closed)
	defer q.conn.Close()
	for in := json.NewDecoder(q.conn); ; {
		var m qmpMessage
		if in.Decode(&m) != nil {
			return
		}
		switch {
		case m.Greeting != nil:
		case m.Event != "":
			q.seen.Lock()
			q.events = append(q.events, m)
			q.seen.Unlock()
		default:
			q.replies <- m
		}
	}
}

// do runs a command.
func (q *qmp) do(ctx context.Context, command string, arguments any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	text, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(text, '\n')); err != nil {
		return nil, fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case m := <-q.replies:
		if m.Error != nil {
			return nil, fmt.Errorf("QMP %s: %s", command, m.Error.Desc)
		}
		return m.Return, nil
	case <-q.closed:
		return nil, fmt.Errorf("QMP %s: %w", command, errOff)
	case <-ctx.Done():
		return nil, fmt.Errorf("QMP %s: %w", command, context.Cause(ctx))
	}
}

// shutdownReason returns why QEMU ended, once it has: "guest-shutdown" when the
// machine switched itself off, "guest-reset" or "guest-panic" when it did not
// mean to, "" when QEMU was killed.
func (q *qmp) shutdownReason() string {
	<-q.closed
	q.seen.Lock()
	defer q.seen.Unlock()
	for _, m := range q.events {
		var data struct {
			Reason string `json:"reason"`
		}
		if m.Event == "SHUTDOWN" && json.Unmarshal(m.Data, &data) == nil {
			return data.Reason
		}
	}
	return ""
}

// errOff: the machine is off.
var errOff = errors.New("the machine is off")
