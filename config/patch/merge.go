package patch

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// maxPairs bounds the comparisons of the entries of two lists.
const maxPairs = 10_000_000

// merger merges one document of a patch into one of the configuration. Both are
// copies without aliases; parts of the patch become parts of the result.
type merger struct {
	options Options
	types   *types
	kind    string
	in      *document.Report // of the patch
	broken  document.Errors  // of the configuration
	inKey   bool             // the values are in a key of an encryption
}

// fail reports a mistake at a node of the patch.
func (m *merger) fail(n *yaml.Node, path place, problem, fix string) {
	m.in.Fail(n.Line, path.String(), problem, fix)
}

// fields merges the fields of a mapping.
func (m *merger) fields(left, right *yaml.Node, s shape, path place) {
	at := make(map[string]int, len(left.Content)/2) // where its value is
	for i := 0; i+1 < len(left.Content); i += 2 {
		if k := left.Content[i]; k.Kind == yaml.ScalarNode {
			at[k.Value] = i + 1
		}
	}
	for i := 0; i+1 < len(right.Content); i += 2 {
		k := right.Content[i]
		there, ok := at[k.Value]
		if !ok {
			there = -1
		}
		if m.field(left, there, k, right.Content[i+1], s, path.field(k.Value)) {
			at[k.Value] = len(left.Content) - 1
		}
	}
	if s.class == structure && m.options.Talos {
		m.absent(left, right, s, path)
	}
}

// absent does what Talos does with fields that the patch does not have.
func (m *merger) absent(left, right *yaml.Node, s shape, path place) {
	for _, name := range m.types.order[s.name] {
		f := m.types.fields[s.name][name]
		here := path.field(name)
		switch missing := document.IsNull(document.Field(right, name)); {
		case f.class == fixed && !f.pointer:
			m.fail(right, here, "Talos 1.13 fails to merge what has this field", "replace the document, or do not ask for Talos' rules")
			return
		case !missing:
		case f.forced:
			remove(left, name)
		case f.class == structure && !f.pointer:
			if l := document.Field(left, name); !document.IsNull(l) {
				m.fields(l, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: right.Line}, f, here)
			}
		}
	}
}

// field merges one field of the patch into the mapping of type in, which has its
// value at i, or not (-1). It reports whether the mapping has one field more.
func (m *merger) field(left *yaml.Node, i int, key, right *yaml.Node, in shape, path place) bool {
	s := m.types.field(in, key.Value)
	if i >= 0 && !document.IsNull(left.Content[i]) {
		old := left.Content[i]
		left.Content[i] = m.value(old, right, s, path)
		if now := left.Content[i]; now != old && now.Kind == yaml.ScalarNode && now.LineComment == "" {
			now.LineComment = old.LineComment
		}
		return false
	}
	if in.class == structure && scalar(s.class) && !s.pointer && m.isEmpty(right, s) {
		return false
	}
	value := m.first(right, s, path)
	if i >= 0 {
		left.Content[i] = value
		return false
	}
	if len(left.Content) == 0 {
		left.Style &^= yaml.FlowStyle // of an empty {}
	}
	left.Content = append(left.Content, key, value)
	return true
}

// first returns what a field becomes that was absent or null.
func (m *merger) first(right *yaml.Node, s shape, path place) *yaml.Node {
	switch {
	case right.Kind == yaml.SequenceNode && s.class == list && m.keyed(path):
		left := *right
		left.Content, left.Line = nil, 0
		return m.value(&left, right, s, path)
	case s.class == structure && !s.pointer && right.Kind == yaml.MappingNode:
		left := *right
		left.Content = nil
		m.fields(&left, right, s, path)
		left.Style, left.Line = right.Style, 0
		return &left
	}
	return right
}

// scalar reports whether values of the class are one text.
func scalar(c class) bool {
	return c == text || c == number || c == truth || c == word || c == address || c == size || c == fixed
}

// value returns what two values become.
func (m *merger) value(left, right *yaml.Node, s shape, path place) *yaml.Node {
	if s.class == argument {
		return right
	}
	if document.IsNull(right) {
		return m.null(left, right, s, path)
	}
	if s.replace && !(s.class != list && right.Kind == yaml.MappingNode && len(right.Content) == 0) {
		return right
	}
	switch {
	case left.Kind != right.Kind:
		if s.class == fixed {
			return right
		}
		m.fail(right, path, "is "+document.What(right)+", but the configuration has "+document.What(left), "write the same type, or delete the field first")
	case right.Kind == yaml.MappingNode:
		m.fields(left, right, s, path)
	case right.Kind == yaml.SequenceNode && m.inKey:
		return right // two lists of registers, or of servers, make none that was meant
	case right.Kind == yaml.SequenceNode:
		m.entries(left, right, s, path)
	default:
		return m.scalar(left, right, s, path)
	}
	return left
}

