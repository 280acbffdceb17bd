package document_test

import (
	"bytes"
	"slices"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// FuzzChange: whatever is changed in whatever document, what is written has the
// values that were meant, and a second write of it gives the same bytes.
func FuzzChange(f *testing.F) {
	for _, text := range []string{
		generated, several, "a: &a\n  b: c # d\ne: *a\n", "l:\n- - a\n  # c\n  - b: |+\n      # x\n\n\n", "? [a]\n: b\n", "{a: {b: c, # d\n  e: f}}\n",
		"a: 'b\n  # c\n  d' # e\r\nf: >2-\n   g\n", "\ufeff# c\na:\n - &x\n   b: c\n - *x\n<<: {d: e}\n", "a: !t [\"x # y\", 'it''s'] # z\n... # end", "a:\n-\n  - # b\n    c: {}\n  # d\n",
	} {
		for op := range byte(4) {
			f.Add([]byte(text), op, byte(2+op))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, op, number byte) {
		if len(data) > 16<<10 || bytes.Count(data, []byte{'*'}) > 6 {
			return // larger inputs, and bombs, find nothing that smaller ones do not
		}
		s, err := document.Read("f", data)
		if err != nil {
			return
		}
		for i, d := range s.Documents() {
			e, err := d.Edit(func(root *yaml.Node) error { return alter(root, op, int(number)) })
			if err != nil {
				continue
			}
			docs := slices.Clone(s.Documents())
			docs[i] = e
			out := s.With(docs...).Bytes()
			again, err := document.Read("again", out)
			if err != nil && e.ID() != d.ID() {
				continue // it is another document now, which may be there, or none
			}
			if err != nil {
				t.Fatalf("%q is written as %q: %v", data, out, err)
			}
			if len(again.Documents()) != len(docs) || !again.Documents()[i].Same(e) {
				t.Fatalf("%q, changed by %d at %d, comes back as another document: %q", data, op, number, out)
			}
			same, err := again.Documents()[i].Edit(func(*yaml.Node) error { return nil })
			if err != nil {
				t.Fatalf("%q cannot be written again: %v", out, err)
			}
			docs = slices.Clone(again.Documents())
			docs[i] = same
			if second := again.With(docs...).Bytes(); !bytes.Equal(second, out) {
				t.Fatalf("%q is written as %q, and that as %q", data, out, second)
			}
		}
	})
}

// alter sets, adds or deletes the entry with a number, of all in the document.
func alter(root *yaml.Node, op byte, number int) error {
	var in []*yaml.Node
	var places []int
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		step := 1
		if n.Kind == yaml.MappingNode {
			step = 2
		}
		for i := 0; i+step <= len(n.Content); i += step {
			in, places = append(in, n), append(places, i)
			walk(n.Content[i+step-1])
		}
	}
	walk(root)
	if len(in) == 0 || bytes.Contains([]byte(document.OneLine(root)), []byte("zz")) {
		return nil
	}
	n, i := in[number%len(in)], places[number%len(in)]
	value := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "zzz"}
	entry := []*yaml.Node{value}
	if n.Kind == yaml.MappingNode {
		entry = []*yaml.Node{{Kind: yaml.ScalarNode, Tag: "!!str", Value: "zz"}, value}
	}
	end := i + len(entry)
	switch op % 4 {
	case 0:
		n.Content[end-1] = value
	case 1:
		n.Content = slices.Insert(n.Content, i, entry...)
	case 2:
		n.Content = slices.Delete(n.Content, i, end)
	case 3:
		entry[len(entry)-1] = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{entry[0], value}}
		n.Content = append(n.Content, entry...)
	}
	return nil
}
