package document

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v4"
)

// entry is an entry of a list or mapping that was there.
type entry struct {
	line, column, limit int        // it starts there, and the next one on the line limit
	key                 *yaml.Node // as it was read; nil in a list
	read, now           *yaml.Node // its value
}

// entry writes an entry that was there.
func (s *splicer) entry(e entry) {
	at, ok := s.entries(e.read)
	switch {
	case !ok && !s.changed(e):
	case !ok || e.now.Kind != e.read.Kind:
		s.rewrite(e, ok)
	default:
		if len(e.now.Content) == 0 {
			s.emptied(e, at)
		} else if e.read.Anchor != "" {
			s.unanchored(e)
		}
		s.collection(e.read, e.now, at, e.limit, e.read.Kind == yaml.SequenceNode && at.column == e.column)
	}
}

// changed reports whether a value cannot stay as it was read.
func (s *splicer) changed(e entry) bool {
	plain := true
	each(e.read, func(n *yaml.Node) {
		plain = plain && n.Kind != yaml.AliasNode && n.Anchor == "" && n != s.open
	})
	return !plain || !Equal(e.read, e.now)
}

// emptied writes the first line of an entry whose value lost all that is in it.
func (s *splicer) emptied(e entry, at entries) {
	lines := s.dump(e)
	if at.lines[0] > e.line { // else a comment is one of what is lost
		lines[0] = append(lines[0], s.ending(e.line, s.named(e))...)
	}
	s.keep(e.line)
	s.leave(e.line, e.column, e.line+1)
	s.add(lines, e.column)
}

// unanchored writes the first line of an entry without the anchor of its value.
func (s *splicer) unanchored(e entry) {
	line, at := s.place(e.read)
	anchor := []byte("&" + e.read.Anchor)
	if line != e.line || at > len(s.lines[line]) {
		s.failed = true
		return
	}
	front, rest, ok := bytes.Cut(s.lines[line][at:], anchor)
	if !ok {
		s.failed = true
		return
	}
	s.keep(line)
	text := slices.Concat(s.lines[line][:at], front)
	if blank(rest) {
		text = bytes.TrimRight(text, " ")
	} else {
		rest = bytes.TrimLeft(rest, " ")
	}
	s.write(append(text, rest...), false)
	s.next = line + 1
}

// rewrite writes an entry anew, with the comments that were in its lines: the
// first one at the end of a line stays there, the others follow as lines. Those
// in a list or mapping that is none any more belonged to what was in it.
func (s *splicer) rewrite(e entry, block bool) {
	last := s.last[e.limit-1]
	tails, own := s.comments(e, last, block)
	lines := s.dump(e)
	if s.failed {
		return
	}
	s.keep(e.line)
	s.leave(e.line, e.column, last+1)
	if len(tails) > 0 && e.now.LineComment != "" && e.now.Line == 0 && e.now.LineComment != e.read.LineComment && (e.key == nil || e.now.LineComment != e.key.LineComment) {
		tails = tails[1:] // which has a successor
	} else if len(tails) > 0 {
		with := append([][]byte{slices.Concat(bytes.TrimRight(lines[0], " "), tails[0])}, lines[1:]...)
		if len(lines) > 1 && !back(bytes.Join(with, []byte{'\n'}), s.document(e)) {
			with = append([][]byte{bytes.TrimLeft(tails[0], " \t")}, lines...)
		}
		lines, tails = with, tails[1:]
	}
	inner := e.key != nil && e.now.Kind != yaml.ScalarNode && e.now.Style&yaml.FlowStyle == 0 && len(e.now.Content) > 0
	if inner { // the comments that are there stay above what is new
		s.add(lines[:1], e.column)
		lines = lines[1:]
	} else {
		s.add(lines, e.column)
	}
	for _, tail := range tails {
		s.add([][]byte{append([]byte("  "), bytes.TrimLeft(tail, " \t")...)}, e.column)
	}
	for _, line := range own {
		s.write(s.lines[line], false)
	}
	if inner {
		s.keep(s.below(last, e.column+1, e.limit))
		s.add(lines, e.column)
	}
}

