package document

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v4"
)

// splicer writes a changed document: it goes through the lines that were read,
// keeps those of all that did not change, leaves out those of what was deleted,
// and puts new lines where something is new. Comments are such lines, so that
// they stay where they are. To a deleted entry belong those right above it in its
// column, those between its lines, and those behind it to the right of its
// column.
type splicer struct {
	*source
	indent  int
	compact bool
	end     []byte // of a line

	next   int    // the line that was read which is neither kept nor left out yet
	out    []byte // what is written
	blanks int    // how many lines between entries are at its end and blank
	prefix []byte // the "-" of lists in front of an entry that was left out: the next one is in the lists too
	spaced bool   // blank lines behind what was deleted stayed
	tight  bool   // they are left out
	failed bool
}

// splice returns the text of the document with the root that it has now. It
// reports false when that cannot be done line by line, or would be another
// document, or does not come back.
func (d *Document) splice(now *yaml.Node, indent int, compact bool) ([]byte, bool) {
	o := d.origin()
	if o == d {
		return nil, false
	}
	read := o.node
	if o.file == "" { // a document of New, whose nodes have places of elsewhere
		var in Report
		again := decode(&in, o.text, o.lines)
		if len(again) != 1 {
			return nil, false
		}
		read = again[0]
	}
	root, to := read.Content[0], now.Content[0]
	s := &splicer{source: newSource(o.text, root, o.lines), indent: indent, compact: compact, end: []byte("\n")}
	if len(s.lines) > 0 && bytes.HasSuffix(s.lines[0], []byte("\r\n")) {
		s.end = []byte("\r\n")
	}
	again := *s
	ok := s.root(root, to) && back(s.out, now)
	if !ok && !s.failed && s.spaced { // behind a text that keeps its end, a blank line becomes its own
		again.tight = true
		s = &again
		ok = s.root(root, to) && back(s.out, now)
	}
	return s.out, ok
}

// root writes all of a document. It reports whether that can be done.
func (s *splicer) root(read, now *yaml.Node) bool {
	switch at, ok := s.entries(read); {
	case ok && read.Anchor == "" && now.Kind == read.Kind:
		s.collection(read, now, at, s.stop, true)
	case s.changed(entry{read: read, now: now}):
		return false
	}
	s.keep(len(s.lines))
	return !s.failed
}

// collection writes the entries of a list or mapping in block style, which end
// in front of the line limit. What follows a compact one can be in its column.
func (s *splicer) collection(read, now *yaml.Node, at entries, limit int, compact bool) {
	step := stepOf(read)
	from := s.match(read, now)
	done := 0 // of now's entries
	for i, line := range at.lines {
		end := limit
		if i+1 < len(at.lines) {
			end = at.lines[i+1]
		}
		added := done
		for added < len(from) && from[added] < 0 {
			added++
		}
		if added == len(from) || from[added] != i {
			s.remove(line, at.column, end)
			continue
		}
		if added > done {
			s.keep(s.head(line, at.column))
			s.insert(now, done*step, added*step, at.column)
		}
		e := entry{line: line, column: at.column, limit: end, read: read.Content[i*step+step-1], now: now.Content[added*step+step-1]}
		if step == 2 {
			e.key = read.Content[i*step]
		}
		s.entry(e)
		done = added + 1
	}
	if done < len(from) {
		s.keep(s.behind(s.last[limit-1], at.column, limit, compact))
		s.insert(now, done*step, len(now.Content), at.column)
	}
}

// behind returns the line in front of which an entry is added to a list or
// mapping, whose last line of content is given: behind the comments that are in
// its column or to the right. At the end of a document, and of a compact list,
// that column is what follows as well; a blank line then says where.
func (s *splicer) behind(last, column, limit int, compact bool) int {
	if !compact {
		return s.below(last, column, limit)
	}
	end := s.below(last, column+1, limit)
	if limit == s.stop {
		for end < limit && s.kinds[end] == column {
			end++
		}
	}
	return end
}

