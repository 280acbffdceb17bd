package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// cursor is a place in a document: a value, or the absence of one. Reading a
// value of the wrong type adds a mistake to the input and gives the zero value,
// so that a caller goes on to find the other mistakes.
type cursor struct {
	in     *input
	node   *yaml.Node // nil: the field is absent
	line   int        // of the field's name or of the list entry
	path   string     // such as "encryption.keys[0]"
	main   bool       // inside the main document, where fewer fields exist
	hidden bool       // names of unknown fields may be a passphrase: do not show them
}

// at returns a cursor to the node, seen through an alias.
func (c cursor) at(n *yaml.Node, line int, path string) cursor {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	c.node, c.line, c.path = n, line, path
	return c
}

func (c cursor) position() Position { return Position{File: c.in.Name, Line: c.line} }

func (c cursor) fail(problem, fix string) { c.in.Fail(c.line, c.path, problem, fix) }

// failWith reports an error whose text has the problem and, behind a semicolon, the
// way out.
func (c cursor) failWith(err error) {
	problem, fix, _ := strings.Cut(err.Error(), "; ")
	c.fail(problem, fix)
}

// named reports a document without a name, or of another version than ours.
func (c cursor) named() {
	c.field("apiVersion").mustBe(apiVersion)
	name := c.field("name")
	if text, ok := name.text(); ok && text == "" {
		name.fail("is missing", "name the document")
	}
}

// exists reports whether there is a value; null is none.
func (c cursor) exists() bool {
	return c.node != nil && (c.node.Kind != yaml.ScalarNode || c.node.ShortTag() != "!!null")
}

// mapping reports whether the value is a mapping whose fields can be read.
func (c cursor) mapping() bool {
	if c.node == nil || c.node.Kind != yaml.MappingNode {
		c.fail("is "+c.what()+", not a mapping", "write it as field: value")
		return false
	}
	for i := 0; i < len(c.node.Content); i += 2 {
		if k := c.node.Content[i]; k.ShortTag() == "!!merge" {
			// The fields behind it would be overlooked.
			c.in.Fail(k.Line, c.path, "merge key << is not supported here", "write the fields out")
			return false
		}
	}
	return true
}

// field returns the value of a field, which may be absent. Of a field that is
// there twice it is the first; duplicates reports the other.
func (c cursor) field(name string) cursor {
	if c.node != nil && c.node.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(c.node.Content); i += 2 {
			if k := c.node.Content[i]; nameOf(k) == name {
				return c.at(c.node.Content[i+1], k.Line, join(c.path, name))
			}
		}
	}
	c.node, c.path = nil, join(c.path, name)
	return c
}

// fields reports whether the value is a mapping, and every field that is
// neither known nor, outside the main document, one of newer.
func (c cursor) fields(known []string, newer ...string) bool {
	if !c.mapping() {
		return false
	}
	all := slices.Concat(known, newer)
	for i := 0; i < len(c.node.Content) && !c.in.Dropped(); i += 2 {
		k := c.node.Content[i]
		name := nameOf(k)
		switch {
		case slices.Contains(known, name) || !c.main && slices.Contains(newer, name):
		case slices.Contains(newer, name):
			c.in.Fail(k.Line, join(c.path, name), "unknown field in machine.systemDiskEncryption",
				"move the encryption to a VolumeConfig document, which has it")
		case c.main:
			c.unknown(k, known)
		default:
			c.unknown(k, all)
		}
	}
	return true
}

// unknown reports one field that is none of the known ones.
func (c cursor) unknown(k *yaml.Node, known []string) {
	name, fix := nameOf(k), "there are no fields here"
	near := nearest(name, known)
	switch {
	case near != "":
		fix = "did you mean " + near + "?"
	case len(known) == 1:
		fix = "the only field here is " + known[0]
	case len(known) > 1:
		fix = "the fields here are " + strings.Join(known, ", ")
	}
	if c.hidden && near == "" {
		c.in.Fail(k.Line, c.path, "unknown field", fix)
		return
	}
	c.in.Fail(k.Line, join(c.path, shown(name)), "unknown field", fix)
}

// misspelt reports the fields that look like the named one but are not it. It
// is for mappings whose other fields are passed over: there a misspelt name
// would leave a volume unencrypted.
func (c cursor) misspelt(name string) {
	for i := 0; i < len(c.node.Content) && !c.in.Dropped(); i += 2 {
		k := c.node.Content[i]
		if n := nameOf(k); n != name && nearest(n, []string{name}) != "" {
			c.unknown(k, []string{name})
		}
	}
}

// items returns the entries of a list of at most limit; an absent list has
// none. The unit names the limit in the message.
func (c cursor) items(limit int, unit string) []cursor {
	if !c.exists() {
		return nil
	}
	if c.node.Kind != yaml.SequenceNode {
		c.fail("is "+c.what()+", not a list", "write it as [entry, entry] or as lines that start with -")
		return nil
	}
	nodes := c.node.Content
	if len(nodes) > limit {
		c.in.Fail(nodes[limit].Line, c.path, fmt.Sprintf("has %d entries", len(nodes)),
			fmt.Sprintf("keep at most %d: %s", limit, unit))
		nodes = nodes[:limit]
	}
	out := make([]cursor, len(nodes))
	for i, n := range nodes {
		out[i] = c.at(n, n.Line, c.path+"["+strconv.Itoa(i)+"]")
	}
	return out
}

// text returns a text value; an absent one is "", true. Like Talos it takes an
// unquoted number, bool or date as the text that stands there.
func (c cursor) text() (s string, ok bool) {
	if !c.exists() {
		return "", true
	}
	if c.node.Kind == yaml.ScalarNode {
		switch tag := c.node.ShortTag(); {
		case tag == "!!str", c.node.Style&yaml.TaggedStyle == 0 && tag != "!!merge":
			return c.node.Value, true
		}
	}
	c.fail("is "+c.what()+", not text", "write the text in quotes")
	return "", false
}

// mustBe reports a text that is absent or another one.
func (c cursor) mustBe(want string) {
	got, ok := c.text()
	switch {
	case !ok:
	case !c.exists():
		c.fail("is missing", "write "+c.path+": "+want)
	case got != want:
		c.fail("is not "+want+", the only version there is", "write "+c.path+": "+want)
	}
}

// integer returns a whole number; an absent one is 0, true.
func (c cursor) integer() (n int, ok bool) {
	if !c.exists() {
		return 0, true
	}
	if c.node.Kind != yaml.ScalarNode || c.node.ShortTag() != "!!int" {
		c.fail("is "+c.what()+", not a whole number", "write a number without quotes")
		return 0, false
	}
	if c.node.Decode(&n) != nil {
		c.fail("is not a number that fits into 64 bits", "write a smaller number")
		return 0, false
	}
	return n, true
}

// boolean returns a truth value, false when absent.
func (c cursor) boolean() bool {
	b, _ := c.truth()
	return b
}

// truth returns a truth value, and not ok when absent or something else.
func (c cursor) truth() (b, ok bool) {
	if !c.exists() {
		return false, false
	}
	if c.node.Kind != yaml.ScalarNode || c.node.Decode(&b) != nil {
		c.fail("is "+c.what()+", not a truth value", "write true or false")
		return false, false
	}
	return b, true
}

// empty reports whether the value is absent or a list without entries.
func (c cursor) empty() bool {
	return !c.exists() || c.node.Kind == yaml.SequenceNode && len(c.node.Content) == 0
}

// what names the type of the value without showing it.
func (c cursor) what() string {
	if !c.exists() {
		return "empty"
	}
	return document.What(c.node)
}
