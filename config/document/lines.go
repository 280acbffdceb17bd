package document

import (
	"bytes"
	"slices"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// What a line is that holds no comment of its own; see source.
const (
	blankLine   = 0
	contentLine = -1
)

// source is the text of a document as lines, which are counted from 0, and what
// they are to the tree that the parser made of them.
type source struct {
	lines [][]byte
	first int        // how many lines of the file are in front of them
	kinds []int      // of each line: the column, from 1, of the comment that it is; or blankLine or contentLine
	last  []int      // of each line: the last line up to it that is content; -1 for none
	stop  int        // where the document ends: its "...", or the end of the text
	open  *yaml.Node // the text in block style that ends with the file, in the middle of a line
}

// newSource takes the text of a document apart. Every line of a text in it is
// content, whatever it looks like.
func newSource(text []byte, root *yaml.Node, first int) *source {
	s := &source{lines: slices.Collect(bytes.Lines(bytes.TrimPrefix(text, []byte("\ufeff")))), first: first}
	s.kinds = make([]int, len(s.lines))
	s.stop = len(s.lines)
	for i, line := range s.lines {
		content := bytes.TrimLeft(line, " \t")
		switch {
		case blank(line):
			s.kinds[i] = blankLine
		case content[0] == '#':
			s.kinds[i] = 1 + len(line) - len(content)
		default:
			s.kinds[i] = contentLine
		}
		if isMarker(line, "...") {
			s.stop = min(s.stop, i)
		}
	}
	s.texts(root, 0)
	s.last = make([]int, len(s.lines))
	last := -1
	for i, kind := range s.kinds {
		if kind == contentLine {
			last = i
		}
		s.last[i] = last
	}
	return s
}

// texts marks the lines of all texts. So many blanks are in front of the entries
// of the collection that the value is in.
func (s *source) texts(n *yaml.Node, indent int) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		s.block(n, indent)
	case quoted(n):
		line, at := s.place(n)
		end, _ := s.closing(n, line, at)
		s.content(line, end)
	case n.Kind == yaml.ScalarNode:
	case n.Style&yaml.FlowStyle != 0:
		s.flow(n)
	default:
		inner := n.Column - 1
		if b, ok := s.entries(n); ok {
			inner = b.column - 1
		}
		for _, child := range n.Content {
			s.texts(child, inner)
		}
	}
}

// quoted reports whether a value is a text in quotes.
func quoted(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0
}

// content marks lines, both ends included.
func (s *source) content(from, to int) {
	for i := from; i <= to && i < len(s.kinds); i++ {
		s.kinds[i] = contentLine
	}
}

// block marks the lines of a text in block style (YAML 1.2.2, 8.1).
func (s *source) block(n *yaml.Node, indent int) {
	line, at := s.place(n)
	if line >= len(s.lines) {
		return
	}
	mark := bytes.TrimLeft(s.lines[line][at:], " \t")
	for len(mark) > 0 && (mark[0] == '!' || mark[0] == '&') { // in front of it
		_, mark, _ = bytes.Cut(mark, []byte{' '})
		mark = bytes.TrimLeft(mark, " \t")
	}
	keep, deep := false, 0 // not known before the first line of text
	for _, c := range mark[min(1, len(mark)):min(3, len(mark))] {
		keep = keep || c == '+'
		if '1' <= c && c <= '9' {
			deep = indent + int(c-'0')
		}
	}
	last := line
	for i := line + 1; i < s.stop; i++ {
		text := bytes.TrimRight(s.lines[i], "\r\n")
		blanks := len(text) - len(bytes.TrimLeft(text, " "))
		switch {
		case len(text) > blanks && deep == 0 && blanks > indent:
			deep = blanks
			last = i
		case len(text) > blanks && (deep == 0 || blanks < deep):
			s.content(line, last)
			return
		case len(text) > blanks, deep > 0 && blanks > deep, keep:
			last = i
		}
	}
	s.content(line, last)
	if last == len(s.lines)-1 && !bytes.HasSuffix(s.lines[last], []byte{'\n'}) {
		s.open = n
	}
}

