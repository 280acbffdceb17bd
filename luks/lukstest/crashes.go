package lukstest

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
)

// Sampling says how much is shown of what is too much to be shown in full. The
// zero value gives the defaults.
type Sampling struct {
	// Subsets is how many sets of sectors that are no prefix are tried within
	// each write. About four times as many tear several writes between two syncs
	// at once. Default 16; negative for none.
	Subsets int
	// Combinations is how many sets of writes between two syncs are tried; up to
	// that number it is all of them, in every order that matters. Default 64.
	Combinations int
	// Stride tries only every n-th sector as the place where a write is torn.
	// Default 1: each.
	Stride int
	// Seed chooses the samples.
	Seed uint64
}

func (s Sampling) orDefault() Sampling {
	if s.Subsets == 0 {
		s.Subsets = 16
	}
	if s.Combinations == 0 {
		s.Combinations = 64
	}
	s.Stride = max(s.Stride, 1)
	return s
}

// Crash is an image that a power cut can leave.
type Crash struct {
	// Disk holds the image. It may be written to; all that is taken back before
	// the next crash is shown. Clone it to keep it.
	Disk *Disk
	cut  cut
}

// String says what was cut: "during op 7 of 12, write of 131072 at 32768, torn
// after 13 of 256 sectors".
func (c Crash) String() string { return c.cut.String() }

// Crashes shows every image that a power cut could have left of what was done
// to the disk since it was made. They begin with the disk as it was and include
// the disk as it is.
func (d *Disk) Crashes(s Sampling) iter.Seq[Crash] {
	return func(yield func(Crash) bool) {
		ops := d.Ops()
		before := d.Cut(0, 0)
		e := &enumeration{
			Sampling: s.orDefault(),
			rand:     rand.New(rand.NewPCG(s.Seed, uint64(len(ops)))),
			ops:      ops,
			durable:  before.Bytes(),
			shown:    before,
			yield:    yield,
		}
		e.run()
	}
}

// enumeration is one walk over a record.
type enumeration struct {
	Sampling
	rand    *rand.Rand
	ops     []Op
	durable []byte // all up to the last sync
	shown   *Disk  // the same and some of what was written since
	yield   func(Crash) bool
}

func (e *enumeration) run() {
	if !e.show(cut{total: len(e.ops), op: -1}) {
		return
	}
	for begin := 0; begin < len(e.ops); {
		end := begin
		for end < len(e.ops) && !e.ops[end].Sync {
			end++
		}
		if !e.prefixes(begin, end) || !e.combinations(begin, end) {
			return
		}
		for _, o := range e.ops[begin:end] {
			copy(e.durable[o.Offset:], o.Data)
			copy(e.shown.image[o.Offset:], o.Data)
		}
		begin = end + 1
	}
}

// show hands out the image and takes back what was done to it.
func (e *enumeration) show(c cut) bool {
	more := e.yield(Crash{Disk: e.shown, cut: c})
	e.shown.rewind()
	return more
}

// prefixes shows the writes of one window in their order, each cut after every
// sector, and with some other sets of its sectors.
func (e *enumeration) prefixes(begin, end int) bool {
	for i := begin; i < end; i++ {
		all := pieces(e.ops[i])
		was := make([]byte, len(e.ops[i].Data))
		copy(was, e.shown.image[e.ops[i].Offset:])
		for _, t := range e.subsets(len(all)) {
			e.apply(all, t)
			if !e.show(cut{total: len(e.ops), op: i, torn: map[int]tear{i: t}, ops: e.ops}) {
				return false
			}
			copy(e.shown.image[e.ops[i].Offset:], was)
		}
		for n, p := range all {
			copy(e.shown.image[p.at:], p.data)
			c := cut{total: len(e.ops), op: i, ops: e.ops}
			if last := n+1 == len(all); !last {
				if (n+1)%e.Stride != 0 {
					continue
				}
				c.torn = map[int]tear{i: {of: len(all), first: n + 1}}
			}
			if !e.show(c) {
				return false
			}
		}
	}
	return true
}

// combinations shows what prefixes leaves out of a window of several writes:
// earlier ones missing or torn while later ones are there, and other orders of
// writes to the same bytes.
func (e *enumeration) combinations(begin, end int) bool {
	sets := e.sets(begin, end)
	torn := max(1, 4*e.Subsets/max(1, len(sets))) // of each set: as many in a window of two writes as of many
	for _, set := range sets {
		for _, order := range e.orders(set) {
			if !slices.Equal(order, set) || len(set) != set[len(set)-1]-begin+1 {
				if !e.combine(begin, end, order, nil) {
					return false
				}
			}
			for range torn {
				if !e.combine(begin, end, order, e.tears(order)) {
					return false
				}
			}
		}
	}
	return true
}

