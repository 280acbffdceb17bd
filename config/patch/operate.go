package patch

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// maxOperations bounds the operations of an RFC 6902 patch, each of which can
// touch the whole document.
const maxOperations = 2_000

// operation is one operation of an RFC 6902 patch.
type operation struct {
	op, path, from string
	json           []byte
	line           int
}

// operations reads the operations of a list; those with mistakes are left out.
func operations(in *document.Report, root *yaml.Node) []operation {
	out := []operation{}
	if len(root.Content) > maxOperations {
		in.Fail(root.Content[maxOperations].Line, "", fmt.Sprintf("has more than %d operations", maxOperations), "use a strategic merge patch")
		return out
	}
	for i, n := range root.Content {
		if o, ok := readOperation(in, n, "["+strconv.Itoa(i)+"]"); ok {
			out = append(out, o)
		}
	}
	return out
}

func readOperation(in *document.Report, n *yaml.Node, at string) (operation, bool) {
	if n.Kind != yaml.MappingNode {
		in.Fail(n.Line, at, "is "+document.What(n)+", not an operation", "write op, path and value; a strategic merge patch is no list")
		return operation{}, false
	}
	o := operation{op: document.Text(document.Field(n, "op")), path: document.Text(document.Field(n, "path")), from: document.Text(document.Field(n, "from")), line: n.Line}
	ops := map[string][]string{
		"add": {"path", "value"}, "replace": {"path", "value"}, "test": {"path", "value"},
		"remove": {"path"}, "move": {"from", "path"}, "copy": {"from", "path"},
	}
	needs, known := ops[o.op]
	if !known {
		fix := "write add, remove, replace, move, copy or test"
		if near := document.Nearest(o.op, []string{"add", "remove", "replace", "move", "copy", "test"}); near != "" {
			fix = "did you mean " + near + "?"
		}
		in.Fail(n.Line, at+".op", document.Shown(o.op)+" is no operation", fix)
		return o, false
	}
	ok := true
	for _, name := range needs {
		v := document.Field(n, name)
		switch {
		case document.Index(n, name) < 0:
			in.Fail(n.Line, at+"."+name, "is missing", "write what "+o.op+" needs: "+strings.Join(needs, ", "))
			ok = false
		case name != "value" && (v.Kind != yaml.ScalarNode || v.Value != "" && v.Value[0] != '/'):
			in.Fail(v.Line, at+"."+name, "is no JSON pointer", "write it as /machine/network/hostname")
			ok = false
		}
	}
	o.json = valueOf(n).append(nil)
	return o, ok
}

// operate applies an RFC 6902 patch.
func (o Options) operate(s *document.Stream, p *Patch, in *document.Report) (*document.Stream, error) {
	if len(p.operations) == 0 {
		return s, nil
	}
	docs := s.Documents()
	if len(docs) != 1 {
		in.Fail(p.operations[0].line, "", fmt.Sprintf("an RFC 6902 patch is for one document, and the configuration has %d", len(docs)),
			"write a strategic merge patch, whose documents name the ones they are for")
		return nil, in.Sorted()
	}
	reached, line := false, docs[0].Line()
	changed, err := docs[0].Edit(func(root *yaml.Node) error {
		if odd := oddName(root); odd != nil {
			line = odd.Line
			return fmt.Errorf("the name of a field is %s, which JSON does not have; write the name as text, or the patch as strategic merge", document.What(odd))
		}
		reached = true
		return o.rewrite(p, in, root)
	})
	switch {
	case in.Failed():
		return nil, in.Sorted()
	case err != nil && !reached:
		return nil, unchangeable(docs[0], line, err)
	case err != nil:
		problem, fix, _ := strings.Cut(err.Error(), "; ")
		in.Fail(p.operations[0].line, "", "the document cannot be changed: "+problem, fix)
		return nil, in.Sorted()
	case changed.Same(docs[0]):
		return s, nil
	}
	return s.With(changed), nil
}

// rewrite applies an RFC 6902 patch to the root of a document. Mistakes are in the
// report, and there is an error then.
func (o Options) rewrite(p *Patch, in *document.Report, root *yaml.Node) error {
	if o.Talos {
		oldWords(root)
	}
	before := valueOf(root)
	text := before.append(nil)
	ops := p.operations
	if o.Talos {
		ops = looseOperations(ops, text)
	}
	out, err := run(ops, text)
	if err != nil {
		blame(in, ops, text)
		return err
	}
	after, ok := parseJSON(out)
	if !ok || after.kind != yaml.MappingNode {
		in.Fail(p.operations[0].line, "", "would leave no document", "keep it a mapping that is not deeper than 100 levels")
		return errors.New("no document")
	}
	*root = *after.yaml(before)
	return nil
}

// run applies operations to a JSON text. What the library cannot do, even where
// it panics, is an error.
func run(ops []operation, text []byte) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("the patch library fails")
		}
	}()
	var list []byte
	for i, o := range ops {
		list = append(append(list, "[,"[min(i, 1)]), o.json...)
	}
	p, err := jsonpatch.DecodePatch(append(list, ']'))
	if err != nil {
		return nil, err
	}
	options := jsonpatch.NewApplyOptions()
	options.AccumulatedCopySizeLimit = document.MaxSource
	return p.ApplyWithOptions(text, options)
}

// blame reports the first operation that fails: the last one of the shortest
// patch that does.
func blame(in *document.Report, ops []operation, text []byte) {
	low, high := 0, len(ops) // the first low do not fail, the first high do
	for high-low > 1 {
		if middle := (low + high) / 2; fails(ops[:middle], text) {
			high = middle
		} else {
			low = middle
		}
	}
	o := ops[high-1]
	_, err := run(ops[:high], text)
	problem, fix := "cannot be done", "check the path and the value"
	switch size := (*jsonpatch.AccumulatedCopySizeError)(nil); {
	case errors.Is(err, jsonpatch.ErrTestFailed):
		problem, fix = "the value there is another one", "check whether the configuration is the one the patch was written for"
	case errors.As(err, &size):
		problem, fix = "copies more than a configuration can hold", "copy less"
	case o.op == "add" && errors.Is(err, jsonpatch.ErrMissing):
		problem, fix = "there is nothing to add it to", "add what is above it first, or write a strategic merge patch"
	case o.op == "replace" && errors.Is(err, jsonpatch.ErrMissing):
		problem, fix = "there is nothing to replace", "write op: add for what is not there yet"
	case errors.Is(err, jsonpatch.ErrMissing):
		problem, fix = "there is nothing at this path", "check the path"
	case errors.Is(err, jsonpatch.ErrInvalidIndex):
		problem, fix = "the list has no such entry", "write the number of an entry, from 0, or - for the end"
	}
	in.Fail(o.line, "["+strconv.Itoa(high-1)+"]", o.op+" "+shownPointer(o.path)+": "+problem, fix)
}

// shownPointer returns a JSON pointer (RFC 6901) without the names below a secret.
func shownPointer(pointer string) string {
	names := strings.Split(pointer, "/")
	plain := make([]string, len(names))
	for i, name := range names {
		plain[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		if name != "" && strings.Trim(name, "0123456789") == "" {
			plain[i] = "[" + name + "]"
		}
	}
	return document.Shown(strings.Join(names[:len(document.Visible(plain))], "/"))
}

func fails(ops []operation, text []byte) bool {
	_, err := run(ops, text)
	return err != nil
}
