// Package diff says what is different between two machine configurations, by
// document and path:
//
//	v1alpha1                            machine.network.hostname   changed  w1 -> w2
//	v1alpha1                            machine.sysctls["vm.max"]  added    "1"
//	v1alpha1/VolumeConfig/STATE         encryption.keys[slot=1]    removed  {slot: 1, nodeID: {}}
//	v1alpha1/UserVolumeConfig/data                                 added    {provisioning: ...}
//
// The order of fields and of documents, comments and styles are no difference;
// aliases are what they stand for. Entries of a list that have a name, such as
// slot or interface, are found by it; of other lists the entries between the
// first and the last difference are held against each other in order.
//
// Secrets are shown as [secret.Placeholder] unless they are asked for: that one
// changed is seen, its value is not.
package diff

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/redact"
	"github.com/cryptctl/cryptctl/secret"
)

// Kind is what happened to a value.
type Kind string

// The kinds.
const (
	Added   Kind = "added"
	Removed Kind = "removed"
	Changed Kind = "changed"
)

// Change is one difference.
type Change struct {
	Document document.ID
	Path     string // such as "encryption.keys[slot=1].tpm"; "" = the document
	Kind     Kind
	Old, New string // YAML in one line; "" where there is none
}

// Options are what a difference shows. The zero value hides secrets.
type Options struct {
	Secrets bool // show them
}

// Streams returns the differences from one configuration to another, in the
// order of the former and then of what is new. It fails only for a document
// whose aliases cannot be resolved.
func (o Options) Streams(old, now *document.Stream) ([]Change, error) {
	c := comparison{options: o}
	for _, d := range old.Documents() {
		a, err := document.Copy(d.Root())
		if err != nil {
			return nil, err
		}
		c.id = d.ID()
		other := now.Find(c.id)
		if other == nil {
			c.add(nil, nil, Removed, a, nil)
			continue
		}
		b, err := document.Copy(other.Root())
		if err != nil {
			return nil, err
		}
		c.values(nil, nil, a, b)
	}
	for _, d := range now.Documents() {
		if c.id = d.ID(); old.Find(c.id) != nil {
			continue
		}
		b, err := document.Copy(d.Root())
		if err != nil {
			return nil, err
		}
		c.add(nil, nil, Added, nil, b)
	}
	return c.changes, nil
}

// comparison collects the changes of a document. Each place has two paths: that
// of names, by which secrets are known, and that which is shown.
type comparison struct {
	options Options
	id      document.ID
	changes []Change
}

func (c *comparison) add(names, shown []string, kind Kind, a, b *yaml.Node) {
	c.changes = append(c.changes, Change{c.id, document.Path(shown...), kind, c.text(names, a), c.text(names, b)})
}

func (c *comparison) values(names, shown []string, a, b *yaml.Node) {
	switch {
	case document.Equal(a, b):
	case a.Kind != b.Kind || a.Kind == yaml.ScalarNode:
		c.add(names, shown, Changed, a, b)
	case a.Kind == yaml.MappingNode:
		c.fields(names, shown, a, b)
	default:
		c.entries(names, shown, a, b)
	}
}

func (c *comparison) fields(names, shown []string, a, b *yaml.Node) {
	theirs := fieldsOf(b)
	for i := 0; i+1 < len(a.Content); i += 2 {
		name := a.Content[i].Value
		path, here := append(slices.Clip(names), name), append(slices.Clip(shown), c.step(names, name))
		if other := theirs[name]; other != nil {
			c.values(path, here, a.Content[i+1], other)
			continue
		}
		c.add(path, here, Removed, a.Content[i+1], nil)
	}
	ours := fieldsOf(a)
	for i := 0; i+1 < len(b.Content); i += 2 {
		if name := b.Content[i].Value; ours[name] == nil {
			c.add(append(slices.Clip(names), name), append(slices.Clip(shown), c.step(names, name)), Added, nil, b.Content[i+1])
		}
	}
}

func fieldsOf(n *yaml.Node) map[string]*yaml.Node {
	out := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = n.Content[i+1]
	}
	return out
}

// step returns the name of a field as a path shows it. Inside of static it could
// be a passphrase that lost its field.
func (c *comparison) step(names []string, name string) string {
	if n := len(names); n > 0 && names[n-1] == "static" && name != "passphrase" && !c.options.Secrets {
		return secret.Placeholder
	}
	if name == "" || strings.ContainsAny(name, ".[]\"") {
		return "[" + strconv.Quote(name) + "]"
	}
	return document.Shown(name)
}

// entries compares two lists.
func (c *comparison) entries(names, shown []string, a, b *yaml.Node) {
	path := append(slices.Clip(names), "[]")
	if key := keyOf(a, b); key != "" {
		c.named(path, shown, key, a, b)
		return
	}
	start, end := 0, 0
	most := min(len(a.Content), len(b.Content))
	for start < most && document.Equal(a.Content[start], b.Content[start]) {
		start++
	}
	for end < most-start && document.Equal(a.Content[len(a.Content)-1-end], b.Content[len(b.Content)-1-end]) {
		end++
	}
	for i := start; i < max(len(a.Content), len(b.Content))-end; i++ {
		here := append(slices.Clip(shown), "["+strconv.Itoa(i)+"]")
		switch old, now := i < len(a.Content)-end, i < len(b.Content)-end; {
		case old && now:
			c.values(path, here, a.Content[i], b.Content[i])
		case old:
			c.add(path, here, Removed, a.Content[i], nil)
		case now:
			c.add(path, here, Added, nil, b.Content[i])
		}
	}
}

// named compares two lists whose entries have names.
func (c *comparison) named(path, shown []string, key string, a, b *yaml.Node) {
	index := func(n *yaml.Node) map[string]*yaml.Node {
		out := make(map[string]*yaml.Node, len(n.Content))
		for _, e := range n.Content {
			out[document.Text(document.Field(e, key))] = e
		}
		return out
	}
	old, now := index(a), index(b)
	here := func(name string) []string {
		return append(slices.Clip(shown), "["+key+"="+document.Shown(name)+"]")
	}
	for _, e := range a.Content {
		name := document.Text(document.Field(e, key))
		if other := now[name]; other != nil {
			c.values(path, here(name), e, other)
			continue
		}
		c.add(path, here(name), Removed, e, nil)
	}
	for _, e := range b.Content {
		if name := document.Text(document.Field(e, key)); old[name] == nil {
			c.add(path, here(name), Added, nil, e)
		}
	}
}

// keyOf returns the field by which the entries of both lists can be told apart,
// "" when there is none.
func keyOf(a, b *yaml.Node) string {
	for _, key := range []string{"slot", "interface", "vlanId", "mountPath", "name", "path", "image", "destination", "device", "address"} {
		if unique(a, key) && unique(b, key) && len(a.Content)+len(b.Content) > 0 {
			return key
		}
	}
	return ""
}

func unique(n *yaml.Node, key string) bool {
	seen := make(map[string]bool, len(n.Content))
	for _, e := range n.Content {
		name := document.Text(document.Field(e, key))
		if name == "" || seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

// text returns a value in one line.
func (c *comparison) text(names []string, n *yaml.Node) string {
	if n == nil {
		return ""
	}
	n, err := document.Copy(n)
	if err != nil {
		panic("diff: " + err.Error()) // it was copied before
	}
	if !c.options.Secrets {
		redact.Value(names, n)
	}
	return document.OneLine(n)
}
