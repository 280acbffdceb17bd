package logging_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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
