package logging

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// queue is what waits for one destination, and who sends it.
type queue struct {
	to     Destination
	s      *Sender
	ctx    context.Context // of the connection
	cancel context.CancelFunc
	done   chan struct{} // closed when run returned

	mu    sync.Mutex
	lines [][]byte
	bytes int
	lost  uint64 // dropped, and not yet said to the destination
	ended bool

	wake    chan struct{} // of length 1
	total   atomic.Uint64 // dropped since the start
	waiting bool          // of run: a failure was told, and no success since
}

// key tells destinations apart.
func (d Destination) key() string {
	tags, _ := json.Marshal(d.Tags) // in the order of their names
	return fmt.Sprint(d.Kernel, d, string(tags))
}

func (s *Sender) start(to Destination) *queue {
	q := &queue{to: to, s: s, done: make(chan struct{}), wake: make(chan struct{}, 1)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	go q.run()
	return q
}

// put adds a line, or drops it when there is no room.
func (q *queue) put(line []byte) {
	q.mu.Lock()
	full := len(q.lines) >= q.s.opts.Queue || q.bytes+len(line) > q.s.opts.QueueBytes
	if full {
		q.lost++
		q.total.Add(1)
	} else if !q.ended {
		q.lines, q.bytes = append(q.lines, line), q.bytes+len(line)
	}
	first := full && q.lost == 1
	q.mu.Unlock()
	if first {
		q.s.local.Warn("log records are dropped until their destination takes more", "destination", q.to.String())
	}
	q.poke()
}

func (q *queue) poke() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the next line, and waits for it. It returns nil at the end. After
// records were dropped, a line that says how many comes first.
func (q *queue) take() []byte {
	for {
		q.mu.Lock()
		switch lost := q.lost; {
		case lost > 0 && len(q.lines) <= q.s.opts.Queue/2 && q.bytes <= q.s.opts.QueueBytes/2:
			q.lost = 0
			q.mu.Unlock()
			return q.report(lost)
		case len(q.lines) > 0:
			line := q.lines[0]
			q.lines[0], q.lines, q.bytes = nil, q.lines[1:], q.bytes-len(line)
			q.mu.Unlock()
			return line
		case q.ended:
			q.mu.Unlock()
			return nil
		}
		q.mu.Unlock()
		select {
		case <-q.wake:
		case <-q.ctx.Done():
			return nil
		}
	}
}

// report is the line that says how many records were dropped.
func (q *queue) report(lost uint64) []byte {
	r := slog.NewRecord(time.Now(), slog.LevelWarn, fmt.Sprintf("%d log records were dropped", lost), 0)
	r.AddAttrs(slog.Uint64("dropped", lost))
	return fieldsOf(q.s.opts.Service, r, nil, "").line(q.to.Tags)
}

// end has what waits sent, as long as ctx lasts.
func (q *queue) end(ctx context.Context) {
	q.mu.Lock()
	q.ended = true
	q.mu.Unlock()
	q.poke()
	stop := context.AfterFunc(ctx, q.cancel)
	defer stop()
	<-q.done
	q.cancel()
}

// run sends until the end.
func (q *queue) run() {
	defer close(q.done)
	var conn net.Conn
	defer func() {
		if conn != nil {
			conn.Close()
		}
	}()
	for line := q.take(); line != nil && q.ctx.Err() == nil; line = q.take() {
		for try := 0; q.ctx.Err() == nil; try++ {
			var err error
			old := conn != nil
			if conn, err = q.write(conn, line); err == nil {
				break
			}
			if q.to.Network == "udp" && (errors.Is(err, syscall.EMSGSIZE) || errors.Is(err, syscall.ECONNREFUSED) && try > 0) {
				q.total.Add(1)
				break // nobody takes it there: it is lost, as on the way
			}
			if old {
				continue // it ended since the last line; a new one may be had at once
			}
			q.told(err)
			q.pause(try)
		}
	}
}

// write sends one line, on the connection that there is or on a new one. After an
// error there is none.
func (q *queue) write(conn net.Conn, line []byte) (net.Conn, error) {
	if conn == nil {
		var err error
		if conn, err = q.dial(); err != nil {
			return nil, err
		}
	}
	if q.to.Network == "udp" {
		line = line[:len(line)-1]
	}
	// Of a stop that comes now, the write hears too.
	err := conn.SetWriteDeadline(time.Now().Add(q.s.opts.Timeout))
	stop := context.AfterFunc(q.ctx, func() { conn.Close() })
	defer stop()
	if err == nil {
		_, err = conn.Write(line)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	q.told(nil)
	return conn, nil
}

func (q *queue) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(q.ctx, q.s.opts.Timeout)
	defer cancel()
	conn, err := q.s.opts.Dial(ctx, q.to.Network, q.to.Address)
	if err != nil {
		return nil, err
	}
	if q.to.Network == "tcp" {
		go func() { // who hangs up is noticed, before a line goes into the void
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
		}()
	}
	return conn, nil
}

// told has the local log say when a destination fails, and when it works again.
func (q *queue) told(err error) {
	switch {
	case err != nil && !q.waiting && q.ctx.Err() == nil:
		q.s.local.Warn("log records wait for their destination", "destination", q.to.String(), "error", err)
	case err == nil && q.waiting:
		q.s.local.Info("log records go to their destination again", "destination", q.to.String())
	}
	q.waiting = err != nil
}

// pause waits before the next try: 0.25 s to 8 s, never the same for two nodes.
func (q *queue) pause(try int) {
	d := min(250*time.Millisecond<<min(try, 5), 8*time.Second)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-q.ctx.Done():
	}
}
