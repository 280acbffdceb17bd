package etcd_test

import (
	"bytes"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"
)

// link is the way to one member: it passes on what the others say to it, and
// knows from the head of their first request who they are.
type link struct {
	address, to string

	mu    sync.Mutex
	conns map[net.Conn]string // from whom; both ends of each
	all   bool                // cut, for everyone
	from  string              // cut, for this one
	cuts  int
}

func newLink(t *testing.T, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &link{address: l.Addr().String(), to: to, conns: map[net.Conn]string{}}
	t.Cleanup(func() { l.Close(); w.cutAll() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go w.pass(c)
		}
	}()
	return w
}

// sender is how etcd's members name themselves in each request.
var sender = regexp.MustCompile(`(?i)\r\nX-Server-From: ([0-9a-f]+)\r\n`)

// pass connects one connection through, until it is cut.
func (w *link) pass(c net.Conn) {
	defer c.Close()
	head := make([]byte, 0, 8<<10)
	for !bytes.Contains(head, []byte("\r\n\r\n")) && len(head) < cap(head) {
		n, err := c.Read(head[len(head):cap(head)])
		if head = head[:len(head)+n]; err != nil {
			return
		}
	}
	from := ""
	if m := sender.FindSubmatch(head); m != nil {
		from = string(m[1])
	}
	to, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer to.Close()
	if !w.keep(from, c, to) {
		return
	}
	defer w.forget(c, to)
	if _, err := to.Write(head); err != nil {
		return
	}
	go func() { _, _ = io.Copy(to, c); to.Close() }()
	_, _ = io.Copy(c, to)
}

// keep notes a connection, unless it is cut.
func (w *link) keep(from string, ends ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all || from != "" && from == w.from {
		return false
	}
	for _, c := range ends {
		w.conns[c] = from
	}
	return true
}

func (w *link) forget(ends ...net.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range ends {
		delete(w.conns, c)
	}
}

func (w *link) cutAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = true
	for c := range w.conns {
		w.cuts++
		c.Close()
	}
}

func (w *link) cutFrom(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.from = id
	for c, from := range w.conns {
		if from == id {
			w.cuts++
			c.Close()
		}
	}
}

func (w *link) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all, w.from = false, ""
}
