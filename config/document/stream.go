package document

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// MaxDocuments bounds the documents of one source.
const MaxDocuments = 1000

// Stream is the documents of one source, in order. It does not change. The zero
// value has none.
type Stream struct {
	name   string
	pieces []piece
}

// piece is a document with the text around it: from its --- to the next one. A
// piece without a document has comments, or nothing.
type piece struct {
	doc    *Document // nil: none, or null
	text   []byte    // as it was read; nil when the document was changed or added
	marker bool      // it starts with ---
}

// Read reads the documents of a machine configuration. Null documents are kept
// and are none of [Stream.Documents]. The error, if any, is of type [Errors] and
// holds every mistake found.
func Read(name string, data []byte) (*Stream, error) {
	in := &Report{Name: name}
	s, _ := read(in, data)
	if in.Failed() {
		return nil, in.Sorted()
	}
	return s, nil
}

// Documents is [Read] for who reads more than the form of the documents: the
// mistakes are in the report, and those documents are returned whose form is right,
// so that the others' do not hide what else is wrong.
func Documents(in *Report, data []byte) []*Document {
	_, docs := read(in, data)
	return docs
}

func read(in *Report, data []byte) (s *Stream, docs []*Document) {
	if !within(in, data) || !plainLines(in, data) {
		return nil, nil
	}
	s = &Stream{name: in.Name, pieces: split(data)}
	if len(s.pieces) > MaxDocuments {
		in.Fail(0, "", fmt.Sprintf("has more than %d documents", MaxDocuments), "check that this is the right file")
		return nil, nil
	}
	line := 0
	for i := range s.pieces {
		s.pieces[i].parse(in, line)
		line += bytes.Count(s.pieces[i].text, []byte{'\n'})
	}
	first := make(map[ID]int)
	for _, d := range s.Documents() {
		before := len(in.errs)
		if Check(in, d.Root()); in.more(before) {
			continue
		}
		id := d.ID()
		if line, twice := first[id]; twice {
			in.Fail(d.Line(), "", "document "+id.String()+" is there twice, first on line "+strconv.Itoa(line), "keep one of them, or merge the two")
			continue
		}
		first[id] = d.Line()
		docs = append(docs, d)
	}
	return s, docs
}

// plainLines reports whether the source is of lines as everyone sees them: YAML
// has line ends that other programs show as a character, and behind one a
// comment could hide a document.
func plainLines(in *Report, data []byte) bool {
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if !utf8.Valid(text) {
			in.Fail(line, "", "is not UTF-8", "write the file as UTF-8, with other characters as escapes in double quotes")
			return false
		}
		if bytes.ContainsAny(bytes.TrimSuffix(text, []byte("\r\n")), "\r\u0085\u2028\u2029") {
			in.Fail(line, "", "has a line end that is not LF or CR LF", "end the line with LF, or write the character as an escape in double quotes")
			return false
		}
	}
	return true
}

// split cuts a source before each line that starts a document. YAML allows no
// such line inside of a text (YAML 1.2.2, rule 206, c-forbidden).
func split(data []byte) []piece {
	var out []piece
	start, at := 0, 0
	started, ended := false, false // a document: since start; by ...
	cut := func(marker bool) {
		if at > start {
			out[len(out)-1].text = data[start:at:at]
			out = append(out, piece{})
			start = at
		}
		out[len(out)-1].marker = marker
	}
	out = append(out, piece{})
	for line := range bytes.Lines(data) {
		switch content := bytes.Trim(line, " \t\r\n"); {
		case isMarker(line, "---"):
			if started || ended {
				cut(true)
			} else if at > start && !directives(data[start:at]) {
				cut(true)
			}
			out[len(out)-1].marker = true
			started, ended = true, false
		case isMarker(line, "..."):
			ended = true
		case len(content) == 0 || content[0] == '#':
		case ended:
			cut(false)
			started, ended = line[0] != '%', false
		case line[0] != '%':
			started = true
		}
		at += len(line)
	}
	out[len(out)-1].text = data[start:]
	return out
}

// isMarker reports whether a line is the marker, alone or followed by a blank.
func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

// directives reports whether the text has one, which belongs to the document
// behind it.
func directives(text []byte) bool {
	return len(text) > 0 && text[0] == '%' || bytes.Contains(text, []byte("\n%"))
}

