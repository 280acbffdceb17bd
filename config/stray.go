package config

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// What is unknown is carried along, and so would be an encryption that a slip of
// name, kind or indentation put where nobody reads it: its volume would be left
// unencrypted. What looks like one is therefore a mistake there. It can have an
// anchor, which is for a place where it is read.

const leftPlain = "is not read here, and would leave the volume unencrypted"

// volumeKinds are the kinds of documents that have an encryption.
func volumeKinds() []string {
	return []string{"VolumeConfig", "UserVolumeConfig", "RawVolumeConfig", "SwapVolumeConfig"}
}

// misspeltKind reports a kind that is a slip for one that is read here.
func (r *reader) misspeltKind(kind cursor, name string) {
	known := append(volumeKinds(), "KmsgLogConfig", "TrustedRootsConfig")
	if near := nearest(name, known); near != "" && !slices.Contains(known, name) {
		if !slices.Contains(volumeKinds(), near) {
			kind = r.aside(kind)
		}
		kind.fail("unknown kind "+shown(name), "did you mean "+near+"?")
	}
}

// misplaced reports encryption that stands directly in machine, as some examples
// have it.
func (c cursor) misplaced() {
	for _, name := range []string{"state", "ephemeral"} {
		if f := c.field(name); f.exists() && document.Field(f.node, "keys") != nil {
			f.fail(leftPlain, "move it into machine.systemDiskEncryption")
		}
	}
}

// strayMain reports encryption in the main document, but for that in machine,
// which systemDiskEncryption and misplaced are for.
func (c cursor) strayMain() {
	search{c.in, "move it into machine.systemDiskEncryption, or into a VolumeConfig document", func(path []string, name string) bool {
		switch {
		case len(path) == 0:
			return name != "machine" && nearest(name, []string{"machine"}) != ""
		case len(path) == 1 && path[0] == "machine":
			return nearest(name, []string{"systemDiskEncryption"}) != "" || name == "state" || name == "ephemeral"
		}
		return false
	}}.below(c.node, nil)
}

// strayDocument reports encryption in a document of a kind, but for that where
// the kind has it.
func (c cursor) strayDocument(kind string) {
	if !slices.Contains(volumeKinds(), kind) {
		fix := "write a kind that has encryption: " + strings.Join(volumeKinds(), ", ")
		if isBlock(c.node) {
			c.field("keys").fail(leftPlain, fix)
			return
		}
		search{c.in, fix, func([]string, string) bool { return false }}.below(c.node, nil)
		return
	}
	const fix = "move it into encryption, indented below it"
	if keys := c.field("keys"); keys.exists() {
		keys.fail(leftPlain, fix)
	}
	if p := c.field("provider"); p.exists() && nearest(document.Text(p.node), []string{providerLUKS2}) != "" {
		p.fail(leftPlain, fix)
	}
	search{c.in, "move it to the top of the document, as encryption", func(path []string, name string) bool {
		return len(path) == 0 && nearest(name, []string{"encryption"}) != ""
	}}.below(c.node, nil)
}

// search is for encryption where it is not read.
type search struct {
	in        *input
	fix       string
	elsewhere func(path []string, name string) bool // the field is read or reported there
}

// below reports what looks like encryption anywhere below a value. What an alias
// stands for is passed over.
func (s search) below(n *yaml.Node, path []string) {
	if n.Anchor != "" || s.in.Dropped() {
		return
	}
	for i, value := range n.Content {
		if n.Kind == yaml.SequenceNode {
			s.below(value, append(path, "["+strconv.Itoa(i)+"]"))
		} else if i%2 == 1 {
			s.field(n.Content[i-1], value, path)
		}
	}
}

func (s search) field(k, value *yaml.Node, path []string) {
	name := nameOf(k)
	if s.elsewhere(path, name) {
		return
	}
	path = append(path, name)
	system := document.Resolved(value)
	switch {
	case name == "systemDiskEncryption" && system.Kind == yaml.MappingNode && len(system.Content) > 0:
		s.in.Fail(k.Line, document.ShownPath(path), leftPlain, "move it into machine")
	case value.Anchor == "" && isBlock(value):
		s.in.Fail(k.Line, document.ShownPath(path), leftPlain, s.fix)
	default:
		s.below(value, path)
	}
}

// isBlock reports whether a value has keys as an encryption has them.
func isBlock(n *yaml.Node) bool {
	keys := document.Field(n, "keys")
	if keys == nil || keys.Kind != yaml.SequenceNode {
		return false
	}
	return slices.ContainsFunc(keys.Content, func(key *yaml.Node) bool {
		return slices.ContainsFunc([]string{"static", "nodeID", "kms", "tpm"}, func(kind string) bool {
			how := document.Field(document.Resolved(key), kind)
			return how != nil && (how.Kind != yaml.ScalarNode || how.ShortTag() == "!!null")
		})
	})
}
