package patch

import (
	"bytes"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"go.yaml.in/yaml/v4"
)

// talosScalar returns what two scalars become in Talos 1.13, where some texts
// are structures of several fields.
func (m *merger) talosScalar(left, right *yaml.Node, s shape, path place) *yaml.Node {
	switch s.class {
	case fixed:
		m.fail(right, path, "Talos 1.13 fails to merge this field", "delete it first, or do not ask for Talos' rules")
		return left
	case size:
		// A number of bytes and a percentage are two fields, and the first wins.
		if !strings.Contains(left.Value, "%") && strings.Contains(right.Value, "%") {
			return left
		}
	case address:
		return m.talosURL(left, right, path)
	}
	return right
}

// talosURL merges a URL into another as Talos does: a part that is empty in the
// patch stays as it was.
func (m *merger) talosURL(left, right *yaml.Node, path place) *yaml.Node {
	l, lerr := url.Parse(left.Value)
	r, rerr := url.Parse(right.Value)
	if lerr != nil || rerr != nil {
		m.fail(right, path, "is no URL that can be merged", "write it as scheme://host:port")
		return left
	}
	if l.User != nil && r.User != nil {
		m.fail(right, path, "Talos 1.13 fails to merge URLs with user names", "delete the field first, or do not ask for Talos' rules")
		return left
	}
	if r.User != nil {
		l.User = r.User
	}
	for _, part := range []struct{ left, right *string }{
		{&l.Scheme, &r.Scheme},
		{&l.Opaque, &r.Opaque},
		{&l.Host, &r.Host},
		{&l.Path, &r.Path},
		{&l.RawPath, &r.RawPath},
		{&l.RawQuery, &r.RawQuery},
		{&l.Fragment, &r.Fragment},
		{&l.RawFragment, &r.RawFragment},
	} {
		if *part.right != "" {
			*part.left = *part.right
		}
	}
	l.ForceQuery, l.OmitHost = r.ForceQuery, r.OmitHost
	out := *right
	out.Value = l.String()
	return &out
}

// oldWords makes truth values of the words that YAML 1.1 has for them. Talos
// sends a document through a parser of that version before an RFC 6902 patch,
// so that the label no becomes the label false, and a field on the field true.
func oldWords(n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		if b, ok := oldTruth(n.Value); ok {
			n.Tag, n.Value = "!!bool", strconv.FormatBool(b)
		}
	}
	for i, child := range n.Content {
		oldWords(child)
		if n.Kind == yaml.MappingNode && i%2 == 0 && child.ShortTag() == "!!bool" {
			child.Tag = "!!str" // the names of JSON are texts
		}
	}
}

// oldTruth returns the truth value of a word that YAML 1.1 has for one and YAML 1.2
// has not (https://yaml.org/type/bool.html).
func oldTruth(word string) (b, ok bool) {
	switch word {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON":
		return true, true
	case "n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return false, true
	}
	return false, false
}

// looseOperations returns the operations as Talos understands them: to replace
// a field that is not there is to add it, and to copy one copies null, which RFC
// 6902 (sections 4.3 and 4.5) forbids.
func looseOperations(ops []operation, text []byte) []operation {
	const most = 1 << 30 // bytes gone through; what is larger is left as it is
	out := slices.Clone(ops)
	all := len(text)
	for _, o := range ops {
		all += len(o.json)
	}
	if len(out)*all > most {
		return out
	}
	for i, o := range out {
		next, err := run(out[i:i+1], text)
		if o.op == "replace" && errors.Is(err, jsonpatch.ErrMissing) && inMapping(text, o.path) {
			out[i].json = bytes.Replace(o.json, []byte(`"replace"`), []byte(`"add"`), 1)
			next, err = run(out[i:i+1], text)
		}
		if o.op == "copy" && errors.Is(err, jsonpatch.ErrMissing) && inMapping(text, o.from) {
			out[i].json = []byte(`{"op":"add","value":null,"path":` + quoted(o.path) + `}`)
			next, err = run(out[i:i+1], text)
		}
		if err != nil {
			break
		}
		text = next
	}
	return out
}

// inMapping reports whether a JSON pointer leads to a field, there or not.
func inMapping(text []byte, pointer string) bool {
	here, ok := parseJSON(text)
	steps := strings.Split(pointer, "/")
	for _, step := range steps[1:max(len(steps)-1, 1)] {
		if !ok || here == nil {
			return false
		}
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		if i, err := strconv.Atoi(name); err == nil && here.kind == yaml.SequenceNode && i >= 0 && i < len(here.values) {
			here = here.values[i]
			continue
		}
		here = here.field(name)
	}
	return ok && here != nil && here.kind == yaml.MappingNode
}
