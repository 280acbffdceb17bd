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

	dropped atomic.Uint64

	mu     sync.Mutex // held by Set and Close
	closed bool
	kernel *follower // nil while the kernel's log is not followed
	seen   uint64    // of the kernel's messages, the number after the last

	leaving sync.WaitGroup // of destinations that went, and are still sent to
	life    context.Context
	kill    context.CancelFunc

	routes sync.RWMutex // held while records are put, and while list changes
	list   []*queue
	room   chan struct{} // of length 1: a queue may have room again
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
	s := &Sender{opts: opts, local: slog.New(opts.Local), room: make(chan struct{}, 1)}
	s.life, s.kill = context.WithCancel(context.Background())
	s.list = []*queue{s.backlog()}
	return s
}

// Set makes these the destinations, instead of those before. What waits for one
// that stays is kept. What waits for one that goes waits for those that come: if one
// of them has its address, for that one. If none comes it is sent as far as a second
// is enough, and the rest is dropped. The first destinations of all get what was
// logged before, and the first of the kernel's messages all that the kernel still
// has.
func (s *Sender) Set(destinations []Destination) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	before := s.queues()
	now, added := s.plan(before, destinations)
	gone := slices.DeleteFunc(slices.Clone(before), func(q *queue) bool { return slices.Contains(now, q) })
	from := make([]*queue, len(added))
	for i, q := range added {
		if from[i] = predecessor(q.to, gone); from[i] != nil {
			from[i].stop()
		}
	}
	s.routes.Lock()
	for i, q := range added {
		if from[i] != nil {
			q.inherit(from[i])
		}
	}
	s.list = now
	s.routes.Unlock()
	for _, q := range added {
		go q.run()
	}
	for _, q := range gone {
		if !slices.Contains(from, q) && q.to.Network != "" {
			s.leaving.Go(func() {
				ctx, cancel := context.WithTimeout(s.life, time.Second)
				defer cancel()
				q.end(ctx)
			})
		}
	}
	poke(s.room)
	s.followKernel(s.wanted(true))
}

// plan returns the queues of these destinations, and which of them are new.
func (s *Sender) plan(before []*queue, destinations []Destination) (now, added []*queue) {
	for _, d := range destinations {
		same := func(q *queue) bool { return q.to.key() == d.key() }
		if slices.ContainsFunc(now, same) {
			continue
		}
		if i := slices.IndexFunc(before, same); i >= 0 {
			now = append(now, before[i])
			continue
		}
		q := s.queue(d)
		now, added = append(now, q), append(added, q)
	}
	return now, added
}

// predecessor returns whose records a new destination gets: those of the one with
// its address, otherwise of the one for which most wait; nil when none is of its
// kind.
func predecessor(d Destination, gone []*queue) (best *queue) {
	most := -1
	for _, q := range gone {
		if q.to.Kernel != d.Kernel {
			continue
		}
		if q.to.String() == d.String() {
			return q
		}
		if n := q.waits(); n > most {
			best, most = q, n
		}
	}
	return best
}

// Close sends what waits, as long as ctx lasts, and ends the sender. What is not
// sent is dropped, and records that come afterwards go nowhere.
func (s *Sender) Close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.followKernel(false)
	s.routes.Lock()
	list := s.list
	s.list = nil
	s.routes.Unlock()
	stop := context.AfterFunc(ctx, s.kill)
	defer stop()
	for _, q := range list {
		if q.to.Network != "" {
			s.leaving.Go(func() { q.end(ctx) })
		}
	}
	s.leaving.Wait()
}

// Dropped is how many records were dropped since the start, by destination.
func (s *Sender) Dropped() uint64 { return s.dropped.Load() }

// queues are those of the destinations that there are.
func (s *Sender) queues() []*queue {
	s.routes.RLock()
	defer s.routes.RUnlock()
	return s.list
}

// send puts a record into the queues of all destinations of its kind.
func (s *Sender) send(kernel bool, f fields) {
	r := newRecord(f)
	s.routes.RLock() // so that no queue is given up in between
	defer s.routes.RUnlock()
	for _, q := range s.list {
		if q.to.Kernel == kernel {
			q.put(r)
		}
	}
}

// wanted reports whether there is a destination for such records, or may be one.
func (s *Sender) wanted(kernel bool) bool {
	return slices.ContainsFunc(s.queues(), func(q *queue) bool { return q.to.Kernel == kernel })
}
