package document

import (
	"hash/maphash"
	"slices"

	"go.yaml.in/yaml/v4"
)

// gaps calls f for the entries of a list that are matched with none, of which the
// last is in front of j, and the entries of the list as it was read, from k to l,
// that are between the matches around them.
func gaps(from []int, read int, f func(i, j, k, l int)) {
	k := 0
	for i := 0; i < len(from); i++ {
		j, l := i, read
		for j < len(from) && from[j] < 0 {
			j++
		}
		if j < len(from) {
			l = from[j]
		}
		f(i, j, k, l)
		i, k = j, l+1
	}
}

// Align matches the entries of a list with equal ones of the list that was read,
// in rising order: it returns the place of each there, -1 for none. Equal entries
// are given as equal numbers. It takes time for n entries as sorting them does.
func Align(now, read []uint64) []int {
	from := make([]int, len(now))
	for i := range from {
		from[i] = -1
	}
	ends := func(i, j, k, l int) {
		for ; i < j && k < l && now[i] == read[k]; i, k = i+1, k+1 {
			from[i] = k
		}
		for ; i < j && k < l && now[j-1] == read[l-1]; j, l = j-1, l-1 {
			from[j-1] = l - 1
		}
	}
	gaps(from, len(read), ends)
	gaps(from, len(read), func(i, j, k, l int) { rising(from[i:j], now[i:j], read[k:l], k) })
	gaps(from, len(read), ends) // of entries that are there more than once
	return from
}

// rising matches the most entries that it can without a change of their order.
// Of those that are equal, the first can only be the first, the second the
// second. The number first is that of read[0].
func rising(from []int, now, read []uint64, first int) {
	heads, next := make(map[uint64]int), make([]int, len(read)) // of equal ones, counted from 1
	for k := len(read) - 1; k >= 0; k-- {
		next[k], heads[read[k]] = heads[read[k]], k+1
	}
	places, before := make([]int, len(now)), make([]int, len(now))
	var tops []int // of all rows with one entry, with two and so on: the end of the one that ends first
	for i, n := range now {
		k := heads[n] - 1
		if k < 0 {
			continue
		}
		places[i], heads[n], before[i] = k, next[k], -1
		at, _ := slices.BinarySearchFunc(tops, k, func(top, k int) int { return places[top] - k })
		if at > 0 {
			before[i] = tops[at-1]
		}
		if at == len(tops) {
			tops = append(tops, i)
		}
		tops[at] = i
	}
	if len(tops) == 0 {
		return
	}
	for i := tops[len(tops)-1]; i >= 0; i = before[i] {
		from[i] = first + places[i]
	}
}

// alignNodes is Align for the entries of lists.
func alignNodes(now, read []*yaml.Node) []int {
	seed := maphash.MakeSeed()
	sums := func(nodes []*yaml.Node) []uint64 {
		out := make([]uint64, len(nodes))
		for i, n := range nodes {
			out[i] = sum(seed, n)
		}
		return out
	}
	return Align(sums(now), sums(read))
}

// sum returns a number that is the same for all that is Equal.
func sum(seed maphash.Seed, n *yaml.Node) uint64 {
	type part struct {
		kind       yaml.Kind
		tag, value string
		at         int
		sum        uint64
	}
	p := part{kind: n.Kind, value: n.Value, at: len(n.Content)}
	switch {
	case IsNull(n):
		p = part{tag: "!!null"}
	case n.Kind == yaml.ScalarNode:
		p.tag = n.ShortTag()
	}
	total := maphash.Comparable(seed, p)
	for i, child := range n.Content {
		total += maphash.Comparable(seed, part{at: i, sum: sum(seed, child)})
	}
	return total
}
