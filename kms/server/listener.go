package server

import (
	"net"
	"net/netip"
	"sync"
)

// bounded is a listener that closes connections beyond its limits at once, so
// that those who were let in are served.
type bounded struct {
	net.Listener
	all, each int
	count     *counts

	mu      sync.Mutex
	open    int
	sources map[netip.Addr]int
}

func bound(l net.Listener, all, each int, count *counts) *bounded {
	return &bounded{Listener: l, all: all, each: each, count: count, sources: map[netip.Addr]int{}}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(addrOf(c.RemoteAddr()))
		if !b.take(source) {
			b.count.connectionsRefused.Add(1)
			c.Close()
			continue
		}
		b.count.connections.Add(1)
		return &counted{Conn: c, closed: func() {
			b.count.connections.Add(-1)
			b.give(source)
		}}, nil
	}
}

func (b *bounded) take(source netip.Addr) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.open >= b.all || b.sources[source] >= b.each {
		return false
	}
	b.open++
	b.sources[source]++
	return true
}

func (b *bounded) give(source netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if b.sources[source]--; b.sources[source] == 0 {
		delete(b.sources, source)
	}
}

// counted is a connection that says once that it was closed.
type counted struct {
	net.Conn
	once   sync.Once
	closed func()
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.once.Do(c.closed)
	return c.Conn.Close()
}

// addrOf is an address without its port; the zero Addr if it has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
