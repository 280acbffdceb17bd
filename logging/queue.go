package logging

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// queue is what waits for one destination. One without a destination is what waits
// for the first that there will be.
type queue struct {
	to     Destination
	s      *Sender
	ctx    context.Context // of the connection
	cancel context.CancelFunc
	ending chan struct{} // closed when nothing more comes
	done   chan struct{} // closed when nobody sends any more

	mu      sync.Mutex
	records []record
	bytes   int
	lost    int // dropped, and the destination was not told

	wake    chan struct{} // of length 1
	waiting bool          // of run: a failure was told, and no success since
	hurried bool          // of run: a pause was cut short by the end
}

// record is a line without tags.
type record struct {
	fields
	size   int
	report bool // of others that were dropped
}

func newRecord(f fields) record {
	size := len(f.encode())
	if size > MaxLine {
		f, size = f.cut(nil), MaxLine
	}
	return record{fields: f, size: size}
}

// key tells destinations apart.
func (d Destination) key() string {
	tags, _ := json.Marshal(d.Tags) // in the order of their names
	return fmt.Sprint(d.Kernel, d, string(tags))
}

func (s *Sender) queue(to Destination) *queue {
	q := &queue{to: to, s: s, ending: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	q.ctx, q.cancel = context.WithCancel(context.Background())
	return q
}

// backlog is a queue that keeps what comes before there is a destination.
func (s *Sender) backlog() *queue {
	q := s.queue(Destination{})
	close(q.done)
	return q
}

// put adds a record, or drops it when there is no room.
func (q *queue) put(r record) {
	if !q.add(r) {
		q.drop(1, "log records are dropped until their destination takes more")
	}
	poke(q.wake)
}

// add reports whether there was room. Once there was none it has to be half empty.
func (q *queue) add(r record) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.confess()
	if q.lost > 0 || len(q.records) >= q.s.opts.Queue || q.bytes+r.size > q.s.opts.QueueBytes {
		return false
	}
	q.push(r)
	return true
}

// push adds a record. Its caller holds q.mu.
func (q *queue) push(r record) { q.records, q.bytes = append(q.records, r), q.bytes+r.size }

// drop counts records that the destination does not get, and has the local log say
// so when that begins, and at the end. Nothing else drops any.
func (q *queue) drop(n int, text string, more ...any) {
	q.mu.Lock()
	first := q.lost == 0 || over(q.ending)
	q.lost += n
	q.mu.Unlock()
	if q.to.Network == "" { // of a backlog it is said to whom it goes
		return
	}
	q.s.dropped.Add(uint64(n))
	if first {
		q.s.local.Warn(text, append(more, "destination", q.to.String())...)
	}
}

// confess adds a record that says how many were dropped, once there is room again.
// Its caller holds q.mu.
func (q *queue) confess() {
	if q.lost == 0 || !q.isHalf() {
		return
	}
	r := slog.NewRecord(time.Now(), slog.LevelWarn, fmt.Sprintf("%d log records were dropped", q.lost), 0)
	r.AddAttrs(slog.Int("dropped", q.lost))
	q.lost = 0
	report := newRecord(fieldsOf(q.s.opts.Service, r, nil, ""))
	report.report = true
	q.push(report)
}

// isHalf reports whether the queue is at most half full. Its caller holds q.mu.
func (q *queue) isHalf() bool {
	return len(q.records) <= q.s.opts.Queue/2 && q.bytes <= q.s.opts.QueueBytes/2
}

// hasRoom is isHalf for others.
func (q *queue) hasRoom() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.isHalf()
}

// first returns the oldest record, which stays; false when there is none.
func (q *queue) first() (record, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.confess()
	if len(q.records) == 0 {
		return record{}, false
	}
	return q.records[0], true
}

// sent removes the oldest record.
func (q *queue) sent() {
	q.mu.Lock()
	q.bytes -= q.records[0].size
	q.records[0], q.records = record{}, q.records[1:]
	q.mu.Unlock()
	poke(q.s.room)
}

// waits is how many records are not sent.
func (q *queue) waits() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.records)
}

// inherit takes what another queue has, from which nobody sends any more.
func (q *queue) inherit(from *queue) {
	from.mu.Lock()
	defer from.mu.Unlock()
	for _, r := range from.records {
		q.push(r)
	}
	switch {
	case from.lost == 0:
	case from.to.Network == "":
		q.drop(from.lost, "log records were dropped before their destination was known")
	default:
		q.lost = from.lost // which was counted
	}
}

// stop ends the sending at once.
func (q *queue) stop() {
	q.cancel()
	<-q.done
}

// end has what waits sent, as long as ctx lasts, and drops the rest. Nothing may
// come any more.
func (q *queue) end(ctx context.Context) {
	close(q.ending)
	stop := context.AfterFunc(ctx, q.cancel)
	defer stop()
	<-q.done
	q.cancel()
	if n := q.waits(); n > 0 {
		q.drop(n, "log records did not reach their destination", "dropped", n)
	}
}

// poke wakes who waits for something, now or at the next time.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// over reports whether a channel is closed.
func over(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