// closing returns where the quote of a text is closed: the line, and the place
// behind it on the line. Tags in front of it may not have quotes.
func (s *source) closing(n *yaml.Node, line, at int) (int, int) {
	quote := byte('"')
	if n.Style&yaml.SingleQuotedStyle != 0 {
		quote = '\''
	}
	open := false
	for ; line < len(s.lines); line, at = line+1, 0 {
		text := s.lines[line]
		for ; at < len(text); at++ {
			switch {
			case text[at] == '\\' && quote == '"' && open:
				at++
			case text[at] != quote:
			case !open:
				open = true
			case quote == '\'' && at+1 < len(text) && text[at+1] == quote:
				at++
			default:
				return line, at + 1
			}
		}
	}
	return len(s.lines) - 1, 0
}

// place returns where a value is: its line, and how many bytes are in front of
// it there.
func (s *source) place(n *yaml.Node) (line, at int) {
	line = n.Line - s.first - 1
	if line < 0 || line >= len(s.lines) {
		return len(s.lines), 0
	}
	text := s.lines[line]
	for range n.Column - 1 {
		_, size := utf8.DecodeRune(text[at:])
		at += size
	}
	return line, at
}

// entries is where the entries of a list or mapping in block style are.
type entries struct {
	lines  []int
	column int // of all of them, from 1: of the "-", or of the name
}

// entries returns where the entries of a list or mapping are, when it is one
// whose lines can be told apart: in block style, one entry to a line, and no
// "?", and no anchor or tag in front of a name.
func (s *source) entries(n *yaml.Node) (e entries, ok bool) {
	if n.Style&yaml.FlowStyle != 0 || len(n.Content) == 0 || n.Kind != yaml.MappingNode && n.Kind != yaml.SequenceNode {
		return e, false
	}
	step := stepOf(n)
	e.lines = make([]int, 0, len(n.Content)/step)
	for i := 0; i < len(n.Content); i += step {
		line, column := s.start(n.Content[i], step == 1)
		switch {
		case column == 0, step == 2 && !isName(n.Content[i]):
			return e, false
		case i == 0:
			e.column = column
			ok = onlyDashes(s.lines[line][:column-1])
		default:
			ok = column == e.column && line > e.lines[len(e.lines)-1] && blank(s.lines[line][:column-1])
		}
		if !ok {
			return e, false
		}
		e.lines = append(e.lines, line)
	}
	return e, true
}

// start returns the line and the column of the entry that a name or a value in
// a list starts; column 0 for none.
func (s *source) start(n *yaml.Node, inList bool) (line, column int) {
	line, at := s.place(n)
	if line == len(s.lines) || at > len(s.lines[line]) {
		return 0, 0
	}
	if !inList {
		return line, at + 1
	}
	front := s.lines[line][:at]
	if blank(front) { // the "-" is on a line above
		for line--; line >= 0 && s.kinds[line] != contentLine; line-- {
		}
		if line < 0 {
			return 0, 0
		}
		front = s.lines[line][:len(s.lines[line])-len(bytes.TrimLeft(s.lines[line], " -"))]
	}
	if !onlyDashes(front) {
		return 0, 0
	}
	return line, bytes.LastIndexByte(front, '-') + 1
}

func isName(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Anchor == "" }

// stepOf returns how many nodes an entry of a list or mapping has.
func stepOf(n *yaml.Node) int {
	if n.Kind == yaml.MappingNode {
		return 2
	}
	return 1
}

// onlyDashes reports whether a text is nothing but blanks and the "-" of lists.
func onlyDashes(text []byte) bool { return len(bytes.Trim(text, " -")) == 0 }

func blank(line []byte) bool { return len(bytes.TrimSpace(line)) == 0 }

// head returns the first of the comments right above an entry, in its column;
// its own line when it has none.
func (s *source) head(line, column int) int {
	if !blank(s.lines[line][:column-1]) {
		return line // above it is what is above the list
	}
	for line > 0 && s.kinds[line-1] == column {
		line--
	}
	return line
}

// below returns the line behind the comments that follow a line and start in the
// column or to its right. A comment to the left of it ends them.
func (s *source) below(line, column, limit int) int {
	end := line + 1
	for i := end; i < limit && s.kinds[i] != contentLine; i++ {
		switch {
		case s.kinds[i] == blankLine:
		case s.kinds[i] < column:
			return end
		default:
			end = i + 1
		}
	}
	return end
}
