package server

import (
	"container/heap"
	"container/list"
	"net/netip"
	"sync"
)

// shares is who holds what there is a bounded number of: connections, or calls.
// When all are held, the source that holds the most loses its latest one to a
// source that holds less: one that holds little is never refused for those that
// hold much. What is not settled yet is lost first.
type shares struct {
	all  int // in total
	each int // of one source; 0: no bound but all

	mu      sync.Mutex
	held    int
	ended   bool
	sources map[netip.Addr]*share
	most    byHeld
}

// share is what one source holds, at least one.
type share struct {
	source         netip.Addr
	fresh, settled list.List // of *hold
	index          int       // in most
}

// hold is one that is held.
type hold struct {
	share *share // nil once it is lost or given back
	in    *list.List
	place *list.Element
	lose  func()
}

func newShares(all, each int) *shares {
	return &shares{all: all, each: each, sources: map[netip.Addr]*share{}}
}

// take returns a hold that is to be given back, or nil if there is none for this
// source. lose is called once it is lost to another source; it must not wait.
func (s *shares) take(source netip.Addr, lose func()) *hold {
	s.mu.Lock()
	of, have := s.sources[source], 0
	if of != nil {
		have = of.count()
	}
	full := s.held >= s.all
	if s.ended || s.each > 0 && have >= s.each || full && (len(s.most) == 0 || have+1 >= s.most[0].count()) {
		s.mu.Unlock()
		return nil
	}
	var lost *hold
	if full {
		lost = s.most[0].latest()
		s.remove(lost)
	}
	if of == nil {
		of = &share{source: source}
		s.sources[source] = of
		heap.Push(&s.most, of)
	}
	h := &hold{share: of, in: &of.fresh, lose: lose}
	h.place = of.fresh.PushBack(h)
	s.held++
	heap.Fix(&s.most, of.index)
	s.mu.Unlock()
	if lost != nil {
		lost.lose()
	}
	return h
}

// settle has a hold go after those that are not settled.
func (s *shares) settle(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.share == nil || h.in == &h.share.settled {
		return
	}
	h.in.Remove(h.place)
	h.in = &h.share.settled
	h.place = h.in.PushBack(h)
}

// give gives a hold back. Doing so again, or after it was lost, does nothing.
func (s *shares) give(h *hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.share != nil {
		s.remove(h)
	}
}

// end takes away what is not settled, and gives no more.
func (s *shares) end() {
	s.mu.Lock()
	s.ended = true
	var lost []*hold
	for _, of := range s.sources {
		for e := of.fresh.Front(); e != nil; e = e.Next() {
			lost = append(lost, e.Value.(*hold))
		}
	}
	for _, h := range lost {
		s.remove(h)
	}
	s.mu.Unlock()
	for _, h := range lost {
		h.lose()
	}
}

func (s *shares) remove(h *hold) {
	of := h.share
	h.in.Remove(h.place)
	h.share = nil
	s.held--
	if of.count() > 0 {
		heap.Fix(&s.most, of.index)
		return
	}
	heap.Remove(&s.most, of.index)
	delete(s.sources, of.source)
}

func (s *share) count() int { return s.fresh.Len() + s.settled.Len() }

func (s *share) latest() *hold {
	last := s.fresh.Back()
	if last == nil {
		last = s.settled.Back()
	}
	return last.Value.(*hold)
}

// byHeld is a heap of shares, the largest first.
type byHeld []*share

func (h byHeld) Len() int           { return len(h) }
func (h byHeld) Less(i, j int) bool { return h[i].count() > h[j].count() }
func (h byHeld) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *byHeld) Push(x any) {
	s := x.(*share)
	s.index = len(*h)
	*h = append(*h, s)
}

// Pop implements heap.Interface.
func (h *byHeld) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}
