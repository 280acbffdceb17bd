package patch

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// value is a JSON value whose fields have an order. It knows the YAML that it
// was made of.
type value struct {
	kind   yaml.Kind      // of a scalar, sequence or mapping
	text   string         // of a scalar: its JSON
	names  []string       // of a mapping: of its fields, in order
	values []*value       // of a mapping or sequence
	places map[string]int // of the names, made when they are asked for
	node   *yaml.Node
}

// valueOf returns the JSON value of a YAML value without aliases and odd names.
func valueOf(n *yaml.Node) *value {
	v := &value{kind: n.Kind, node: n}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			v.names = append(v.names, n.Content[i].Value)
			v.values = append(v.values, valueOf(n.Content[i+1]))
		}
	case yaml.SequenceNode:
		for _, e := range n.Content {
			v.values = append(v.values, valueOf(e))
		}
	default:
		v.kind, v.text = yaml.ScalarNode, scalarJSON(n)
	}
	return v
}

// scalarJSON returns the JSON of a scalar; what JSON does not have is text.
func scalarJSON(n *yaml.Node) string {
	switch n.ShortTag() {
	case "!!null":
		return "null"
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return strconv.FormatBool(b)
		}
	case "!!int":
		var i int64
		if n.Decode(&i) == nil {
			return strconv.FormatInt(i, 10)
		}
		var u uint64
		if n.Decode(&u) == nil {
			return strconv.FormatUint(u, 10)
		}
	case "!!float":
		var f float64
		if n.Decode(&f) == nil && !math.IsNaN(f) && !math.IsInf(f, 0) {
			return number64(f)
		}
	}
	return quoted(n.Value)
}

func number64(f float64) string {
	out, _ := json.Marshal(f)
	return string(out)
}

func quoted(s string) string {
	out, _ := json.Marshal(s) // of a string, it does not fail
	return string(out)
}

// append appends the JSON text of the value.
func (v *value) append(out []byte) []byte {
	switch v.kind {
	case yaml.MappingNode:
		out = append(out, '{')
		for i, name := range v.names {
			if i > 0 {
				out = append(out, ',')
			}
			out = v.values[i].append(append(append(out, quoted(name)...), ':'))
		}
		return append(out, '}')
	case yaml.SequenceNode:
		out = append(out, '[')
		for i, e := range v.values {
			if i > 0 {
				out = append(out, ',')
			}
			out = e.append(out)
		}
		return append(out, ']')
	}
	return append(out, v.text...)
}

// oddName returns a name of a field in the value that is a list or a mapping, nil
// when there is none.
func oddName(n *yaml.Node) *yaml.Node {
	for i, child := range n.Content {
		if k := document.Resolved(child); n.Kind == yaml.MappingNode && i%2 == 0 && k.Kind != yaml.ScalarNode {
			return child
		}
		if odd := oddName(child); odd != nil {
			return odd
		}
	}
	return nil
}

// parseJSON parses what the patch library wrote; ok is false when it nests too
// deep.
func parseJSON(data []byte) (v *value, ok bool) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return readJSON(d, 0)
}

func readJSON(d *json.Decoder, depth int) (v *value, ok bool) {
	t, err := d.Token()
	if err != nil || depth > maxDepth {
		return nil, false
	}
	v = &value{kind: yaml.ScalarNode}
	switch t := t.(type) {
	case json.Delim:
		v.kind = yaml.SequenceNode
		if t == '{' {
			v.kind = yaml.MappingNode
		}
		for d.More() {
			if v.kind == yaml.MappingNode {
				name, err := d.Token()
				if err != nil {
					return nil, false
				}
				v.names = append(v.names, name.(string))
			}
			e, ok := readJSON(d, depth+1)
			if !ok {
				return nil, false
			}
			v.values = append(v.values, e)
		}
		_, err := d.Token()
		return v, err == nil
	case nil:
		v.text = "null"
	case bool:
		v.text = strconv.FormatBool(t)
	case json.Number:
		v.text = t.String()
	case string:
		v.text = quoted(t)
	}
	return v, true
}

// equal reports whether two values are the same; the order of fields does not
// count.
func (v *value) equal(o *value) bool {
	if v.kind != o.kind || v.text != o.text || len(v.values) != len(o.values) {
		return false
	}
	for i, e := range v.values {
		other := o.values[i]
		if v.kind == yaml.MappingNode && v.names[i] != o.names[i] {
			if other = o.field(v.names[i]); other == nil {
				return false
			}
		}
		if !e.equal(other) {
			return false
		}
	}
	return true
}

