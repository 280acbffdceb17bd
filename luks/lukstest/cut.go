package lukstest

import (
	"fmt"
	"slices"
	"strings"
)

// piece is the part of a write that lies in one sector.
type piece struct {
	at   int64
	data []byte
}

func pieces(o Op) []piece {
	var all []piece
	for at, data := o.Offset, o.Data; len(data) > 0; {
		n := min(SectorSize-at%SectorSize, int64(len(data)))
		all = append(all, piece{at, data[:n]})
		at, data = at+n, data[n:]
	}
	return all
}

// tear is which sectors of a write reached the disk: the first ones, or a set.
type tear struct {
	of    int
	first int
	set   []bool
	name  string // of the set
}

func (t tear) has(i int) bool {
	if t.set != nil {
		return t.set[i]
	}
	return i < t.first
}

func (t tear) String() string {
	if t.set == nil {
		return fmt.Sprintf("torn after %d of %d sectors", t.first, t.of)
	}
	n := 0
	for _, there := range t.set {
		if there {
			n++
		}
	}
	return fmt.Sprintf("torn, with %d of %d sectors there (%s)", n, t.of, t.name)
}

// cut is where a power cut fell. Operations count from 0 here and from 1 in its
// text.
type cut struct {
	total   int
	ops     []Op
	op      int // the last operation that was begun
	torn    map[int]tear
	order   []int // in which writes since the last sync arrived; nil is the order they were made in
	dropped []int
}

func (c cut) String() string {
	if c.op < 0 {
		return fmt.Sprintf("before op 1 of %d", c.total)
	}
	where := fmt.Sprintf("op %d of %d", c.op+1, c.total)
	t, torn := c.torn[c.op]
	switch {
	case c.order == nil && torn:
		return fmt.Sprintf("during %s, %s, %s", where, c.ops[c.op], t)
	case c.order == nil:
		return fmt.Sprintf("after %s, %s", where, c.ops[c.op])
	}
	var parts []string
	for i := range c.op + 1 {
		if t, ok := c.torn[i]; ok {
			parts = append(parts, fmt.Sprintf("op %d, %s, %s", i+1, c.ops[i], t))
		}
		if slices.Contains(c.dropped, i) {
			parts = append(parts, fmt.Sprintf("op %d, %s, dropped", i+1, c.ops[i]))
		}
	}
	if !slices.IsSorted(c.order) {
		var order []string
		for _, i := range c.order {
			order = append(order, fmt.Sprint(i+1))
		}
		parts = append(parts, "in the order "+strings.Join(order, ", "))
	}
	return fmt.Sprintf("up to %s: %s", where, strings.Join(parts, "; "))
}
