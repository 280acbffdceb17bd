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
// slot or interface, are found by it; that those of both have another order is a
// difference of its own, but for keys, whose order is that of their slots. Of other
// lists the entries between the first and the last difference are held against each
// other in order.
//
// Secrets are shown as package redact shows them unless they are asked for: that one
// changed is seen, its value is not, and neither are the names of fields in it. A
// secret of one version is hidden in the other too.
package diff

import (
	"cmp"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/redact"
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
		if err := c.documents(d, now.Find(d.ID())); err != nil {
			return nil, err
		}
	}
	for _, d := range now.Documents() {
		if old.Find(d.ID()) != nil {
			continue
		}
		if err := c.documents(nil, d); err != nil {
			return nil, err
		}
	}
	return c.changes, nil
}

// comparison collects the changes of a document.
type comparison struct {
	options Options
	id      document.ID
	changes []Change
}

// value is a value, and what is shown of it: the same but for secrets, which are one
// scalar there.
type value struct{ plain, shown *yaml.Node }

// documents compares two versions of a document, one of which can be nil.
func (c *comparison) documents(old, now *document.Document) error {
	a, err := copies(old)
	if err != nil {
		return err
	}
	b, err := copies(now)
	switch {
	case err != nil:
		return err
	case c.options.Secrets:
		a.shown, b.shown = a.plain, b.plain
	case old == nil:
		redact.Roots(b.shown)
	case now == nil:
		redact.Roots(a.shown)
	default:
		redact.Roots(a.shown, b.shown)
	}
	switch {
	case old == nil:
		c.id = now.ID()
		c.add(nil, Added, a, b)
	case now == nil:
		c.id = old.ID()
		c.add(nil, Removed, a, b)
	default:
		c.id = old.ID()
		c.values(nil, a, b)
	}
	return nil
}

// copies returns two copies of a document without aliases.
func copies(d *document.Document) (v value, err error) {
	if d == nil {
		return value{}, nil
	}
	if v.plain, err = document.Copy(d.Root()); err == nil {
		v.shown, err = document.Copy(v.plain)
	}
	return v, err
}

func (c *comparison) add(path []string, kind Kind, a, b value) {
	c.changes = append(c.changes, Change{c.id, document.Path(path...), kind, a.text(), b.text()})
}

func (c *comparison) values(path []string, a, b value) {
	switch {
	case document.Equal(a.plain, b.plain):
	case !a.isLike(yaml.MappingNode, b) && !a.isLike(yaml.SequenceNode, b):
		c.add(path, Changed, a, b)
	case a.plain.Kind == yaml.MappingNode:
		c.fields(path, a, b)
	default:
		c.entries(path, a, b)
	}
}

// isLike reports whether both values are of this kind, and shown so.
func (v value) isLike(kind yaml.Kind, o value) bool {
	return v.plain.Kind == kind && v.shown.Kind == kind && o.plain.Kind == kind && o.shown.Kind == kind
}

// at returns what has the number i in a mapping or list.
func (v value) at(i int) value { return value{v.plain.Content[i], v.shown.Content[i]} }

func (c *comparison) fields(path []string, a, b value) {
	here := func(v value, i int) []string {
		return append(slices.Clip(path), document.ShownStep(v.shown.Content[i].Value))
	}
	ours, theirs := placesOf(a.plain), placesOf(b.plain)
	for i := 0; i+1 < len(a.plain.Content); i += 2 {
		if j, both := theirs[a.plain.Content[i].Value]; both {
			c.values(here(a, i), a.at(i+1), b.at(j+1))
			continue
		}
		c.add(here(a, i), Removed, a.at(i+1), value{})
	}
	for i := 0; i+1 < len(b.plain.Content); i += 2 {
		if _, both := ours[b.plain.Content[i].Value]; !both {
			c.add(here(b, i), Added, value{}, b.at(i+1))
		}
	}
}

// placesOf returns the places of the fields of a mapping by their names.
func placesOf(n *yaml.Node) map[string]int {
	out := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = i
	}
	return out
}

// entries compares two lists.
func (c *comparison) entries(path []string, a, b value) {
	if key := keyOf(a.plain, b.plain); key != "" {
		c.named(path, key, a, b)
		return
	}
	old, now := a.plain.Content, b.plain.Content
	start, end := 0, 0
	most := min(len(old), len(now))
	for start < most && document.Equal(old[start], now[start]) {
		start++
	}
	for end < most-start && document.Equal(old[len(old)-1-end], now[len(now)-1-end]) {
		end++
	}
	for i := start; i < max(len(old), len(now))-end; i++ {
		here := append(slices.Clip(path), "["+strconv.Itoa(i)+"]")
		switch was, is := i < len(old)-end, i < len(now)-end; {
		case was && is:
			c.values(here, a.at(i), b.at(i))
		case was:
			c.add(here, Removed, a.at(i), value{})
		case is:
			c.add(here, Added, value{}, b.at(i))
		}
	}
}

// named compares two lists whose entries have names.
func (c *comparison) named(path []string, key string, a, b value) {
	index := func(n *yaml.Node) map[string]int {
		out := make(map[string]int, len(n.Content))
		for i, e := range n.Content {
			out[nameOf(e, key)] = i
		}
		return out
	}
	old, now := index(a.plain), index(b.plain)
	here := func(v value, i int) []string {
		return append(slices.Clip(path), "["+key+"="+document.Shown(nameOf(v.shown.Content[i], key))+"]")
	}
	for i, e := range a.plain.Content {
		if j, both := now[nameOf(e, key)]; both {
			c.values(here(a, i), a.at(i), b.at(j))
			continue
		}
		c.add(here(a, i), Removed, a.at(i), value{})
	}
	for i, e := range b.plain.Content {
		if _, both := old[nameOf(e, key)]; !both {
			c.add(here(b, i), Added, value{}, b.at(i))
		}
	}
	if key != "slot" && reordered(a.plain, key, now) {
		c.add(path, Changed, a.names(key), b.names(key))
	}
}

// reordered reports whether the entries of a list that are in another one too,
// where they have these places, have another order there.
func reordered(list *yaml.Node, key string, places map[string]int) bool {
	last := -1
	for _, e := range list.Content {
		i, both := places[nameOf(e, key)]
		if both && i < last {
			return true
		} else if both {
			last = i
		}
	}
	return false
}

// names returns the names of the entries of a list, as they are shown.
func (v value) names(key string) value {
	out := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	for _, e := range v.shown.Content {
		out.Content = append(out.Content, cmp.Or(document.Field(e, key), e)) // e is hidden
	}
	return value{out, out}
}

// nameOf returns the name of a list entry, which is in the field key.
func nameOf(entry *yaml.Node, key string) string {
	return document.Text(document.Field(entry, key))
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
		name := nameOf(e, key)
		if name == "" || seen[name] {
			return false
		}
		seen[name] = true
	}
	return true
}

// text returns what is shown of a value in one line, "" for none.
func (v value) text() string {
	if v.shown == nil {
		return ""
	}
	return document.OneLine(v.shown)
}