func (v *value) field(name string) *value {
	if v.places == nil {
		v.places = make(map[string]int, len(v.names))
		for i, n := range v.names {
			v.places[n] = i
		}
	}
	if i, ok := v.places[name]; ok {
		return v.values[i]
	}
	return nil
}

// yaml returns the value as YAML, with as much of old as is the same: nodes keep
// their style, their comments and their place.
func (v *value) yaml(old *value) *yaml.Node {
	switch {
	case old == nil:
		return v.plain()
	case v.equal(old):
		return old.node
	case v.kind != old.kind || v.kind == yaml.ScalarNode:
		n := v.plain()
		n.HeadComment, n.LineComment, n.FootComment = old.node.HeadComment, old.node.LineComment, old.node.FootComment
		return n
	case v.kind == yaml.SequenceNode:
		return v.list(old)
	}
	n := old.node
	var content []*yaml.Node
	for i, name := range old.names {
		if now := v.field(name); now != nil {
			content = append(content, n.Content[2*i], now.yaml(old.values[i]))
		}
	}
	for i, name := range v.names {
		if old.field(name) == nil {
			content = append(content, textNode(name), v.values[i].plain())
		}
	}
	if len(n.Content) == 0 {
		n.Style &^= yaml.FlowStyle // of {}, to which something was added
	}
	n.Content = content
	return n
}

// list is yaml for lists: the entries that are the same stay, as far as they are
// in order. Those between two of them are held against each other in order.
func (v *value) list(old *value) *yaml.Node {
	n, seed := old.node, maphash.MakeSeed()
	from := document.Align(sums(seed, v.values), sums(seed, old.values))
	stays := make([]bool, len(old.values))
	for _, at := range from {
		if at >= 0 {
			stays[at] = true
		}
	}
	content, next := make([]*yaml.Node, 0, len(v.values)), 0 // of old's entries
	for i, e := range v.values {
		at := from[i]
		if at < 0 && next < len(stays) && !stays[next] {
			at = next
		}
		if at < 0 {
			content = append(content, e.plain())
			continue
		}
		content = append(content, e.yaml(old.values[at]))
		next = at + 1
	}
	if len(n.Content) == 0 {
		n.Style &^= yaml.FlowStyle
	}
	n.Content = content
	return n
}

// sums returns a number for each value, which is that of all that are equal.
func sums(seed maphash.Seed, values []*value) []uint64 {
	out := make([]uint64, len(values))
	for i, v := range values {
		out[i] = v.sum(seed)
	}
	return out
}

// sum is that of sums. It adds up what does not count the order of fields.
func (v *value) sum(seed maphash.Seed) uint64 {
	type part struct {
		kind yaml.Kind // of the value, or of what it is in
		name string
		at   int
		sum  uint64
	}
	total := maphash.Comparable(seed, part{kind: v.kind, name: v.text, at: len(v.values)})
	for i, e := range v.values {
		p := part{kind: v.kind, sum: e.sum(seed)}
		if v.kind == yaml.MappingNode {
			p.name = v.names[i]
		} else {
			p.at = i
		}
		total += maphash.Comparable(seed, p)
	}
	return total
}

// plain returns the value as new YAML.
func (v *value) plain() *yaml.Node {
	n := &yaml.Node{Kind: v.kind}
	switch v.kind {
	case yaml.MappingNode:
		n.Tag = "!!map"
		for i, name := range v.names {
			n.Content = append(n.Content, textNode(name), v.values[i].plain())
		}
	case yaml.SequenceNode:
		n.Tag = "!!seq"
		for _, e := range v.values {
			n.Content = append(n.Content, e.plain())
		}
	default:
		var s string
		if json.Unmarshal([]byte(v.text), &s) == nil && v.text[0] == '"' {
			return textNode(s)
		}
		n.Value = v.text
		n.Tag = tagOf(v.text)
	}
	return n
}

// tagOf returns the tag of a JSON value that is no text.
func tagOf(text string) string {
	switch {
	case text == "null":
		return "!!null"
	case text == "true", text == "false":
		return "!!bool"
	case strings.ContainsAny(text, ".eE"):
		return "!!float"
	}
	return "!!int"
}

// textNode returns a text. One that YAML 1.1 takes for a truth value gets quotes,
// since Talos reads with both versions.
func textNode(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.Contains(s, "\n") {
		n.Style = yaml.LiteralStyle
	}
	if _, truth := oldTruth(s); truth {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

// maxDepth bounds the nesting of what a patch makes, as package document does
// for what is read.
const maxDepth = 100
