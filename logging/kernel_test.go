package logging_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/logging"
)

// ring is a kernel's log: it begins at its oldest message for whoever opens it.
type ring struct {
	records []any // texts and errors
}

type reader struct {
	left   []any
	closed chan struct{}
}

func (r *ring) open() (io.ReadCloser, error) { return &reader{r.records, make(chan struct{})}, nil }

func (r *reader) Read(p []byte) (int, error) {
	if len(r.left) == 0 {
		<-r.closed
		return 0, fs.ErrClosed
	}
	next := r.left[0]
	r.left = r.left[1:]
	if err, ok := next.(error); ok {
		return 0, err
	}
	return copy(p, next.(string)), nil
}

func (r *reader) Close() error { close(r.closed); return nil }

func kernel() []logging.Destination {
	return []logging.Destination{{Network: "tcp", Address: "10.0.0.1:5044", Kernel: true}}
}

// TestKernel: messages of the kernel have the fields that Talos gives them, and go
// where they are wanted, each once.
func TestKernel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		log := &ring{records: []any{
			"12,711,6252819,-;[talos] task startAllServices (1/1)\\x0a\n SUBSYSTEM=none\n",
			"6,712,6252820,-,caller=T1;a \\ and a \\x5c, \\xff\n",
			"no record", "x,1,2;", syscall.EPIPE,
			"191,800,1,c;debug\n",
		}}
		s, service, local := n.sender(func(o *logging.Options) { o.KernelLog = log.open })
		s.Set(kernel())
		service.Info("of no interest here")
		synctest.Wait()
		s.Set(nil)
		time.Sleep(time.Second) // until what was left is sent
		log.records = append(log.records, "0,801,2,-;panic\n")
		s.Set(kernel()) // from the beginning, what was sent left out
		synctest.Wait()
		s.Close(within(t, time.Minute))
		want := []map[string]any{
			{"msg": "[talos] task startAllServices (1/1)\n", "talos-level": "warn", "priority": "warning", "facility": "user", "seq": 711.0, "clock": 6252819.0},
			{"msg": "a \\ and a \\, \uFFFD", "talos-level": "info", "priority": "info", "facility": "kern", "seq": 712.0, "clock": 6252820.0},
			{"msg": "debug", "talos-level": "debug", "priority": "debug", "facility": "local7", "seq": 800.0, "clock": 1.0},
			{"msg": "panic", "talos-level": "error", "priority": "emerg", "facility": "kern", "seq": 801.0, "clock": 2.0},
		}
		got := n.got()
		for _, m := range got {
			at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(m["talos-time"]))
			if err != nil || at.Location() != time.UTC {
				t.Errorf("talos-time %v: %v", m["talos-time"], err)
			}
			delete(m, "talos-time")
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if strings.Count(local.String(), "messages of the kernel are lost") != 2 { // in either reading
			t.Errorf("the local log:\n%s", local)
		}
	})
}

// TestNoKernelLog: where it cannot be read the local log says so, and all else goes
// on.
func TestNoKernelLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, service, local := n.sender(func(o *logging.Options) {
			o.KernelLog = func() (io.ReadCloser, error) { return nil, errors.New("permission denied") }
		})
		s.Set(append(kernel(), tcp(nil)...))
		service.Info("line")
		s.Close(within(t, time.Minute))
		if len(n.got()) != 1 || !containsOnce(local.String(), "permission denied") {
			t.Errorf("arrived %v; the local log:\n%s", n.got(), local)
		}
	})
}

// messages is a log of so many messages, numbered.
func messages(n int) *ring {
	log := &ring{}
	for i := range n {
		log.records = append(log.records, fmt.Sprintf("6,%d,%d,-;message\n", i, i))
	}
	return log
}

// wantMessages wants so many messages to have arrived, each once and in order.
func (n *network) wantMessages(count int) {
	n.t.Helper()
	got := n.got()
	for i, m := range got {
		if m["seq"] != float64(i) {
			n.t.Fatalf("line %d of %d: %v", i, len(got), m)
		}
	}
	if len(got) != count {
		n.t.Fatalf("%d messages arrived, want %d", len(got), count)
	}
}

// TestKernelKeeps: while the collector is not up the kernel keeps what its log has,
// also when the destination is corrected in between.
func TestKernelKeeps(t *testing.T) {
	typo := []logging.Destination{{Network: "tcp", Address: "10.0.0.9:5044", Kernel: true}}
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t, down: true}
		s, _, local := n.sender(func(o *logging.Options) { o.KernelLog = messages(5000).open })
		s.Set(typo)
		time.Sleep(time.Minute)
		s.Set(kernel())
		time.Sleep(time.Minute)
		n.up()
		time.Sleep(time.Minute)
		n.wantMessages(5000)
		if s.Dropped() != 0 || strings.Contains(local.String(), "lost") {
			t.Errorf("%d dropped; the local log:\n%s", s.Dropped(), local)
		}
		s.Close(within(t, time.Minute))
	})
}

// TestKernelWaits: a destination that takes nothing does not keep the kernel's
// messages from another one, nor the end from coming.
func TestKernelWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		s, _, _ := n.sender(func(o *logging.Options) {
			o.KernelLog = messages(5000).open
			o.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
				if address != kernel()[0].Address {
					return nil, errors.New("no route")
				}
				return n.dial(ctx, "", "")
			}
		})
		s.Set([]logging.Destination{{Network: "tcp", Address: "10.0.0.9:5044", Kernel: true}})
		synctest.Wait() // it has as much as there is room for
		s.Set([]logging.Destination{{Network: "tcp", Address: "10.0.0.9:5044", Kernel: true}, kernel()[0]})
		time.Sleep(time.Minute)
		got := n.got()
		if len(got) < 4000 || got[len(got)-1]["seq"] != 4999.0 {
			t.Errorf("%d messages arrived", len(got))
		}
		s.Set(nil) // while nobody has room
		s.Close(within(t, time.Minute))
	})
}

// TestKernelReadError: a log that could not be read any more is closed, and opened
// again for the next destinations.
func TestKernelReadError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{t: t}
		log := messages(2)
		log.records = append(log.records, errors.New("input/output error"))
		var opened []*reader
		s, _, local := n.sender(func(o *logging.Options) {
			o.KernelLog = func() (io.ReadCloser, error) {
				r, err := log.open()
				opened = append(opened, r.(*reader))
				return r, err
			}
		})
		s.Set(kernel())
		synctest.Wait()
		select {
		case <-opened[0].closed:
		default:
			t.Error("the log that failed is still open")
		}
		log.records[2] = "6,2,2,-;message\n"
		s.Set(kernel())
		time.Sleep(time.Minute)
		s.Set(kernel())
		n.wantMessages(3)
		s.Close(within(t, time.Minute))
		if len(opened) != 2 || !containsOnce(local.String(), "input/output error") {
			t.Errorf("opened %d times; the local log:\n%s", len(opened), local)
		}
	})
}
