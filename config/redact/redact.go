// Package redact removes the secrets from machine configurations, so that they
// can be shown, logged and compared:
//
//	machine:
//	  token: abc.def               -> [secret]
//	  ca:
//	    crt: LS0tLS1CRUdJTi...     stays
//	    key: LS0tLS1CRUdJTi...     -> [secret]
//	  env:
//	    API_KEY: abc               -> [secret]
//	  systemDiskEncryption:
//	    state:
//	      keys:
//	        - slot: 0              stays
//	          static:
//	            passphrase: hunter2  -> [secret]
//
// It guarantees that what Talos 1.13 redacts is gone, and more: what has the name
// of a secret ([document.SecretName]), in documents of every kind, known or not, as
// a field, as a setting such as PASSWORD=x, or as a name with a value beside it;
// private keys in PEM, in base64 too, and passwords and tokens in URLs wherever they
// stand; what
// an alias has in common with a secret; and a text of a secret that stands a second
// time in its document, if it has [minAgain] bytes. A secret goes with all that is in
// it, the names of fields too: a passphrase without quotes can be a mapping, a list,
// a tag or an anchor. All comments and all tags of other kinds than YAML's own go,
// since a field that was taken out of force is one.
//
// What this does not protect: a secret in a text that looks like none, such as the
// content of a file or a manifest. Lengths are not shown.
package redact

import (
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/secret"
)

// minAgain is the length of the shortest text of a secret that is looked for
// elsewhere: those that are shorter cannot be told from other values.
const minAgain = 6

// Stream returns the configuration without its secrets and comments. It fails
// for a document whose aliases cannot be resolved, or that cannot be written.
func Stream(s *document.Stream) (*document.Stream, error) {
	var docs []*document.Document
	for _, d := range s.Documents() {
		root, err := document.Copy(d.Root())
		if err != nil {
			return nil, err
		}
		Roots(root)
		clean, err := document.New(root)
		if err != nil {
			return nil, err
		}
		docs = append(docs, clean)
	}
	return new(document.Stream).With(docs...), nil
}

// Roots removes the secrets and comments from one document, or from several of
// which each may have the secrets of another: two versions of one document. They are
// copies of [document.Copy].
func Roots(roots ...*yaml.Node) {
	k := known{texts: make(map[string]bool), places: make([]map[place]bool, len(roots))}
	for i, root := range roots {
		k.places[i] = make(map[place]bool)
		k.collect(i, root)
	}
	for i, root := range roots {
		k.hideAgain(i, root)
		Value(nil, root)
	}
}

// Value removes the secrets and comments from a value without aliases that stands at
// a path in its document: the names of the fields that lead to it.
func Value(path []string, n *yaml.Node) {
	last := ""
	if len(path) > 0 {
		last = path[len(path)-1]
	}
	if len(document.Visible(path)) < len(path) || document.Secret(last, n) {
		hide(n)
		return
	}
	value(n)
}

// value removes what is a secret inside of a value that is none itself.
func value(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	plainTag(n)
	if document.IsNull(n) && n.Value != "" && !isNull(n) {
		*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null", Line: n.Line, Column: n.Column}
	}
	if n.Kind == yaml.ScalarNode {
		if clean := Text(n.Value); clean != n.Value {
			replace(n, clean)
		}
		return
	}
	if n.Kind != yaml.MappingNode {
		for _, e := range n.Content {
			value(e)
		}
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if isSecret(n, i) {
			hide(n.Content[i+1])
		} else {
			value(n.Content[i+1])
		}
	}
	names(n)
}

// names removes what is a secret in the names of the fields of a mapping. No two of
// them become the same.
func names(n *yaml.Node) {
	changed := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		value(n.Content[i])
		changed = changed || strings.Contains(n.Content[i].Value, secret.Placeholder)
	}
	if !changed {
		return
	}
	there := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		for more := len(there); k.Kind == yaml.ScalarNode && there[k.Value]; more++ {
			replace(k, secret.Placeholder+" "+strconv.Itoa(more))
		}
		there[k.Value] = true
	}
}

// isSecret reports whether the field i of a mapping is a secret: by its name, or by
// one that stands beside it, as in {name: PASSWORD, value: x}.
func isSecret(n *yaml.Node, i int) bool {
	name := n.Content[i].Value
	if name != "value" {
		return document.Secret(name, n.Content[i+1])
	}
	for _, beside := range []string{"name", "key"} {
		if of := document.Text(document.Field(n, beside)); of != "" && document.Secret(of, n.Content[i+1]) {
			return true
		}
	}
	return false
}

// hide puts the placeholder in the place of a secret. Nothing stays nothing.
func hide(n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	if !ownTag(n) || n.Value != "" && !isNull(n) || len(n.Content) > 0 {
		replace(n, secret.Placeholder)
	}
}

func replace(n *yaml.Node, text string) {
	*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: n.Line, Column: n.Column}
}

// isNull reports whether a scalar is null and says so: !!null can have any text.
func isNull(n *yaml.Node) bool {
	return document.IsNull(n) && (n.Value == "~" || strings.EqualFold(n.Value, "null"))
}

// ownTag reports whether the tag of a value is one of YAML's. Others are what became
// of a text that starts with !.
func ownTag(n *yaml.Node) bool {
	switch n.ShortTag() {
	case "!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!!binary", "!!timestamp", "!!merge":
		return true
	}
	return false
}

// plainTag removes a tag that is none of YAML's.
func plainTag(n *yaml.Node) {
	if ownTag(n) {
		return
	}
	n.Style &^= yaml.TaggedStyle
	n.Tag = map[yaml.Kind]string{yaml.MappingNode: "!!map", yaml.SequenceNode: "!!seq"}[n.Kind]
	if n.Kind == yaml.ScalarNode {
		n.Tag = "!!str"
	}
}

// known is what is known of the secrets of documents: their texts, and where they
// were read, which is one place for an anchor and its aliases.
type known struct {
	texts  map[string]bool
	places []map[place]bool // by the number of the document
}

type place struct{ line, column int }

// placeOf returns where a value was read; ok is false for one that was made.
func placeOf(n *yaml.Node) (p place, ok bool) {
	return place{n.Line, n.Column}, n.Line > 0
}

// collect goes through a value that is no secret itself.
func (k known) collect(doc int, n *yaml.Node) {
	for i, child := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 1 && isSecret(n, i-1) {
			k.add(doc, child)
		} else {
			k.collect(doc, child)
		}
	}
}

// add adds the texts of a secret.
func (k known) add(doc int, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && (n.Value != "" || !ownTag(n)) && !isNull(n) {
		if len(n.Value) >= minAgain {
			k.texts[n.Value] = true
		}
		if p, ok := placeOf(n); ok {
			k.places[doc][p] = true
		}
	}
	for _, child := range n.Content {
		k.add(doc, child)
	}
}

// hideAgain hides secrets where they stand a second time. Of the names of fields only
// those that are aliases are: a password can be "password".
func (k known) hideAgain(doc int, n *yaml.Node) {
	for i, child := range n.Content {
		p, ok := placeOf(child)
		name := n.Kind == yaml.MappingNode && i%2 == 0
		if child.Kind == yaml.ScalarNode && (ok && k.places[doc][p] || !name && k.texts[child.Value]) {
			hide(child)
			continue
		}
		k.hideAgain(doc, child)
	}
}
