package document

import (
	"errors"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v4"
)

// errEncode is the error of YAML that the encoder cannot write.
var errEncode = errors.New("has YAML that cannot be written again; write it more plainly")

// encode makes the text of a document: that of the one it was made of, with its
// changes. What is written is read again: a text that would not come back as it
// was is written as a whole, and plainly.
func (d *Document) encode() error {
	indent, compact := style(d.origin().Root())
	plain, err := Copy(d.node)
	if err != nil {
		return err
	}
	text, ok := d.splice(plain, indent, compact)
	if !ok {
		if text, ok = dumpSafely(plain, indent, compact); ends(d.origin().text) {
			text = append(text, "...\n"...) // which a directive behind it needs
		}
	}
	if !ok {
		return fmt.Errorf("document %s on line %d %w", d.ID(), d.Line(), errEncode)
	}
	d.text = text
	return nil
}

// dumpSafely writes a document, and leaves out its comments and styles when it
// does not come back with them.
func dumpSafely(n *yaml.Node, indent int, compact bool) ([]byte, bool) {
	for _, change := range []func(*yaml.Node){func(*yaml.Node) {}, uncomment, strip, quote} {
		change(n)
		if out, ok := dump(n, indent, compact); ok {
			return out, true
		}
	}
	return nil, false
}

// dump writes a document and reports whether it comes back. The encoder changes
// what it is given, so that it gets a copy.
func dump(n *yaml.Node, indent int, compact bool) ([]byte, bool) {
	dumped, err := Copy(n)
	if err != nil {
		return nil, false
	}
	spell(dumped, false)
	out, err := yaml.Dump(dumped, yaml.WithV4Defaults(), yaml.WithIndent(indent), yaml.WithCompactSeqIndent(compact),
		yaml.WithLineWidth(-1))
	if err != nil {
		return nil, false
	}
	return out, back(out, n)
}

// back reports whether a text is read as the document.
func back(text []byte, n *yaml.Node) bool {
	var in Report
	again := decode(&in, text, 0)
	return !in.Failed() && plainLines(&in, text) && len(again) == 1 && len(split(text)) == 1 && Equal(again[0], n)
}

// style returns how a document is indented: the blanks of its first mapping in
// a mapping, and whether its lists are not indented at all.
func style(root *yaml.Node) (indent int, compact bool) {
	var lists, flat int
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			if len(v.Content) == 0 || v.Style&yaml.FlowStyle != 0 || v.Line <= k.Line {
				continue
			}
			switch {
			case v.Kind == yaml.MappingNode && indent == 0:
				indent = v.Column - k.Column
			case v.Kind == yaml.SequenceNode:
				if lists++; v.Column == k.Column {
					flat++
				}
			}
			walk(v)
		}
		for i := 0; i < len(n.Content) && n.Kind == yaml.SequenceNode; i++ {
			walk(n.Content[i])
		}
	}
	walk(root)
	if indent < 2 || indent > 9 {
		indent = 2
	}
	return indent, 2*flat > lists
}

// each calls f for the value and all in it.
func each(n *yaml.Node, f func(*yaml.Node)) {
	f(n)
	for _, child := range n.Content {
		each(child, f)
	}
}

// uncomment removes comments, which the encoder writes into flow style where
// they swallow what follows.
func uncomment(n *yaml.Node) {
	each(n, func(n *yaml.Node) { n.HeadComment, n.LineComment, n.FootComment = "", "", "" })
}

// strip removes the styles of texts as well.
func strip(n *yaml.Node) {
	uncomment(n)
	each(n, func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			n.Style &^= yaml.LiteralStyle | yaml.FoldedStyle | yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle
		}
	})
}

// quote writes each text in double quotes, which can hold anything.
func quote(n *yaml.Node) {
	each(n, func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
			n.Style |= yaml.DoubleQuotedStyle
		}
	})
}

// spell writes out the nulls that are in flow style without a text, which the
// encoder would write as empty texts.
func spell(n *yaml.Node, flow bool) {
	if flow = flow || n.Style&yaml.FlowStyle != 0; flow && IsNull(n) && n.Value == "" {
		n.Value, n.Tag = "null", "!!null"
	}
	for _, child := range n.Content {
		spell(child, flow)
	}
}

// Equal reports whether two values are the same, whatever their style, position
// and comments. Aliases are equal when their names are.
func Equal(a, b *yaml.Node) bool {
	if IsNull(a) && IsNull(b) {
		return true
	}
	if a.Kind != b.Kind || len(a.Content) != len(b.Content) || a.Value != b.Value {
		return false
	}
	if a.Kind == yaml.ScalarNode && a.ShortTag() != b.ShortTag() {
		return false
	}
	for i := range a.Content {
		if !Equal(a.Content[i], b.Content[i]) {
			return false
		}
	}
	return true
}

// OneLine returns a value as YAML in one line, without comments. It has no
// aliases.
func OneLine(n *yaml.Node) string {
	flow, err := Copy(n)
	if err != nil {
		return "..."
	}
	strip(flow)
	each(flow, func(n *yaml.Node) {
		switch {
		case n.Kind != yaml.ScalarNode:
			n.Style |= yaml.FlowStyle
		case strings.ContainsAny(n.Value, "\n\r"):
			n.Style |= yaml.DoubleQuotedStyle
		}
	})
	spell(flow, true)
	out, err := yaml.Dump(flow, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err != nil {
		return "..."
	}
	return strings.TrimRight(string(out), "\n")
}
