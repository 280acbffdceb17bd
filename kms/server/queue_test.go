package server

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// waits has a request wait, and returns what becomes of it.
func waits(t *testing.T, q *queue, source netip.Addr) <-chan error {
	t.Helper()
	_, before := q.state()
	done := make(chan error, 1)
	go func() { done <- q.enter(context.Background(), source) }()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Microsecond) {
		if _, now := q.state(); now == before+1 {
			return done
		}
		if time.Now().After(end) {
			t.Fatal("the request does not wait")
		}
	}
}

func source(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

// TestTurns: sources take turns, however long their lines are.
func TestTurns(t *testing.T) {
	q := newQueue(1, 100, time.Minute)
	if err := q.enter(t.Context(), source(9)); err != nil {
		t.Fatal(err)
	}
	var a, b []<-chan error
	for range 5 {
		a = append(a, waits(t, q, source(1)))
	}
	for range 2 {
		b = append(b, waits(t, q, source(2)))
	}
	for i, next := range []<-chan error{a[0], b[0], a[1], b[1], a[2], a[3], a[4]} {
		q.leave(time.Millisecond)
		select {
		case err := <-next:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("turn %d is another one's", i)
		}
	}
	q.leave(0)
	if busy, waiting := q.state(); busy != 0 || waiting != 0 || len(q.lines) != 0 || q.turns.Len() != 0 || q.lengths.Len() != 0 {
		t.Errorf("%d busy, %d waiting, %d lines, %d turns", busy, waiting, len(q.lines), q.turns.Len())
	}
}

// TestFull: when there is no room, the longest line loses its latest request.
func TestFull(t *testing.T) {
	q := newQueue(1, 4, time.Minute)
	if err := q.enter(t.Context(), source(9)); err != nil {
		t.Fatal(err)
	}
	var many []<-chan error
	for range 4 {
		many = append(many, waits(t, q, source(1)))
	}
	if err := q.enter(t.Context(), source(1)); !errors.Is(err, errOverload) {
		t.Errorf("one more of the longest line: %v", err)
	}
	for i := range 2 { // 4 and 0, then 3 and 1: at 2 and 2 no one is better off
		go func() { _ = q.enter(t.Context(), source(2)) }()
		if err := <-many[3-i]; !errors.Is(err, errOverload) {
			t.Errorf("the latest of the longest line: %v", err)
		}
	}
	if err := q.enter(t.Context(), source(2)); !errors.Is(err, errOverload) {
		t.Errorf("lines of equal length: %v", err)
	}
	if d := q.retryAfter(); d < time.Second || d > 30*time.Second {
		t.Errorf("to come back after %s", d)
	}
}

// TestGiveUp: who waits too long, or goes away, leaves no trace.
func TestGiveUp(t *testing.T) {
	q := newQueue(1, 10, 20*time.Millisecond)
	if err := q.enter(t.Context(), source(9)); err != nil {
		t.Fatal(err)
	}
	if err := q.enter(t.Context(), source(1)); !errors.Is(err, errOverload) {
		t.Errorf("waited too long: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := q.enter(ctx, source(1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("went away: %v", err)
	}
	if _, waiting := q.state(); waiting != 0 || len(q.lines) != 0 || q.turns.Len() != 0 {
		t.Errorf("%d wait in %d lines", waiting, len(q.lines))
	}
}

// TestCrowd: never more than there are places, and all is clean afterwards.
func TestCrowd(t *testing.T) {
	q := newQueue(3, 50, 5*time.Millisecond)
	var all sync.WaitGroup
	var mu sync.Mutex
	in, most, served := 0, 0, 0
	for i := range 200 {
		all.Go(func() {
			for range 20 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(4000))*time.Microsecond)
				if q.enter(ctx, source(byte(i%7))) == nil {
					mu.Lock()
					in++
					most, served = max(most, in), served+1
					mu.Unlock()
					time.Sleep(50 * time.Microsecond)
					mu.Lock()
					in--
					mu.Unlock()
					q.leave(50 * time.Microsecond)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if busy, waiting := q.state(); busy != 0 || waiting != 0 || len(q.lines) != 0 || q.turns.Len() != 0 || q.lengths.Len() != 0 {
		t.Errorf("%d busy, %d waiting, %d lines are left", busy, waiting, len(q.lines))
	}
	if most != 3 || served < 100 {
		t.Errorf("%d at a time, %d served", most, served)
	}
}

// TestSource: what counts as one.
func TestSource(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "::ffff:192.0.2.7": "192.0.2.7",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::", "fe80::1%eth0": "fe80::",
	} {
		if got := sourceOf(netip.MustParseAddr(in)); got != netip.MustParseAddr(want) {
			t.Errorf("%s counts as %s", in, got)
		}
	}
	if got := sourceOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address counts as %s", got)
	}
}
