package patch

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// directive is the field that says what to do with the value that has it.
const directive = "$patch"

// deletion is one $patch: delete.
type deletion struct {
	path  place  // of the value; empty for the document
	key   string // of a list entry: the field that selects it
	value *yaml.Node
	line  int
}

// deletions takes the $patch: delete out of the copy of a document, and the
// mappings and lists that hold nothing else, and returns them in order. It
// reports whether the document is to be left out of the merge.
func (m *merger) deletions(root *yaml.Node) (out []deletion, gone bool) {
	s := scan{merger: m}
	gone = s.node(root, nil, false)
	return s.found, gone || len(s.found) > 0 && identityOnly(root) && (!m.options.Talos || document.Field(root, "apiVersion") == nil)
}

// identityOnly reports whether a document has no field that says anything.
func identityOnly(root *yaml.Node) bool {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if !slices.Contains([]string{"version", "apiVersion", "kind", "name"}, root.Content[i].Value) {
			return false
		}
	}
	return true
}

// maxDeletions bounds the deletions in a document of a patch, each of which goes
// through what it deletes from.
const maxDeletions = 1000

type scan struct {
	*merger
	found []deletion
	full  bool // there are more
}

// node scans a value and reports whether it is to be left out.
func (s *scan) node(n *yaml.Node, path place, entry bool) bool {
	switch n.Kind {
	case yaml.MappingNode:
		if s.full {
			return false
		}
		if i := document.Index(n, directive); i >= 0 {
			s.delete(n, i, path, entry)
			return true
		}
		return s.children(n, path, 2)
	case yaml.SequenceNode:
		return s.children(n, path, 1)
	}
	return false
}

// children scans the values of a mapping (step 2) or list (step 1) and reports
// whether nothing is left.
func (s *scan) children(n *yaml.Node, path place, step int) bool {
	removed, number := false, 0
	for i := 0; i+step <= len(n.Content); {
		here := path.entry(number)
		if step == 2 {
			here = path.field(n.Content[i].Value)
		}
		number++
		if !s.node(n.Content[i+step-1], here, step == 1) {
			i += step
			continue
		}
		n.Content = slices.Delete(n.Content, i, i+step)
		removed = true
	}
	return removed && len(n.Content) == 0
}

// delete notes what the directive in field i of the mapping n asks for.
func (s *scan) delete(n *yaml.Node, i int, path place, entry bool) {
	if s.full = len(s.found) == maxDeletions; s.full {
		s.fail(n.Content[i], path, "there are more than "+strconv.Itoa(maxDeletions)+" deletions", "delete what is above them")
		return
	}
	d := deletion{path: path, line: n.Content[i].Line}
	above := path
	if entry {
		above = path[:len(path)-1]
	}
	// Talos takes every name that starts with [ for an entry.
	bracket := func(p step) bool { return p.entry || s.options.Talos && strings.HasPrefix(p.name, "[") }
	switch {
	case document.Text(n.Content[i+1]) != "delete":
		s.fail(n.Content[i], path, "$patch is not delete, the only one there is", "write $patch: delete, or remove it")
		return
	case slices.ContainsFunc(above, bracket):
		s.fail(n.Content[i], path, "$patch: delete inside of a list entry is not possible", "delete the entry as a whole, and add what shall stay of it")
		return
	case entry && len(n.Content) == 2:
		s.fail(n.Content[i], path, "the entry to delete is not named", "write a field that it has in front of $patch: delete, such as its name or slot")
		return
	case entry:
		at := 0
		if i == 0 {
			at = 2
		}
		d.key, d.value = n.Content[at].Value, n.Content[at+1]
	}
	s.found = append(s.found, d)
}

// delete deletes what d names from the document root.
func (m *merger) delete(root *yaml.Node, d deletion) {
	here, s := root, m.types.root(m.kind)
	last := len(d.path) - 1
	for i, step := range d.path {
		name := step.name
		switch {
		case step.entry:
			m.deleteEntry(here, s, d)
			return
		case i == last:
			m.deleteField(here, s, name, d)
			return
		}
		if s = m.types.field(s, name); m.options.Talos && strings.HasPrefix(s.name, "x509.") {
			m.missing(d) // Talos finds no fields by name in these
			return
		}
		next := document.Field(here, name)
		if document.IsNull(next) && s.class == structure && !s.pointer {
			next = &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
		}
		if document.IsNull(next) {
			m.missing(d)
			return
		}
		here = next
	}
}

func (m *merger) missing(d deletion) {
	m.in.Fail(d.line, d.path.String(), "there is nothing to delete in the configuration", "check the path, or leave it out of the patch")
}

// deleteField deletes a field. Like Talos it does not mind when a field that the
// mapping could have is absent.
func (m *merger) deleteField(n *yaml.Node, s shape, name string, d deletion) {
	_, known := m.types.fields[s.name][name]
	if !remove(n, name) && !known {
		m.missing(d)
	}
}

// keepMain sees to it that the main document can be told to be one, even when
// all of it was deleted.
func (m *merger) keepMain(root *yaml.Node) {
	for _, name := range []string{"machine", "cluster", "debug", "persist"} {
		if m.kind != document.Main || document.Index(root, name) >= 0 {
			return
		}
	}
	root.Content = append(root.Content, textNode("machine"), &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null"})
}

// deleteEntry deletes the first entry of a list that d selects.
func (m *merger) deleteEntry(n *yaml.Node, s shape, d deletion) {
	elem := shape{}
	if s.elem != nil {
		elem = *s.elem
	}
	if n.Kind == yaml.SequenceNode {
		for i, e := range n.Content {
			if m.selects(document.Field(e, d.key), d.value, elem, d.key) {
				n.Content = slices.Delete(n.Content, i, i+1)
				return
			}
		}
	}
	key := "field"
	if path := d.path.field(d.key).names(); len(document.Visible(path)) == len(path) {
		key = document.Shown(d.key)
	}
	m.in.Fail(d.line, d.path.String(), "there is no entry with this "+key+" to delete in the configuration",
		"check the value, or leave it out of the patch")
}

// selects reports whether the field of an entry is the one that is asked for.
// Talos compares texts, and knows none of a number or truth value, so that it
// finds no key by its slot.
func (m *merger) selects(have, want *yaml.Node, elem shape, key string) bool {
	if m.options.Talos {
		f, known := m.types.fields[elem.name][key]
		if !known || f.class == number || f.class == truth || f.pointer && f.class != address {
			return false
		}
		return document.Text(have) == document.Text(want) && want.Kind == yaml.ScalarNode
	}
	if x, ok := numberOf(want); ok && !document.IsNull(want) {
		y, ok := numberOf(have)
		return ok && x == y && (have != nil || key == "slot")
	}
	return document.Text(want) != "" && document.Text(have) == document.Text(want)
}