// parse parses the document of the piece, in front of which there are so many
// lines. Each piece is parsed for itself, so that its comments are its own.
func (p *piece) parse(in *Report, lines int) {
	if !p.holds() {
		if directives(p.text) {
			in.Fail(1+lines, "", "has a directive that no document follows", "remove the line that starts with %")
		}
		return
	}
	before := len(in.errs)
	switch nodes := decode(in, p.text, lines); {
	case len(nodes) == 1 && !IsNull(nodes[0].Content[0]):
		p.doc = &Document{node: nodes[0], file: in.Name, text: p.text, lines: lines}
	case len(nodes) != 1 && !in.more(before):
		in.Fail(1+lines, "", "has documents that cannot be told apart", "write --- on a line of its own before each document")
	}
}

// holds reports whether the parser finds a document in the piece.
func (p piece) holds() bool {
	if p.marker {
		return true
	}
	for line := range bytes.Lines(bytes.TrimPrefix(p.text, []byte("\ufeff"))) {
		content := bytes.Trim(line, " \t\r\n")
		if len(content) > 0 && content[0] != '#' && line[0] != '%' && !isMarker(line, "...") {
			return true
		}
	}
	return false
}

// Name returns the name of the source.
func (s *Stream) Name() string { return s.name }

// Documents returns the documents in order.
func (s *Stream) Documents() []*Document {
	var out []*Document
	for _, p := range s.pieces {
		if p.doc != nil {
			out = append(out, p.doc)
		}
	}
	return out
}

// Find returns the document with this identity, nil when there is none.
func (s *Stream) Find(id ID) *Document {
	for _, d := range s.Documents() {
		if d.ID() == id {
			return d
		}
	}
	return nil
}

// With returns a stream of these documents. Those of s keep their text and what
// is around it; one that [Document.Edit] made takes the place of the one it was
// made of; those of s that are not among docs are left out with their text; all
// others follow at the end.
func (s *Stream) With(docs ...*Document) *Stream {
	out := &Stream{name: s.name}
	rest := slices.Clone(docs)
	for _, p := range s.pieces {
		if p.doc == nil {
			out.pieces = append(out.pieces, p)
			continue
		}
		i := slices.IndexFunc(rest, func(d *Document) bool { return d.origin() == p.doc.origin() })
		if i < 0 {
			continue
		}
		if rest[i] != p.doc {
			p = piece{doc: rest[i], marker: p.marker}
		}
		out.pieces = append(out.pieces, p)
		rest = slices.Delete(rest, i, i+1)
	}
	for _, d := range rest {
		out.pieces = append(out.pieces, piece{doc: d, marker: true})
	}
	return out
}

// Bytes returns the documents as they are written to a file. The caller may
// change it.
func (s *Stream) Bytes() []byte {
	var out []byte
	open := false // a document, so that the next one needs its ---
	for i, p := range s.pieces {
		text := p.text
		if text == nil && p.doc != nil {
			text = p.doc.text
		}
		if i < len(s.pieces)-1 && len(text) > 0 && text[len(text)-1] != '\n' {
			text = p.ended(text)
		}
		if (p.text == nil && p.marker && len(out) > 0 || open && p.doc != nil) && !startsDocument(text) {
			out = append(out, "---\n"...)
		}
		out = append(out, text...)
		open = (open || p.doc != nil || p.marker) && !ends(text)
	}
	return out
}

// ended returns the text with an end to its last line, which it has none of. A
// text that is a value can be longer by that, so that it is written anew.
func (p piece) ended(text []byte) []byte {
	text = append(bytes.Clone(text), '\n')
	if p.doc == nil {
		return text
	}
	var in Report
	if again := decode(&in, text, 0); len(again) == 1 && Equal(again[0], p.doc.node) {
		return text
	}
	anew, err := p.doc.Edit(func(*yaml.Node) error { return nil })
	if err != nil {
		return text
	}
	return anew.text
}

// ends reports whether the text closes its document with "...".
func ends(text []byte) bool {
	for line := range bytes.Lines(text) {
		if isMarker(line, "...") {
			return true
		}
	}
	return false
}

// startsDocument reports whether the text starts with --- or with directives.
func startsDocument(text []byte) bool {
	for line := range bytes.Lines(text) {
		content := bytes.Trim(line, " \t\r\n")
		switch {
		case isMarker(line, "---"):
			return true
		case len(content) > 0 && content[0] != '#' && line[0] != '%':
			return false
		}
	}
	return false
}
