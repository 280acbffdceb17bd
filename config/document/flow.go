package document

import (
	"bytes"

	"go.yaml.in/yaml/v4"
)

// flow marks the lines of the texts in a list or mapping in flow style, and
// returns the comments at the ends of its lines, with the blanks in front.
func (s *source) flow(n *yaml.Node) (tails [][]byte) {
	var f flow
	line, at := s.place(n)
	for ; line < s.stop && !f.closed; line, at = line+1, 0 {
		switch {
		case f.quote != 0:
			s.kinds[line] = contentLine
		case s.kinds[line] > 0:
			continue
		}
		text := bytes.TrimRight(s.lines[line], "\r\n")
		if end := f.line(text, at); end < len(text) {
			tails = append(tails, tail(text, end))
		}
	}
	return tails
}

// tail returns the comment that starts in a line, with the blanks in front.
func tail(line []byte, at int) []byte {
	return line[len(bytes.TrimRight(line[:at], " \t")):]
}

// flow is where a reader of flow style is.
type flow struct {
	quote  byte // of the text that is open; 0 for none
	plain  bool // in a text without quotes
	depth  int
	closed bool // the outermost bracket
}

// line reads a line from a place on, and returns where its comment starts, or
// its length.
func (f *flow) line(text []byte, at int) int {
	for ; at < len(text); at++ {
		c := text[at]
		front := at == 0 || text[at-1] == ' ' || text[at-1] == '\t'
		switch {
		case f.quote != 0:
			if c == '\\' && f.quote == '"' {
				at++
			} else if c == f.quote {
				f.quote = 0 // or the first of two, and the second opens it again
			}
		case c == '#' && front:
			return at
		case c == ' ', c == '\t', f.closed:
		case c == '[', c == '{':
			f.depth, f.plain = f.depth+1, false
		case c == ']', c == '}':
			f.depth, f.plain = f.depth-1, false
			f.closed = f.depth == 0
		case c == ',', c == ':' && (!f.plain || f.ends(text, at+1)):
			f.plain = false
		case !f.plain && (c == '\'' || c == '"'):
			f.quote = c
		case !f.plain && (c == '!' || c == '&' || c == '*'):
			for !f.ends(text, at+1) {
				at++
			}
		default:
			f.plain = true
		}
	}
	return len(text)
}

// ends reports whether a text without quotes, or a tag, ends in front of a place.
func (f *flow) ends(text []byte, at int) bool {
	return at >= len(text) || bytes.IndexByte([]byte(" \t,[]{}"), text[at]) >= 0
}