// match returns, for each entry of a list or mapping, the place of the entry
// that it was, -1 for a new one. Places rise.
func (s *splicer) match(read, now *yaml.Node) []int {
	if read.Kind == yaml.SequenceNode {
		return matchList(read.Content, now.Content)
	}
	places := make(map[string]int, len(read.Content)/2)
	for i := 0; i < len(read.Content); i += 2 {
		places[read.Content[i].Value] = i / 2
	}
	from, last := make([]int, 0, len(now.Content)/2), -1
	for i := 0; i+1 < len(now.Content); i += 2 {
		at, ok := places[now.Content[i].Value]
		if ok = ok && now.Content[i].Kind == yaml.ScalarNode && at > last; ok {
			last = at
			from = append(from, at)
			continue
		}
		from = append(from, -1)
	}
	return from
}

// matchList knows the entries of a list by the place where they were read, and
// what is left between two of them by its value. What is left then are as many
// scalars, which took the place of each other, or new.
func matchList(read, now []*yaml.Node) []int {
	type place struct{ line, column int }
	places := make(map[place][]int, len(read))
	for i, n := range read {
		n = Resolved(n) // which has the place of what it stands for when it is copied
		p := place{n.Line, n.Column}
		places[p] = append(places[p], i)
	}
	from, next := make([]int, len(now)), 0
	for i, n := range now {
		from[i] = -1
		p := place{n.Line, n.Column}
		for at := places[p]; len(at) > 0 && from[i] < 0; at = places[p] {
			if at[0] >= next {
				from[i], next = at[0], at[0]+1
			}
			places[p] = at[1:]
		}
	}
	gaps(from, len(read), func(i, j, k, l int) {
		for at, to := range alignNodes(now[i:j], read[k:l]) {
			if to >= 0 {
				from[i+at] = k + to
			}
		}
	})
	other := func(n *yaml.Node) bool { return n.Kind != yaml.ScalarNode }
	gaps(from, len(read), func(i, j, k, l int) {
		if j-i != l-k || slices.ContainsFunc(now[i:j], other) || slices.ContainsFunc(read[k:l], other) {
			return
		}
		for ; i < j; i, k = i+1, k+1 {
			from[i] = k
		}
	})
	return from
}

// keep writes the lines that were read up to a line.
func (s *splicer) keep(to int) {
	for ; s.next < to; s.next++ {
		s.write(s.lines[s.next], s.kinds[s.next] == blankLine)
	}
}

// write writes a line. Behind the "-" of an entry that was left out it has to be
// a line of its own when it does not start with as many blanks.
func (s *splicer) write(line []byte, gap bool) {
	if p := s.prefix; len(p) > 0 {
		if gap {
			return
		}
		s.prefix = nil
		if len(line) > len(p) && blank(line[:len(p)]) {
			line = slices.Concat(p, line[len(p):])
		} else {
			s.out = append(append(s.out, bytes.TrimRight(p, " ")...), s.end...)
		}
	}
	s.blanks++
	if !gap {
		s.blanks = 0
	}
	s.out = append(s.out, line...)
	if !bytes.HasSuffix(line, []byte{'\n'}) {
		s.out = append(s.out, s.end...)
	}
}

// leave leaves out the lines of an entry, which starts in a column of a line, up
// to another line.
func (s *splicer) leave(line, column, to int) {
	if s.next <= line {
		if front := s.lines[line][:column-1]; !blank(front) && len(s.prefix) == 0 {
			s.prefix = front
		}
	}
	s.next = max(s.next, to)
}

// remove leaves out an entry that was deleted, with the comments that belong to
// it. Of blank lines on both sides, those in front stay.
func (s *splicer) remove(line, column, limit int) {
	s.keep(s.head(line, column))
	s.leave(line, column, s.below(s.last[limit-1], column+1, limit))
	if s.blanks == 0 && len(s.out) > 0 && !s.tight {
		s.spaced = s.spaced || s.next < s.stop && s.kinds[s.next] == blankLine
		return
	}
	for s.next < s.stop && s.kinds[s.next] == blankLine {
		s.next++
	}
	if s.next == len(s.lines) {
		for ; s.blanks > 0; s.blanks-- {
			s.out = s.out[:1+bytes.LastIndexByte(s.out[:len(s.out)-1], '\n')]
		}
	}
}
