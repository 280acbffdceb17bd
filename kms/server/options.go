package server

import (
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
)

// Options of a [Server]. Keeper is needed, and TLS or Plaintext.
type Options struct {
	// Keeper answers. It stays the caller's to close, after Drain.
	Keeper *keeper.Keeper
	// TLS is for the listener of nodes; see pki.Reloader. To know nodes by their
	// certificates it verifies those that are given.
	TLS *tls.Config
	// Plaintext serves nodes without TLS: whoever is on the way reads the keys.
	Plaintext bool
	// Clients says which nodes need a certificate.
	Clients Clients
	// OracleHiding answers an unseal that is refused with random bytes, as the
	// reference server does. A node cannot tell it from a key that was changed: it
	// may give up a slot that would have worked again after a thaw. Rate limits are
	// said all the same: a node that is limited is one that there is.
	OracleHiding bool

	// AdminTLS is for the listener of operators; it must verify certificates.
	AdminTLS *tls.Config
	// AdminOnNodes serves operators on the listener of nodes, too.
	AdminOnNodes bool
	Parts        Parts

	// Audit takes what is refused before the keeper is asked.
	Audit  keeper.Recorder
	Limits Limits
	Log    *slog.Logger // default nothing
}

// Clients says who must show a certificate that names the node: its common name,
// a DNS name, or a URI urn:uuid:... is the UUID.
type Clients struct {
	Required bool        // all nodes
	Nodes    []blob.Node // these
}

// Parts are what operators reach beside the keeper. What depends on one that is
// not there answers Unimplemented.
type Parts struct {
	AuditDir string
	Store    interface{ Backup(io.Writer) error }
	KEK      kek.Rotator
	KEKName  string // "file", "vault"
}

// Limits bound what clients can use up. The zero value has the defaults, which
// are for a boot storm of ten thousand nodes.
type Limits struct {
	Connections int           // at a time; default 16384
	PerSource   int           // connections of one source; default 3/4 of Connections. It has them until others want some
	Streams     int           // calls of nodes at a time, waiting ones included; default 32768
	Working     int           // requests being answered at a time; default 512
	Waiting     int           // requests in the queue; default 16384
	Wait        time.Duration // in the queue; default 8 s: Talos gives up after 10
	Handshake   time.Duration // TLS and HTTP/2 together; default 20 s: ten thousand at once take as long; of operators at most 3 s
	Request     time.Duration // of a call, until all of its request is there; default 10 s
	Send        time.Duration // of a client, to take one message of a stream; default 1 min
	Age         time.Duration // of a connection: it takes no more calls, and ends with its last one; default 10 min
	Judge       time.Duration // after which a call of operators that goes on is judged again; default 30 s
	Stream      time.Duration // one call of a node; default 1 min
	Silence     time.Duration // of a client, until it is asked whether it is there; a third of it later it is cut off; default 1 min, at least 1 s
}

// messages of nodes: the largest blob, a UUID, and room.
const (
	maxMessage      = 8 << 10
	maxAdminMessage = 64 << 10
	maxHeaders      = 16 << 10
)

func (l Limits) withDefaults() Limits {
	number := func(n *int, or int) {
		if *n <= 0 {
			*n = or
		}
	}
	span := func(d *time.Duration, or time.Duration) {
		if *d <= 0 {
			*d = or
		}
	}
	number(&l.Connections, 16384)
	number(&l.PerSource, max(1, l.Connections*3/4))
	number(&l.Streams, 32768)
	number(&l.Working, 512)
	number(&l.Waiting, 16384)
	span(&l.Wait, 8*time.Second)
	span(&l.Handshake, 20*time.Second)
	span(&l.Request, 10*time.Second)
	span(&l.Send, time.Minute)
	span(&l.Age, 10*time.Minute)
	span(&l.Judge, 30*time.Second)
	span(&l.Stream, time.Minute)
	span(&l.Silence, time.Minute)
	return l
}

func (o Options) check() error {
	switch {
	case o.Keeper == nil:
		return errors.New("key server: a keeper is needed")
	case o.TLS == nil && !o.Plaintext:
		return errors.New("key server: there is no certificate for nodes to know it by; give one, or ask for plaintext, which shows the keys to whoever is on the way")
	case o.TLS != nil && o.Plaintext:
		return errors.New("key server: a certificate and plaintext exclude each other; decide for one")
	case o.Plaintext && (o.Clients.Required || len(o.Clients.Nodes) > 0):
		return errors.New("key server: client certificates are asked for, and there are none in plaintext; give the server a certificate")
	case o.Plaintext && o.AdminOnNodes:
		return errors.New("key server: operators are known by certificates, and the listener of nodes is plaintext; give operators a listener of their own")
	}
	return nil
}

func (c Clients) needs(node blob.Node) bool {
	if c.Required {
		return true
	}
	for _, n := range c.Nodes {
		if n == node {
			return true
		}
	}
	return false
}
