package document

import (
	"strings"

	"go.yaml.in/yaml/v4"
)

// Main is the kind of the main document, which names none and has machine and
// cluster.
const Main = "v1alpha1"

// ID is what a document is recognised by.
type ID struct {
	APIVersion string // "" in the main document
	Kind       string // [Main] in the main document
	Name       string // "" in kinds of which there is one
}

// String returns the identity as "v1alpha1/VolumeConfig/EPHEMERAL", and Main for
// the main document.
func (id ID) String() string {
	s := Shown(id.Kind)
	if id.APIVersion != "" {
		s = Shown(id.APIVersion) + "/" + s
	}
	if id.Name != "" {
		s += "/" + Shown(id.Name)
	}
	return s
}

// Document is one document of a configuration. It does not change.
type Document struct {
	node  *yaml.Node // of yaml.DocumentNode
	file  string     // it was read from
	from  *Document  // it was edited from; nil otherwise
	text  []byte     // as it was read, or is written when it was edited or made
	lines int        // in the source in front of its text
}

// New returns a document of its own with the root, which it keeps. It fails when
// the root cannot be written as YAML.
func New(root *yaml.Node) (*Document, error) {
	d := &Document{node: &yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{root}, Line: root.Line}}
	return d, d.encode()
}

// Root returns the mapping of the document. It must not be changed.
func (d *Document) Root() *yaml.Node { return d.node.Content[0] }

// Line returns the line on which the document starts.
func (d *Document) Line() int { return d.Root().Line }

// File returns the name of the source, "" for a document of [New].
func (d *Document) File() string { return d.file }

// ID returns what the document is recognised by.
func (d *Document) ID() ID { return IDOf(d.Root()) }

// IDOf returns what a document with this root is recognised by.
func IDOf(root *yaml.Node) ID {
	id := ID{Text(Field(root, "apiVersion")), Text(Field(root, "kind")), Text(Field(root, "name"))}
	if id.Kind == "" {
		return ID{Kind: Main}
	}
	return id
}

// Edit returns a changed copy: change gets the root of a copy without anchors
// and aliases, and may change all of it. What change returns is returned, and no
// document with an error. An alias that cannot be resolved within [MaxNodes] is
// an error, and so is YAML that does not come back when it is written.
func (d *Document) Edit(change func(root *yaml.Node) error) (*Document, error) {
	node, err := Copy(d.node)
	if err != nil {
		return nil, err
	}
	if err := change(node.Content[0]); err != nil {
		return nil, err
	}
	out := &Document{node: node, file: d.file, from: d}
	if err := out.encode(); err != nil {
		return nil, err
	}
	return out, nil
}

// Same reports whether both documents have the same values, aliases resolved.
func (d *Document) Same(o *Document) bool {
	a, err := Copy(d.node)
	if err != nil {
		return false
	}
	b, err := Copy(o.node)
	return err == nil && Equal(a, b)
}

// origin returns the document that was read.
func (d *Document) origin() *Document {
	for d.from != nil {
		d = d.from
	}
	return d
}

// Check reports what makes a root that of no document of a configuration.
func Check(in *Report, root *yaml.Node) {
	if root.Kind != yaml.MappingNode {
		in.Fail(root.Line, "", "is "+What(root)+", not a mapping", "write it as field: value")
		return
	}
	for _, name := range []string{"apiVersion", "kind", "name"} {
		n := Field(root, name)
		if n != nil && n.Kind != yaml.ScalarNode {
			in.Fail(n.Line, name, "is "+What(n)+", not text", "write the text in quotes")
			return
		}
	}
	kind, version := Field(root, "kind"), Field(root, "apiVersion")
	switch {
	case !IsNull(kind) && Text(kind) == "": // which one reader takes for the main document, and another for none it knows
		in.Fail(kind.Line, "kind", "is empty", "write the document's kind, such as VolumeConfig; the main document has none")
	case Text(kind) == "" && Text(version) != "":
		in.Fail(root.Line, "kind", "is missing", "write the document's kind, such as VolumeConfig")
	case Text(kind) != "" && Text(version) == "":
		in.Fail(root.Line, "apiVersion", "is missing", "write apiVersion: v1alpha1")
	}
}

// What names the type of a value without showing it.
func What(n *yaml.Node) string {
	switch {
	case IsNull(n):
		return "empty"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.AliasNode:
		return What(n.Alias)
	}
	switch tag := n.ShortTag(); tag {
	case "!!int":
		return "a number"
	case "!!float":
		return "a decimal or too large number"
	case "!!bool":
		return "a truth value"
	case "!!str":
		return "text"
	}
	return "a value of another type"
}

// Path returns the path of a place in a document, such as
// "encryption.keys[0].slot", of the names of its fields and the numbers of its
// list entries, which start with "[".
func Path(steps ...string) string {
	var b strings.Builder
	for _, s := range steps {
		if !strings.HasPrefix(s, "[") && b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(s)
	}
	return b.String()
}
