package logging

import (
	"context"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Sender. The zero value is usable.
type Options struct {
	// Service is the field talos-service of each line.
	Service string
	// Local is told when records are dropped, and when a destination fails or works
	// again. It must not lead back here. Default nobody.
	Local slog.Handler
	// Queue is how many records wait for a destination, at most; default 1024.
	Queue int
	// QueueBytes is how long they are together, at most; default 1 MiB.
	QueueBytes int
	// Dial makes connections; default a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// KernelLog opens the kernel's messages, one for each Read; default /dev/kmsg.
	KernelLog func() (io.ReadCloser, error)
	// Timeout bounds making a connection, and each write; default 5 s.
	Timeout time.Duration
}

// Sender sends lines to destinations that can be changed. Its methods may be called
// from many goroutines. Close ends it.
type Sender struct {
	opts  Options
	local *slog.Logger

	mu     sync.Mutex
	list   atomic.Pointer[[]*queue] // changed under mu
	closed bool

	stopKernel func() // nil while the kernel's log is not followed
	seen       uint64 // of the kernel's messages, the number after the last
}

// NewSender returns a sender that has no destination yet.
func NewSender(opts Options) *Sender {
	if opts.Queue <= 0 {
		opts.Queue = 1024
	}
	if opts.QueueBytes <= 0 {
		opts.QueueBytes = 1 << 20
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 5 * time.Second
	}
	if opts.Dial == nil {
		opts.Dial = (&net.Dialer{}).DialContext
	}
	if opts.KernelLog == nil {
		opts.KernelLog = openKernelLog
	}
	if opts.Local == nil {
		opts.Local = slog.DiscardHandler
	}
	s := &Sender{opts: opts, local: slog.New(opts.Local)}
	s.list.Store(&[]*queue{})
	return s
}

// Set makes these the destinations, instead of those before. What waits for one
// that stays is kept; what waits for one that goes is sent as far as a second is
// enough. The first destination of the kernel's messages gets all that the kernel
// still has.
func (s *Sender) Set(destinations []Destination) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	before, now := *s.list.Load(), []*queue{}
	for _, d := range destinations {
		same := func(q *queue) bool { return q.to.key() == d.key() }
		if slices.ContainsFunc(now, same) {
			continue
		}
		if i := slices.IndexFunc(before, same); i >= 0 {
			now = append(now, before[i])
		} else {
			now = append(now, s.start(d))
		}
	}
	s.list.Store(&now)
	for _, q := range before {
		if !slices.Contains(now, q) {
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				defer cancel()
				q.end(ctx)
			}()
		}
	}
	s.followKernel(s.wanted(true))
}

// Close sends what waits, as long as ctx lasts, and ends the sender. Records that
// come afterwards go nowhere.
func (s *Sender) Close(ctx context.Context) {
	s.mu.Lock()
	s.closed = true
	s.followKernel(false)
	list := *s.list.Swap(&[]*queue{})
	s.mu.Unlock()
	var done sync.WaitGroup
	for _, q := range list {
		done.Go(func() { q.end(ctx) })
	}
	done.Wait()
}

// Dropped is how many records were dropped, since the start, of the destinations
// that there are.
func (s *Sender) Dropped() (n uint64) {
	for _, q := range *s.list.Load() {
		n += q.total.Load()
	}
	return n
}

// send puts a record into the queues of all destinations of its kind.
func (s *Sender) send(kernel bool, f fields) {
	for _, q := range *s.list.Load() {
		if q.to.Kernel == kernel {
			q.put(f.line(q.to.Tags))
		}
	}
}

// wanted reports whether there is a destination for such records.
func (s *Sender) wanted(kernel bool) bool {
	for _, q := range *s.list.Load() {
		if q.to.Kernel == kernel {
			return true
		}
	}
	return false
}
