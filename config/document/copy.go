package document

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// MaxNodes bounds the values of a document whose aliases are resolved.
const MaxNodes = 1_000_000

// errExpands is the error of an alias bomb. It has no line: the aliases are all
// over the document.
var errExpands = fmt.Errorf("its aliases stand for more than %d values; write out what is meant", MaxNodes)

// Copy returns a copy of the node without anchors: each alias is replaced by
// what it stands for, and each merge key << by the fields it stands for. It
// fails when that makes more than [MaxNodes] values, or never ends.
func Copy(n *yaml.Node) (*yaml.Node, error) {
	c := copier{left: MaxNodes}
	out := c.copy(n, 0)
	if c.failed {
		return nil, errExpands
	}
	return out, nil
}

type copier struct {
	left   int
	failed bool
}

// copy copies one value. A document nests no deeper than maxDepth, and an alias
// can add as much again; one to itself has no end.
func (c *copier) copy(n *yaml.Node, depth int) *yaml.Node {
	if c.left--; c.left < 0 || depth > 2*maxDepth {
		c.failed = true
	}
	if c.failed {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null"}
	}
	if n.Kind == yaml.AliasNode {
		out := c.copy(n.Alias, depth+1)
		out.HeadComment, out.LineComment, out.FootComment = n.HeadComment, n.LineComment, n.FootComment
		return out
	}
	out := *n
	out.Anchor, out.Content = "", nil
	if n.Content != nil {
		out.Content = make([]*yaml.Node, 0, len(n.Content))
	}
	if n.Kind == yaml.MappingNode {
		c.fields(&out, n, depth)
		return &out
	}
	for _, child := range n.Content {
		out.Content = append(out.Content, c.copy(child, depth+1))
	}
	return &out
}

// fields copies the fields of a mapping, and those behind its merge key that it
// has not itself (YAML 1.1, "Merge Key Language-Independent Type").
func (c *copier) fields(out, n *yaml.Node, depth int) {
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.ShortTag() != "!!merge" {
			out.Content = append(out.Content, c.copy(k, depth+1), c.copy(v, depth+1))
			continue
		}
		if v = Resolved(v); v.Kind == yaml.SequenceNode {
			merged = append(merged, v.Content...)
			continue
		}
		merged = append(merged, v)
	}
	if merged == nil {
		return
	}
	has := make(map[string]bool)
	for i := 0; i < len(out.Content); i += 2 {
		has[out.Content[i].Value] = true
	}
	for _, m := range merged {
		from := c.copy(m, depth+1)
		if from.Kind != yaml.MappingNode {
			c.failed = true // which Talos' parser refuses as well
			return
		}
		for i := 0; i+1 < len(from.Content); i += 2 {
			if name := from.Content[i].Value; !has[name] {
				has[name] = true
				out.Content = append(out.Content, from.Content[i], from.Content[i+1])
			}
		}
	}
}
