package patch

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// Patch is a patch of either format. It does not change, and can be applied
// any number of times.
type Patch struct {
	name       string
	documents  []*yaml.Node // roots, of a strategic merge patch
	operations []operation  // of an RFC 6902 patch; nil for the other
}

// Name returns the name of the source.
func (p *Patch) Name() string { return p.name }

// Format returns "strategic merge" or "RFC 6902".
func (p *Patch) Format() string {
	if p.operations != nil {
		return "RFC 6902"
	}
	return "strategic merge"
}

// Load reads a patch: a list is one of RFC 6902, in JSON or YAML, everything
// else is a strategic merge patch of one or more documents. An empty patch
// changes nothing. The error, if any, is of type [document.Errors].
func Load(name string, data []byte) (*Patch, error) {
	in := &document.Report{Name: name}
	nodes := document.Load(in, pairs(data))
	if in.Failed() {
		return nil, in.Sorted()
	}
	nodes = slices.DeleteFunc(nodes, func(n *yaml.Node) bool { return document.IsNull(n.Content[0]) })
	p := &Patch{name: name}
	for _, n := range nodes {
		if odd := oddName(n); odd != nil {
			in.Fail(odd.Line, "", "the name of a field is "+document.What(odd), "write the name as text")
			return nil, in.Sorted()
		}
	}
	if !slices.ContainsFunc(nodes, func(n *yaml.Node) bool { return n.Content[0].Kind == yaml.SequenceNode }) {
		p.strategic(in, nodes)
	} else if len(nodes) > 1 {
		in.Fail(nodes[1].Content[0].Line, "", "has several documents, one of which is a list of operations", "put the RFC 6902 patch into a file of its own")
	} else if root, err := document.Copy(nodes[0].Content[0]); err != nil {
		in.Fail(nodes[0].Line, "", err.Error(), "this is no patch")
	} else {
		p.operations = operations(in, root)
	}
	if in.Failed() {
		return nil, in.Sorted()
	}
	return p, nil
}

// pairs writes the characters of JSON's surrogate pairs out, which YAML does not
// have: "\ud83d\ude00" (RFC 8259, section 7).
func pairs(data []byte) []byte {
	if len(data) > document.MaxSource || !bytes.Contains(data, []byte(`\u`)) || !json.Valid(data) {
		return data
	}
	out := make([]byte, 0, len(data))
	for i := 0; i < len(data); {
		n := 1
		if data[i] == '\\' {
			n = 2
		}
		if r := utf16.DecodeRune(escaped(data[i:]), escaped(data[min(i+6, len(data)):])); r != utf8.RuneError {
			out = utf8.AppendRune(out, r)
			i += 12
			continue
		}
		out = append(out, data[i:i+n]...)
		i += n
	}
	return out
}

// escaped returns the number that an escape at the start of the text has, 0
// when there is none.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

// strategic reads the documents of a strategic merge patch.
func (p *Patch) strategic(in *document.Report, nodes []*yaml.Node) {
	for _, n := range nodes {
		root := n.Content[0]
		document.Check(in, root)
		if root.Kind == yaml.MappingNode && document.Field(root, "op") != nil && document.Field(root, "path") != nil {
			in.Fail(root.Line, "", "is one operation of an RFC 6902 patch, which is a list of them", "write - in front of op")
		}
		p.documents = append(p.documents, root)
	}
}

// Argument reads a patch as the command line has it: @file, the name of a file,
// or the patch itself, which has a blank or a line break or starts with [ or {.
// The name is that of a patch that stands there itself, such as "patch 1".
func Argument(name, arg string) (*Patch, error) {
	path, isFile := strings.CutPrefix(arg, "@")
	if !isFile && (strings.ContainsAny(arg, "\n ") || strings.HasPrefix(arg, "[") || strings.HasPrefix(arg, "{")) {
		return Load(name, []byte(arg))
	}
	in := &document.Report{Name: path}
	data, ok := document.ReadFile(in, path, document.MaxSource)
	if !ok {
		return nil, in.Sorted()
	}
	defer data.Wipe()
	return Load(path, data.Bytes())
}

// Arguments reads several patches in order. The error, if any, is of type
// [document.Errors] and has the mistakes of all of them.
func Arguments(args ...string) ([]*Patch, error) {
	var out []*Patch
	var all document.Errors
	for i, arg := range args {
		p, err := Argument("patch "+strconv.Itoa(i+1), arg)
		if errs, bad := err.(document.Errors); bad {
			all = append(all, errs...)
			continue
		}
		out = append(out, p)
	}
	if len(all) > 0 {
		return nil, all
	}
	return out, nil
}
