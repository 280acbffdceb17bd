package server

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestShares: who holds the most loses its latest, what is not settled first, to
// who holds less, and to no one else.
func TestShares(t *testing.T) {
	s := newShares(4, 3)
	big, small, third := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	var lost []string
	take := func(source netip.Addr, name string) *hold {
		return s.take(source, func() { lost = append(lost, name) })
	}
	first, second, last := take(big, "first"), take(big, "second"), take(big, "third")
	if first == nil || second == nil || last == nil || take(big, "fourth") != nil {
		t.Fatal("not three, the bound of one source")
	}
	s.settle(last)
	s.settle(last)
	take(small, "a")
	if take(small, "b") == nil || !slices.Equal(lost, []string{"second"}) {
		t.Errorf("lost: %s", lost) // the latest that is not settled
	}
	s.give(second) // it is lost: nothing changes
	if take(small, "c") != nil || take(big, "e") != nil {
		t.Error("one that holds as much takes from the other")
	}
	if take(third, "f") == nil || len(lost) != 2 {
		t.Errorf("lost: %s", lost)
	}
	s.give(last)
	s.give(last)
	if s.held != 3 {
		t.Errorf("%d held", s.held)
	}
	s.end()
	if take(third, "g") != nil {
		t.Error("taken after the end")
	}
}

// TestSharesModel: what is held is never more than there is, and each source is
// left what it holds while another one holds more.
func TestSharesModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const all = 8
		s := newShares(all, 0)
		held := map[*hold]netip.Addr{}
		count := func(a netip.Addr) (n int) {
			for _, b := range held {
				if a == b {
					n++
				}
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				a := netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, "source") % 5})
				before, most := count(a), 0
				for _, b := range held {
					most = max(most, count(b))
				}
				var mine *hold
				mine = s.take(a, func() { delete(held, mine) })
				if full := len(held) == all; mine == nil && (!full || before+1 < most) {
					t.Fatalf("refused with %d of %d held, %d by it, at most %d", len(held), all, before, most)
				}
				if mine != nil {
					held[mine] = a
				}
			},
			"settle": func(t *rapid.T) {
				for h := range held {
					s.settle(h)
					break
				}
			},
			"give": func(t *rapid.T) {
				for h := range held {
					s.give(h)
					delete(held, h)
					break
				}
			},
			"": func(t *rapid.T) {
				if s.held != len(held) || len(held) > all {
					t.Fatalf("%d held, %d counted", len(held), s.held)
				}
				for a, of := range s.sources {
					if of.count() != count(a) || of.count() == 0 {
						t.Fatalf("%s: %d, %d counted", a, count(a), of.count())
					}
				}
				for i, of := range s.most {
					if of.index != i {
						t.Fatalf("%s is at %d, not %d", of.source, i, of.index)
					}
				}
			},
		})
	})
}

// TestSeldom: one a second, and how many were left out.
func TestSeldom(t *testing.T) {
	var s seldom
	begin := time.Now()
	var got []string
	for _, after := range []int{0, 1, 999, 1000, 1001} {
		rest, ok := s.now(begin.Add(time.Duration(after) * time.Millisecond))
		got = append(got, strings.Repeat("-", rest)+map[bool]string{true: "yes", false: "no"}[ok])
	}
	if !slices.Equal(got, []string{"yes", "no", "no", "--yes", "no"}) {
		t.Errorf("%s", got)
	}
}