// named returns how many bytes of the first line of an entry are its "-" or its
// name.
func (s *splicer) named(e entry) int {
	if e.key != nil && quoted(e.key) {
		if line, at := s.closing(e.key, e.line, e.column-1); line == e.line {
			return at
		}
	}
	return e.column
}

// comments returns the comments in the lines of an entry that is written anew:
// those at the end of a line, with the blanks in front, and the lines of the
// others.
func (s *splicer) comments(e entry, last int, block bool) (tails [][]byte, own []int) {
	note := func(tail []byte) {
		if len(tail) > 0 {
			tails = append(tails, tail)
		}
	}
	line, at := s.place(e.read)
	if block || line > e.line {
		note(s.ending(e.line, s.named(e)))
	}
	if block {
		return tails, nil
	}
	for i := e.line; i <= last; i++ {
		if s.kinds[i] > 0 {
			own = append(own, i)
		}
	}
	if line > last {
		return tails, own
	}
	switch {
	case e.read.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		note(s.ending(line, at))
	case quoted(e.read):
		note(s.ending(s.closing(e.read, line, at)))
	case e.read.Style&yaml.FlowStyle != 0:
		tails = append(tails, s.flow(e.read)...)
	case e.read.Kind == yaml.ScalarNode, e.read.Kind == yaml.AliasNode:
		for ; line <= last; line, at = line+1, 0 {
			if s.kinds[line] == contentLine {
				note(s.ending(line, at))
			}
		}
	}
	return tails, own
}

// ending returns the comment at the end of a line, with the blanks in front of
// it, but not the end of the line. No quote opens behind the place.
func (s *splicer) ending(line, at int) []byte {
	text := bytes.TrimRight(s.lines[line], "\r\n")
	for i := max(at, 1); i < len(text); i++ {
		if text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t') {
			return tail(text, i)
		}
	}
	return nil
}

// insert writes some of the nodes of a list or mapping as new entries.
func (s *splicer) insert(now *yaml.Node, from, to, column int) {
	n := &yaml.Node{Kind: now.Kind, Content: now.Content[from:to]}
	s.add(s.encode(&yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{n}}), column)
}

// document returns a document of nothing but the entry as it is now.
func (s *splicer) document(e entry) *yaml.Node {
	value := *e.now
	value.HeadComment, value.FootComment = "", ""
	if e.now.LineComment == e.read.LineComment {
		value.LineComment = ""
	}
	root := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq", Content: []*yaml.Node{&value}}
	if e.key != nil {
		key := *e.key
		key.HeadComment, key.LineComment, key.FootComment = "", "", ""
		root = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{&key, &value}}
	}
	return &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}}
}

// dump returns the lines of an entry as it is now.
func (s *splicer) dump(e entry) [][]byte { return s.encode(s.document(e)) }

// encode returns the lines of a document, without their ends. What was read
// comes without its comments, which are in the lines that were read.
func (s *splicer) encode(n *yaml.Node) [][]byte {
	plain, err := Copy(n)
	if err != nil {
		s.failed = true
		return [][]byte{nil}
	}
	each(plain, func(n *yaml.Node) {
		if n.Line != 0 {
			n.HeadComment, n.LineComment, n.FootComment = "", "", ""
		}
	})
	text, ok := dumpSafely(plain, s.indent, s.compact)
	s.failed = s.failed || !ok
	return bytes.Split(bytes.TrimSuffix(text, []byte{'\n'}), []byte{'\n'})
}

// add writes new lines in a column.
func (s *splicer) add(lines [][]byte, column int) {
	for _, line := range lines {
		if len(line) > 0 {
			line = slices.Concat(bytes.Repeat([]byte{' '}, column-1), line)
		}
		s.write(append(slices.Clip(line), s.end...), false)
	}
}

// Foreign marks a value as one that was not read from the document it is put
// into, so that its lines say nothing there.
func Foreign(n *yaml.Node) {
	each(n, func(n *yaml.Node) { n.Line, n.Column = 0, 0 })
}