func (e *enumeration) combine(begin, end int, order []int, torn map[int]tear) bool {
	for _, o := range e.ops[begin:end] {
		n := o.Offset + int64(len(o.Data))
		copy(e.shown.image[o.Offset:n], e.durable[o.Offset:n])
	}
	for _, i := range order {
		all := pieces(e.ops[i])
		if t, ok := torn[i]; ok {
			e.apply(all, t)
		} else {
			e.apply(all, tear{of: len(all), first: len(all)})
		}
	}
	c := cut{total: len(e.ops), op: end - 1, torn: torn, order: order, ops: e.ops}
	for i := begin; i < end; i++ {
		if !slices.Contains(order, i) {
			c.dropped = append(c.dropped, i)
		}
	}
	return e.show(c)
}

// sets returns sets of the writes of a window, none empty: all, or a sample.
func (e *enumeration) sets(begin, end int) [][]int {
	n := end - begin
	if n < 2 {
		return nil
	}
	members := func(mask uint64) (set []int) {
		for i := range n {
			if mask>>i&1 == 1 {
				set = append(set, begin+i)
			}
		}
		return set
	}
	var sets [][]int
	if n < 63 && 1<<n-1 <= e.Combinations {
		for mask := uint64(1); mask < 1<<n; mask++ {
			sets = append(sets, members(mask))
		}
		return sets
	}
	for len(sets) < e.Combinations {
		var set []int
		for i := range n {
			if e.rand.IntN(2) == 1 {
				set = append(set, begin+i)
			}
		}
		if len(set) > 0 {
			sets = append(sets, set)
		}
	}
	return sets
}

// orders returns the orders of a set of writes that differ in what they leave:
// one, unless two of them overlap.
func (e *enumeration) orders(set []int) [][]int {
	if !e.overlap(set) {
		return [][]int{set}
	}
	if len(set) <= 4 {
		return permutations(set)
	}
	orders := [][]int{set}
	for range 23 {
		o := slices.Clone(set)
		e.rand.Shuffle(len(o), func(i, j int) { o[i], o[j] = o[j], o[i] })
		orders = append(orders, o)
	}
	return orders
}

func (e *enumeration) overlap(set []int) bool {
	for n, i := range set {
		for _, j := range set[:n] {
			a, b := e.ops[i], e.ops[j]
			if a.Offset < b.Offset+int64(len(b.Data)) && b.Offset < a.Offset+int64(len(a.Data)) {
				return true
			}
		}
	}
	return false
}

func permutations(set []int) [][]int {
	if len(set) <= 1 {
		return [][]int{slices.Clone(set)}
	}
	var all [][]int
	for i, first := range set {
		for _, rest := range permutations(slices.Concat(set[:i], set[i+1:])) {
			all = append(all, append([]int{first}, rest...))
		}
	}
	return all
}

// tears tears some writes of a set, at least one unless it has one sector only:
// as often all of them as a few.
func (e *enumeration) tears(set []int) map[int]tear {
	torn := map[int]tear{}
	sure, all := set[e.rand.IntN(len(set))], e.rand.IntN(2) == 1
	for _, i := range set {
		n := len(pieces(e.ops[i]))
		switch {
		case n == 1 || i != sure && !all && e.rand.IntN(2) == 1:
		case e.rand.IntN(2) == 1:
			torn[i] = tear{of: n, first: e.rand.IntN(n)}
		default:
			torn[i] = e.random(n)
		}
	}
	return torn
}

// subsets returns sets of n sectors that are no prefix.
func (e *enumeration) subsets(n int) []tear {
	if n < 2 {
		return nil
	}
	pick := func(name string, f func(i int) bool) tear {
		t := tear{of: n, name: name, set: make([]bool, n)}
		for i := range n {
			t.set[i] = f(i)
		}
		return t
	}
	all := []tear{
		pick("all but the first", func(i int) bool { return i > 0 }),
		pick("the last only", func(i int) bool { return i == n-1 }),
		pick("the second half", func(i int) bool { return i >= n/2 }),
		pick("every second", func(i int) bool { return i%2 == 1 }),
		pick("all but one in the middle", func(i int) bool { return i != (n-1)/2 }),
	}
	for len(all) < e.Subsets {
		all = append(all, e.random(n))
	}
	return all[:max(e.Subsets, 0)]
}

// random is a set of sectors that is no prefix, from very few to nearly all. It
// needs at least two to choose from.
func (e *enumeration) random(n int) tear {
	t := tear{of: n, name: fmt.Sprintf("random set %d", e.rand.Uint32()), set: make([]bool, n)}
	for prefix := true; prefix; {
		density := e.rand.Float64()
		for i := range t.set {
			t.set[i] = e.rand.Float64() < density
			prefix = prefix && (i == 0 || t.set[i-1] || !t.set[i])
		}
	}
	return t
}

func (e *enumeration) apply(all []piece, t tear) {
	for i, p := range all {
		if t.has(i) {
			copy(e.shown.image[p.at:], p.data)
		}
	}
}
