package logging_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptctl/cryptctl/logging"
)

// listens is the end of a connection on which nothing will come back.
type listens struct{ net.Conn }

func (listens) Read([]byte) (int, error) { return 0, io.EOF }

// takes is the end of a connection whose other end closes after one line: a write
// without anything in it shows that only when there was one more.
type takes struct {
	net.Conn
	mu    sync.Mutex
	lines int
	ended chan struct{}
}

func (c *takes) Read([]byte) (int, error) {
	<-c.ended
	return 0, io.EOF
}

func (c *takes) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lines > 1 || c.lines == 1 && len(p) > 0 {
		return 0, syscall.EPIPE
	}
	if len(p) > 0 {
		c.lines++
		close(c.ended)
	}
	return len(p), nil
}

func (c *takes) Close() error                     { return nil }
func (c *takes) SetWriteDeadline(time.Time) error { return nil }

// refused is a connection that the other end accepted and closed: a first write
// goes into the void, and after that the system knows.
type refused struct {
	listens
	wrote *atomic.Bool
}

func (r refused) Write(p []byte) (int, error) {
	if r.wrote.Load() {
		return 0, syscall.EPIPE
	}
	r.wrote.Store(len(p) > 0)
	return len(p), nil
}

// forgotten is a connection of which nobody says that the other end is gone: what is
// written to it afterwards goes into the void.
type forgotten struct {
	net.Conn
	gone *atomic.Bool
}

func (f forgotten) Write(p []byte) (int, error) {
	if f.gone.Load() {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

func (f forgotten) SetWriteDeadline(at time.Time) error {
	if f.gone.Load() {
		return nil
	}
	return f.Conn.SetWriteDeadline(at)
}

// TestHangsUpAtOnce: a balancer with nobody behind it, which accepts and hangs up,
// loses nothing, is not asked for each record, and is named once.
func TestHangsUpAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		var up atomic.Bool
		dials := 0
		s, log, local := n.sender(func(o *logging.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := n.dial(ctx, "", "")
				if !up.Load() {
					dials++
					c = refused{listens{c}, new(atomic.Bool)}
				}
				return c, err
			}
		})
		s.Set(tcp(nil))
		for i := range 300 {
			log.Info("record", "i", i)
			time.Sleep(100 * time.Millisecond)
		}
		if dials < 3 || dials > 15 {
			t.Errorf("%d connections in 30 s", dials)
		}
		up.Store(true)
		time.Sleep(time.Minute)
		n.wantUpTo(300)
		if text := local.String(); !containsOnce(text, "wait for") || !containsOnce(text, "again") || s.Dropped() != 0 {
			t.Errorf("%d dropped; the local log:\n%s", s.Dropped(), text)
		}
		s.Close(within(t, time.Minute))
	})
}

// TestEndsSoon: of a collector that takes a line and hangs up the local log tells,
// and it is not asked for each record.
func TestEndsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		dials := 0
		s, log, local := n.sender(func(o *logging.Options) {
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				dials++
				ours, theirs := net.Pipe()
				go func() {
					_, _ = bufio.NewReader(theirs).ReadString('\n')
					theirs.Close()
				}()
				return ours, nil
			}
		})
		s.Set(tcp(nil))
		for range 300 {
			log.Info("record")
			time.Sleep(100 * time.Millisecond)
		}
		if dials < 3 || dials > 15 || !containsOnce(local.String(), "wait for") {
			t.Errorf("%d connections in 30 s; the local log:\n%s", dials, local)
		}
		s.Close(within(t, time.Minute))
	})
}

// TestOnlyListens: a collector that ends its direction at once, and reads on, gets
// all lines over one connection, and the first of them twice at most.
func TestOnlyListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, log, _ := n.sender(func(o *logging.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := n.dial(ctx, "", "")
				return listens{c}, err
			}
		})
		s.Set(tcp(nil))
		for i := range 100 {
			log.Info("record", "i", i)
			time.Sleep(100 * time.Millisecond)
		}
		s.Close(within(t, time.Minute))
		n.mu.Lock()
		if first := n.lines[0]; first == n.lines[1] {
			n.lines = n.lines[1:]
		}
		n.mu.Unlock()
		if n.wantUpTo(100); n.dials > 1 {
			t.Errorf("%d connections", n.dials)
		}
	})
}

