package logging

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"
)

const (
	// settling is how long a connection must last after its first line.
	settling = 200 * time.Millisecond
	// longestPause is that between two attempts. A connection that lasted for less
	// was none that works.
	longestPause = 8 * time.Second
)

var (
	errHungUp = errors.New("it ended the connection")
	errEnd    = errors.New("nothing more comes") // and all was sent
)

// run sends until the end.
func (q *queue) run() {
	defer close(q.done)
	for try := 0; ; try++ {
		if _, err := q.next(nil); err != nil {
			return
		}
		begin := time.Now()
		err := q.session()
		if q.ctx.Err() != nil || errors.Is(err, errEnd) {
			return
		}
		if time.Since(begin) > longestPause {
			try = 0
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				continue // who took lines for so long was restarted; a new connection may be had at once
			}
		}
		q.told(err)
		q.pause(try)
	}
}

// next returns the record to be sent, and waits for it. At the end the error is
// errEnd, and when hungUp is closed errHungUp.
func (q *queue) next(hungUp <-chan struct{}) (record, error) {
	for {
		ending := over(q.ending) // asked first: nothing comes after it
		r, ok := q.first()
		switch {
		case q.ctx.Err() != nil:
			return r, q.ctx.Err()
		case hungUp != nil && over(hungUp):
			return r, errHungUp
		case ok:
			return r, nil
		case ending:
			return r, errEnd
		}
		select {
		case <-q.wake:
		case <-q.ending:
		case <-hungUp:
		case <-q.ctx.Done():
		}
	}
}

// session sends over one connection until it fails, or until the end, which is
// errEnd.
func (q *queue) session() error {
	conn, err := q.dial()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(q.ctx, func() { conn.Close() })
	defer func() {
		stop()
		conn.Close()
	}()
	if q.to.Network == "udp" {
		return q.datagrams(conn)
	}
	return q.stream(conn)
}

func (q *queue) dial() (net.Conn, error) {
	ctx, cancel := context.WithTimeout(q.ctx, q.s.opts.Timeout)
	defer cancel()
	return q.s.opts.Dial(ctx, q.to.Network, q.to.Address)
}

// stream is session over TCP. A connection that is made is not yet one that works:
// a balancer without anyone behind it hangs up, and what was written is lost. So a
// line stays until its connection has settled. Who said before the first line that
// nothing will come from there may be such a one, or one that only listens.
func (q *queue) stream(conn net.Conn) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	var hungUp <-chan struct{} // not nil when the other end's end is that of the connection
	for settled := false; ; {
		r, err := q.next(hungUp)
		if err != nil {
			return err
		}
		before := over(ended)
		if err := q.write(conn, r.line(q.to.Tags)); err != nil {
			return err
		}
		if !settled {
			if err := q.settle(conn); err != nil {
				return err
			}
			if over(ended) != before {
				continue // the line may be lost, and goes again, here if that can be
			}
			settled = true
			q.told(nil)
			if !before {
				hungUp = ended
			}
		}
		q.sent()
	}
}

// settle waits whether a connection lasts. An empty write has the system say
// whether the other end refused what came before it.
func (q *queue) settle(conn net.Conn) error {
	timer := time.NewTimer(settling)
	defer timer.Stop()
	select {
	case <-timer.C:
		return q.write(conn, nil)
	case <-q.ending: // there is no time for that
		return nil
	case <-q.ctx.Done():
		return q.ctx.Err()
	}
}

// datagrams is session over UDP, where nobody may be there to take a line.
func (q *queue) datagrams(conn net.Conn) error {
	for {
		r, err := q.next(nil)
		if err != nil {
			return err
		}
		line := r.line(q.to.Tags)
		line = line[:len(line)-1]
		err = q.write(conn, line)
		if errors.Is(err, syscall.ECONNREFUSED) { // of the one before
			err = q.write(conn, line)
		}
		switch {
		case errors.Is(err, syscall.ECONNREFUSED): // lost, as on the way
		case errors.Is(err, syscall.EMSGSIZE) && r.report:
		case errors.Is(err, syscall.EMSGSIZE):
			q.drop(1, "log records are dropped that are too long for a datagram")
		case err != nil:
			return err
		default:
			q.told(nil)
		}
		q.sent()
	}
}

func (q *queue) write(conn net.Conn, line []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(q.s.opts.Timeout)); err != nil {
		return err
	}
	_, err := conn.Write(line)
	return err
}

// told has the local log say when a destination fails, and when it works again.
func (q *queue) told(err error) {
	switch {
	case err != nil && !q.waiting:
		q.s.local.Warn("log records wait for their destination", "destination", q.to.String(), "error", err)
	case err == nil && q.waiting:
		q.s.local.Info("log records go to their destination again", "destination", q.to.String())
	}
	q.waiting = err != nil
}

// pause waits before the next try: 0.25 s to 8 s, never the same for two nodes. When
// the queue is to end, there is one more try at once.
func (q *queue) pause(try int) {
	d := min(250*time.Millisecond<<min(try, 5), longestPause)
	timer := time.NewTimer(d/2 + rand.N(d/2))
	defer timer.Stop()
	ending := q.ending
	if q.hurried {
		ending = nil
	}
	select {
	case <-timer.C:
	case <-ending:
		q.hurried = true
	case <-q.ctx.Done():
	}
}