// null returns what null does to a value: nothing, as if it were absent.
func (m *merger) null(left, right *yaml.Node, s shape, path place) *yaml.Node {
	if m.options.Talos && s.class == anything {
		m.fail(right, path, "is null, at which Talos 1.13 crashes", "write $patch: delete to remove the field")
	}
	return left
}

// scalar returns what two scalars become.
func (m *merger) scalar(left, right *yaml.Node, s shape, path place) *yaml.Node {
	if s.class == anything || s.class == unknown {
		if left.ShortTag() != right.ShortTag() && s.class == anything {
			m.fail(right, path, "is "+document.What(right)+", but the configuration has "+document.What(left), "write the same type, or delete the field first")
			return left
		}
	}
	if !s.pointer && !s.forced && m.isEmpty(right, s) {
		return left
	}
	if m.options.Talos {
		return m.talosScalar(left, right, s, path)
	}
	return right
}

// isEmpty reports whether a scalar is what a field is when nothing is said.
func (m *merger) isEmpty(n *yaml.Node, s shape) bool {
	if document.IsNull(n) {
		return true
	}
	switch s.class {
	case truth:
		return false
	case number:
		return isZero(n.Value)
	case word:
		return n.Value == "" || m.options.Talos && strings.EqualFold(n.Value, s.empty)
	case anything:
		switch n.ShortTag() {
		case "!!int", "!!float":
			return isZero(n.Value)
		case "!!bool":
			return false
		}
	}
	return n.Value == ""
}

// isZero reports whether a number or duration is 0.
func isZero(s string) bool {
	if i, err := strconv.ParseInt(s, 0, 64); err == nil {
		return i == 0
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		return f == 0
	}
	d, err := time.ParseDuration(s)
	return s == "" || err == nil && d == 0
}

// entries merges the entries of a list into another.
func (m *merger) entries(left, right *yaml.Node, s shape, path place) {
	r, keyed := m.ruleFor(path)
	if keyed && (len(left.Content)+len(right.Content))*len(right.Content) > maxPairs {
		m.fail(right, path, "has too many entries to find those that are meant", "check that this is the right file")
		return
	}
	if keyed && r.by[0] == "slot" && m.slotTwice(right, path) {
		return
	}
	if left.Content == nil && len(right.Content) > 0 {
		left.Style = right.Style
	}
	elem := shape{}
	if s.elem != nil {
		elem = *s.elem
	}
	before := len(left.Content)
	for i, entry := range right.Content {
		at := -1
		if keyed {
			known := left.Content
			if r.replace {
				known = known[:before] // Talos looks at what was there first
			}
			at = m.find(r, known, entry)
		}
		switch here := path.entry(i); {
		case at < 0:
			left.Content = append(left.Content, entry)
		case r.replace:
			left.Content[at] = entry
		case entry.Kind == yaml.MappingNode:
			if m.inKey = r.by[0] == "slot"; m.inKey {
				dropKind(left.Content[at], entry)
			}
			m.fields(left.Content[at], entry, elem, here)
			m.inKey = false
		}
	}
}

// slotTwice reports a patch that has two keys for one slot: it cannot mean both.
func (m *merger) slotTwice(n *yaml.Node, path place) bool {
	first := make(map[int64]int)
	for i, e := range n.Content {
		slot, ok := numberOf(document.Field(e, "slot"))
		if line, twice := first[slot]; ok && twice {
			m.fail(e, path.entry(i),
				"slot "+strconv.FormatInt(slot, 10)+" is there twice, first on line "+strconv.Itoa(line), "give each key a slot of its own")
			return true
		}
		first[slot] = e.Line
	}
	return false
}

// find returns the place of the entry that a patch is about, -1 for none. Where
// entries are replaced, Talos takes the last of several.
func (m *merger) find(r rule, entries []*yaml.Node, patch *yaml.Node) int {
	found := -1
	for i, e := range entries {
		if e.Kind == yaml.MappingNode && m.same(r, e, patch) {
			if found = i; !r.replace {
				break
			}
		}
	}
	return found
}

// dropKind removes the kind of a key that gets another one: a key has one.
func dropKind(left, right *yaml.Node) {
	kinds := []string{"static", "nodeID", "kms", "tpm"}
	has := func(kind string) bool { return !document.IsNull(document.Field(right, kind)) }
	if !slices.ContainsFunc(kinds, has) {
		return
	}
	for _, kind := range kinds {
		if !has(kind) {
			remove(left, kind)
		}
	}
}

// remove removes a field and reports whether it was there.
func remove(n *yaml.Node, name string) bool {
	i := document.Index(n, name)
	if i < 0 {
		return false
	}
	n.Content = slices.Delete(n.Content, i, i+2)
	return true
}