// TestTakesAndEnds: a balancer that takes a line and hangs up loses none. What is
// written to it then is refused, as the system does after the other end closed.
func TestTakesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		void := 3
		s, log, _ := n.sender(func(o *logging.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				if void--; void >= 0 {
					return &takes{ended: make(chan struct{})}, nil
				}
				return n.dial(ctx, "", "")
			}
		})
		s.Set(tcp(nil))
		for i := range 5 {
			log.Info("record", "i", i)
			time.Sleep(400 * time.Millisecond)
		}
		s.Close(within(t, time.Minute))
		n.wantUpTo(5)
	})
}

// TestCloseInPause: a destination that is back gets what waits, although the next try
// would come too late.
func TestCloseInPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, down: true}
		s, log, _ := n.sender(nil)
		s.Set(tcp(nil))
		for i := range 10 {
			log.Info("record", "i", i)
		}
		time.Sleep(40 * time.Second)
		n.up()
		s.Close(within(t, 2*time.Second))
		n.wantUpTo(10)
	})
}

// TestCloseWithout: a destination that is not there is tried once more at the end, and
// not all the time.
func TestCloseWithout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, down: true}
		s, log, _ := n.sender(nil)
		s.Set(tcp(nil))
		log.Info("record", "i", 0)
		time.Sleep(40 * time.Second)
		tries := func() int {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.dials
		}
		before := tries()
		s.Close(within(t, 2*time.Second))
		if more := tries() - before; more < 1 || more > 3 {
			t.Errorf("%d tries in two seconds", more)
		}
	})
}

// TestStopsReading: a collector that stops reading is told of, also when each of its
// connections took lines for a while, and gets no storm of them.
func TestStopsReading(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		dials := 0
		s, log, local := n.sender(func(o *logging.Options) {
			o.Timeout = 100 * time.Millisecond
			o.Dial = func(context.Context, string, string) (net.Conn, error) {
				dials++
				ours, theirs := net.Pipe()
				go func() {
					r := bufio.NewReader(theirs)
					for begin := time.Now(); time.Since(begin) < 10*time.Second; {
						if _, err := r.ReadString('\n'); err != nil {
							return
						}
					}
				}()
				return ours, nil
			}
		})
		s.Set(tcp(nil))
		for range 600 {
			log.Info("record")
			time.Sleep(100 * time.Millisecond)
		}
		if dials < 3 || dials > 7 || !strings.Contains(local.String(), "wait for") {
			t.Errorf("%d connections in a minute; the local log:\n%s", dials, local)
		}
		s.Close(within(t, time.Second))
	})
}

// TestRestarted: a collector that is restarted loses no line, although a write on
// its old connection would be taken.
func TestRestarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		gone := new(atomic.Bool)
		s, log, _ := n.sender(func(o *logging.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
				c, err := n.dial(ctx, "", "")
				gone = new(atomic.Bool)
				return forgotten{c, gone}, err
			}
		})
		s.Set(tcp(nil))
		for i := range 20 {
			log.Info("record", "i", i)
			time.Sleep(time.Minute)
			if i%3 == 1 {
				gone.Store(true)
				n.mu.Lock()
				n.conns[len(n.conns)-1].Close()
				n.mu.Unlock()
				synctest.Wait()
			}
		}
		s.Close(within(t, time.Minute))
		n.wantUpTo(20)
	})
}

// TestEmptyWrite: what an empty write says of real connections whose other end sends
// no more: an error where it closed, and none where it reads on.
func TestEmptyWrite(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, closes := range map[string]bool{"closed": true, "half closed": false} {
		t.Run(name, func(t *testing.T) {
			ours, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			theirs, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			if closes {
				theirs.Close()
			} else if err := theirs.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, ours); err != nil {
				t.Fatal(err)
			}
			if _, err := ours.Write([]byte("line\n")); err != nil {
				t.Fatal(err)
			}
			if !closes {
				if _, err := bufio.NewReader(theirs).ReadString('\n'); err != nil {
					t.Fatal(err)
				}
				if _, err := ours.Write(nil); err != nil {
					t.Error(err)
				}
				return
			}
			for err, end := error(nil), time.Now().Add(30*time.Second); err == nil; _, err = ours.Write(nil) {
				if time.Now().After(end) {
					t.Fatal("an empty write is taken")
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}
