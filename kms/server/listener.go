package server

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// bounded is a listener that closes connections beyond its limits at once, so
// that those who were let in are served.
type bounded struct {
	net.Listener
	shares *shares
	count  *counts
}

func bound(l net.Listener, all, each int, count *counts) *bounded {
	return &bounded{Listener: l, shares: newShares(all, each), count: count}
}

// Accept implements net.Listener.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		out := &counted{Conn: c, of: b}
		out.hold = b.shares.take(sourceOf(addrOf(c.RemoteAddr())), func() {
			b.count.connectionsRefused.Add(1)
			c.Close() // gRPC notices, and closes the counted one
		})
		if out.hold == nil {
			b.count.connectionsRefused.Add(1)
			c.Close()
			continue
		}
		b.count.connections.Add(1)
		return out, nil
	}
}

// counted is a connection that says once that it was closed.
type counted struct {
	net.Conn
	of   *bounded
	hold *hold
	once sync.Once
}

// Close implements net.Conn.
func (c *counted) Close() error {
	defer c.once.Do(func() {
		c.of.count.connections.Add(-1)
		c.of.shares.give(c.hold)
	})
	return c.Conn.Close()
}

// SetDeadline implements net.Conn. gRPC takes the deadline away once the handshakes
// of TLS and HTTP/2 are through.
func (c *counted) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.of.shares.settle(c.hold)
	}
	return c.Conn.SetDeadline(t)
}

// addrOf is an address without its port; the zero Addr if it has none.
func addrOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
