package logging_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptctl/cryptctl/logging"
)

// network is one on which a destination can be reached or not, without a socket.
type network struct {
	t *testing.T

	mu    sync.Mutex
	down  bool
	stall bool // connections are made, and nobody reads
	conns []net.Conn
	lines []string
	dials int
}

func (n *network) dial(context.Context, string, string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dials++
	if n.down {
		return nil, errors.New("network is unreachable")
	}
	ours, theirs := net.Pipe()
	n.conns = append(n.conns, theirs)
	if !n.stall {
		go n.read(theirs)
	}
	return ours, nil
}

// read keeps whole lines.
func (n *network) read(c net.Conn) {
	for r := bufio.NewReader(c); ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		n.mu.Lock()
		n.lines = append(n.lines, line[:len(line)-1])
		n.mu.Unlock()
	}
}

// up has everyone read, those who were connected before too.
func (n *network) up() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.stall {
		for _, c := range n.conns {
			go n.read(c)
		}
	}
	n.down, n.stall = false, false
}

// got are the lines so far.
func (n *network) got() []map[string]any {
	n.t.Helper()
	synctest.Wait() // for who reads
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []map[string]any
	for _, line := range n.lines {
		all = append(all, decode(n.t, line))
	}
	return all
}

// numbers are the values of "i" of all lines that have one.
func (n *network) numbers() (all []int) {
	n.t.Helper()
	for _, m := range n.got() {
		if i, ok := m["i"].(float64); ok {
			all = append(all, int(i))
		}
	}
	return all
}

// wantUpTo wants 0, 1, ... to have arrived, each once and in order.
func (n *network) wantUpTo(count int) {
	n.t.Helper()
	got := n.numbers()
	for i := range got {
		if got[i] != i {
			n.t.Fatalf("line %d is number %d, of %d that arrived", i, got[i], len(got))
		}
	}
	if len(got) != count {
		n.t.Fatalf("%d lines arrived, want %d", len(got), count)
	}
}

func decode(t *testing.T, line string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Errorf("%q is no JSON: %v", line, err)
	}
	return m
}

// sender is a sender on a network, with a local log of text.
func (n *network) sender(change func(*logging.Options)) (*logging.Sender, *slog.Logger, *locked) {
	n.t.Helper()
	local := &locked{}
	opts := logging.Options{Service: "noded", Dial: n.dial, Local: slog.NewTextHandler(local, nil)}
	if change != nil {
		change(&opts)
	}
	s := logging.NewSender(opts)
	return s, slog.New(s.Handler(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))), local
}

// locked is a buffer for several goroutines.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func tcp(tags map[string]string) []logging.Destination {
	return []logging.Destination{{Network: "tcp", Address: "10.0.0.1:5044", Tags: tags}}
}

// within is a context that ends the test's patience.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func containsOnce(text, part string) bool { return strings.Count(text, part) == 1 }
