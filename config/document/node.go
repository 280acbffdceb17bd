package document

import "go.yaml.in/yaml/v4"

// NameOf returns the name of a field, seen through an alias.
func NameOf(k *yaml.Node) string { return Resolved(k).Value }

// Join returns the path of a field inside of what is at a path.
func Join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Resolved returns the node, or what it stands for when it is an alias.
func Resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// Field returns the value of a field of a mapping, seen through an alias; nil
// when n is no mapping or has no such field.
func Field(n *yaml.Node, name string) *yaml.Node {
	if i := Index(n, name); i >= 0 {
		return Resolved(n.Content[i+1])
	}
	return nil
}

// Index returns the place of a field's name in the content of a mapping, where
// its value follows; -1 when n is no mapping or has no such field.
func Index(n *yaml.Node, name string) int {
	if n == nil || n.Kind != yaml.MappingNode {
		return -1
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := Resolved(n.Content[i]); k.Kind == yaml.ScalarNode && k.Value == name {
			return i
		}
	}
	return -1
}

// IsNull reports whether the node is absent or null.
func IsNull(n *yaml.Node) bool {
	return n == nil || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// Text returns the text of a scalar, "" for everything else and for null.
func Text(n *yaml.Node) string {
	if IsNull(n) || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}
