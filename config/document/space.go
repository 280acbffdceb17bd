package document

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v4"
)

// spacing puts the blank lines of the source back, which the encoder leaves out
// or moves: those among the comments in front of a field or list entry that was
// there.
type spacing struct {
	source [][]byte         // lines that were read
	first  int              // how many lines are in front of them
	output [][]byte         // lines that were written
	gaps   map[int][][]byte // what to write for the lines in front of a line, by its number
}

// spaced returns the text of the document with its blank lines; without them
// when it would be another document with them.
func (d *Document) spaced(text []byte) []byte {
	o := d.origin()
	if o == d || o.text == nil {
		return text
	}
	var in Report
	written := decode(&in, text, 0)
	s := spacing{slices.Collect(bytes.Lines(o.text)), o.lines, slices.Collect(bytes.Lines(text)), make(map[int][][]byte)}
	s.walk(d.node.Content[0], written[0].Content[0])
	var out []byte
	for i, line := range s.output {
		if gap, ok := s.gaps[i]; ok {
			for _, old := range s.output[above(s.output, i):i] {
				out = out[:len(out)-len(old)]
			}
			out = append(out, bytes.Join(gap, nil)...)
		}
		out = append(out, line...)
	}
	if again := decode(&in, out, 0); len(again) != 1 || !Equal(again[0], written[0]) {
		return text
	}
	return out
}

// walk goes through a value as it was read and as it was written, which are
// equal.
func (s *spacing) walk(read, written *yaml.Node) {
	if read.Style&yaml.FlowStyle != 0 || read.Kind == yaml.ScalarNode {
		return
	}
	step := 1
	if read.Kind == yaml.MappingNode {
		step = 2
	}
	for i := 0; i < len(read.Content); i += step {
		s.entry(read.Content[i], written.Content[i])
		s.walk(read.Content[i+step-1], written.Content[i+step-1])
	}
}

// entry notes what stands in front of a field's name or a list entry: the
// comments that were written, with the blank lines that were read. What was not
// read itself has no line.
func (s *spacing) entry(read, written *yaml.Node) {
	at, to := read.Line-s.first-1, written.Line-1
	if read.Line == 0 || at < 0 || at >= len(s.source) {
		return
	}
	var comments [][]byte
	for _, line := range s.output[above(s.output, to):to] {
		if !blank(line) {
			comments = append(comments, line)
		}
	}
	var gap [][]byte
	for _, line := range s.source[above(s.source, at):at] {
		switch {
		case blank(line):
			gap = append(gap, []byte{'\n'})
		case len(comments) == 0 || !bytes.Equal(bytes.TrimSpace(line), bytes.TrimSpace(comments[0])):
			return
		default:
			gap, comments = append(gap, comments[0]), comments[1:]
		}
	}
	if len(comments) == 0 {
		s.gaps[to] = gap
	}
}

// above returns the first of the blank lines and comments right above a line.
func above(lines [][]byte, i int) int {
	for i > 0 && (blank(lines[i-1]) || bytes.HasPrefix(bytes.TrimSpace(lines[i-1]), []byte{'#'})) {
		i--
	}
	return i
}

func blank(line []byte) bool { return len(bytes.TrimSpace(line)) == 0 }

// Foreign marks a value as one that was not read from the document it is put
// into, so that its lines say nothing there.
func Foreign(n *yaml.Node) {
	each(n, func(n *yaml.Node) { n.Line, n.Column = 0, 0 })
}
