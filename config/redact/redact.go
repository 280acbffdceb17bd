// Package redact removes the secrets from machine configurations, so that they
// can be shown, logged and compared:
//
//	machine:
//	  token: abc.def               -> [secret]
//	  ca:
//	    crt: LS0tLS1CRUdJTi...     stays
//	    key: LS0tLS1CRUdJTi...     -> [secret]
//	  systemDiskEncryption:
//	    state:
//	      keys:
//	        - slot: 0              stays
//	          static:
//	            passphrase: hunter2  -> [secret]
//
// It guarantees that what Talos 1.13 redacts is gone, and more: passphrases,
// passwords, tokens and keys by the names of their fields, in documents of every
// kind, known or not; private keys in PEM and passwords in URLs and in settings
// such as PASSWORD=x wherever they stand; and a secret that stands a second time
// in its document, whatever the field. All comments go too, since a field
// that was taken out of force is one. Names of fields stay, but for those inside
// of static, where a passphrase may have lost its field.
//
// What this does not protect: a secret in a text that looks like none, such as
// the content of a file or a manifest. Lengths are not shown.
package redact

import (
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/secret"
)

// Stream returns the configuration without its secrets and comments. It fails
// only for a document whose aliases cannot be resolved.
func Stream(s *document.Stream) (*document.Stream, error) {
	var docs []*document.Document
	for _, d := range s.Documents() {
		root, err := document.Copy(d.Root())
		if err != nil {
			return nil, err
		}
		known := make(map[string]bool)
		secrets(nil, root, known)
		Value(nil, root)
		again(root, known)
		clean, err := document.New(root)
		if err != nil {
			return nil, err
		}
		docs = append(docs, clean)
	}
	return new(document.Stream).With(docs...), nil
}

// secrets collects the texts of the secrets that are long enough to be told from
// other values.
func secrets(path []string, n *yaml.Node, known map[string]bool) {
	if n.Kind == yaml.ScalarNode && len(n.Value) >= 6 && IsSecret(path) {
		known[n.Value] = true
	}
	for i, child := range n.Content {
		switch {
		case n.Kind == yaml.SequenceNode:
			secrets(append(slices.Clip(path), "[]"), child, known)
		case i%2 == 1:
			secrets(append(slices.Clip(path), n.Content[i-1].Value), child, known)
		}
	}
}

// again removes secrets where they stand a second time, such as at the anchor
// of an alias.
func again(n *yaml.Node, known map[string]bool) {
	if n.Kind == yaml.ScalarNode && known[n.Value] {
		hide(n, secret.Placeholder)
	}
	for i, child := range n.Content {
		if n.Kind == yaml.SequenceNode || i%2 == 1 {
			again(child, known)
		}
	}
}

// Value removes the secrets and comments from a value, which has no aliases and
// stands at a path in its document: the names of the fields that lead to it, and
// the numbers of list entries in brackets.
func Value(path []string, n *yaml.Node) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	switch {
	case n.Kind == yaml.ScalarNode:
		if IsSecret(path) && n.Value != "" && !document.IsNull(n) {
			hide(n, secret.Placeholder)
		} else if clean := Text(n.Value); clean != n.Value {
			hide(n, clean)
		}
	case n.Kind == yaml.SequenceNode:
		for _, e := range n.Content {
			Value(append(slices.Clip(path), "[]"), e)
		}
	}
	for i := 0; i+1 < len(n.Content) && n.Kind == yaml.MappingNode; i += 2 {
		k := n.Content[i]
		k.HeadComment, k.LineComment, k.FootComment = "", "", ""
		Value(append(slices.Clip(path), k.Value), n.Content[i+1])
		if len(path) > 0 && path[len(path)-1] == "static" && k.Value != "passphrase" {
			hide(k, secret.Placeholder)
		}
	}
}

func hide(n *yaml.Node, text string) {
	*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Line: n.Line, Column: n.Column}
}

// IsSecret reports whether what stands at a path is a secret by the names that
// lead to it.
func IsSecret(path []string) bool {
	for i, name := range path {
		lower := strings.ToLower(name)
		last := i == len(path)-1
		switch {
		case slices.ContainsFunc(parts(), func(p string) bool { return strings.Contains(lower, p) }):
			return true
		case last && slices.Contains([]string{"key", "auth", "static", "ca"}, lower): // ca is what Talos hides in a RegistryTLSConfig
			return true
		case i > 0 && path[i-1] == "static" && slices.Contains(path[:i], "keys"):
			return true
		}
	}
	return false
}

// parts are in the names of secret fields of all kinds: aescbcEncryptionSecret,
// identityToken, privateKey.
func parts() []string {
	return []string{"passphrase", "password", "passwd", "secret", "token", "privatekey", "private_key", "presharedkey"}
}

// Text returns a text without what looks like a secret in it: private keys in
// PEM, passwords in URLs, and the values of settings that are named like one.
func Text(s string) string {
	if strings.Contains(s, "PRIVATE KEY-----") {
		return secret.Placeholder
	}
	if !strings.ContainsAny(s, "=@") {
		return s
	}
	s = regexp.MustCompile(`(://[^/?#@\s:]*:)[^/?#@\s]*@`).ReplaceAllString(s, "${1}"+secret.Placeholder+"@")
	setting := regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:pass|secret|token|apikey|api_key|private_?key)[a-z0-9_.-]*=)[^&\s]+`)
	return setting.ReplaceAllString(s, "${1}"+secret.Placeholder)
}
