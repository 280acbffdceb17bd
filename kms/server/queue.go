package server

import (
	"container/heap"
	"container/list"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// errOverload: the queue is full, or the request waited too long in it.
var errOverload = errors.New("overloaded")

// queue admits a number of requests at a time. The others wait, each in the line
// of its source; sources take turns. What is full is the queue, never a line: one
// address may stand for ten thousand nodes.
type queue struct {
	places  int           // requests at a time
	room    int           // requests that wait
	longest time.Duration // that one waits

	mu      sync.Mutex
	busy    int
	waiting int
	lines   map[netip.Addr]*line
	turns   list.List // of *line: whose turn it is next
	lengths byLength
	served  time.Duration // how long a request takes, on average
}

// line is the requests of one source that wait, at least one.
type line struct {
	source  netip.Addr
	waiting list.List     // of *ticket
	turn    *list.Element // in turns
	index   int           // in lengths
}

// ticket is one request that waits. Its channel gets what became of it.
type ticket struct {
	called chan error
	line   *line
	place  *list.Element // in the line
}

func newQueue(places, room int, longest time.Duration) *queue {
	return &queue{places: places, room: room, longest: longest, lines: map[netip.Addr]*line{}}
}

// enter returns when the request may go on. Who got no error calls leave.
func (q *queue) enter(ctx context.Context, source netip.Addr) error {
	q.mu.Lock()
	if q.busy < q.places && q.waiting == 0 {
		q.busy++
		q.mu.Unlock()
		return nil
	}
	t, err := q.wait(source)
	q.mu.Unlock()
	if err != nil {
		return err
	}
	timer := time.NewTimer(q.longest)
	defer timer.Stop()
	select {
	case err := <-t.called:
		return err
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = errOverload
	}
	return q.giveUp(t, err)
}

// leave gives the place to the next one.
func (q *queue) leave(took time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.served += (took - q.served) / 16
	q.busy--
	q.call()
}

// wait has a request wait in the line of its source. If there is no room, the
// longest line loses its latest request, which may be this one.
func (q *queue) wait(source netip.Addr) (*ticket, error) {
	l := q.lines[source]
	if q.waiting >= q.room {
		have, longest := 0, q.lengths[0]
		if l != nil {
			have = l.waiting.Len()
		}
		if have+1 >= longest.waiting.Len() {
			return nil, errOverload
		}
		last := longest.waiting.Back().Value.(*ticket)
		last.called <- errOverload
		q.remove(last)
	}
	if l == nil {
		l = &line{source: source}
		q.lines[source] = l
		l.turn = q.turns.PushBack(l)
		heap.Push(&q.lengths, l)
	}
	t := &ticket{called: make(chan error, 1), line: l}
	t.place = l.waiting.PushBack(t)
	q.waiting++
	heap.Fix(&q.lengths, l.index)
	return t, nil
}

// call admits as many as there are places, one of each source in turn.
func (q *queue) call() {
	for q.busy < q.places && q.waiting > 0 {
		l := q.turns.Front().Value.(*line)
		q.turns.MoveToBack(l.turn)
		t := l.waiting.Front().Value.(*ticket)
		t.called <- nil
		q.busy++
		q.remove(t)
	}
}

// remove takes a request out of its line, and an empty line out of the queue.
func (q *queue) remove(t *ticket) {
	l := t.line
	l.waiting.Remove(t.place)
	q.waiting--
	if l.waiting.Len() > 0 {
		heap.Fix(&q.lengths, l.index)
		return
	}
	heap.Remove(&q.lengths, l.index)
	q.turns.Remove(l.turn)
	delete(q.lines, l.source)
}

// giveUp takes a request out that waits no longer. If it was called meanwhile its
// place goes to the next one.
func (q *queue) giveUp(t *ticket, why error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case err := <-t.called:
		if err != nil {
			return err
		}
		q.busy--
		q.call()
	default:
		q.remove(t)
	}
	return why
}

// retryAfter is when it may be worth another try: when those who wait now were
// served.
func (q *queue) retryAfter() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	d := q.served * time.Duration(q.waiting) / time.Duration(q.places)
	return min(max(d, time.Second), 30*time.Second)
}

// state returns how many requests are being served and how many wait.
func (q *queue) state() (busy, waiting int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.busy, q.waiting
}

// byLength is a heap of lines, the longest first.
type byLength []*line

func (h byLength) Len() int           { return len(h) }
func (h byLength) Less(i, j int) bool { return h[i].waiting.Len() > h[j].waiting.Len() }
func (h byLength) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *byLength) Push(x any) {
	l := x.(*line)
	l.index = len(*h)
	*h = append(*h, l)
}

// Pop implements heap.Interface.
func (h *byLength) Pop() any {
	last := len(*h) - 1
	l := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return l
}

// sourceOf is what counts as one source: an IPv4 address, an IPv6 /64.
func sourceOf(addr netip.Addr) netip.Addr {
	addr = addr.Unmap().WithZone("")
	if !addr.Is6() {
		return addr
	}
	network, err := addr.Prefix(64)
	if err != nil {
		return addr
	}
	return network.Addr()
}
