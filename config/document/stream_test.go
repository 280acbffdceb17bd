package document_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// several has what a configuration can have around its documents.
const several = `# made by hand

---
# about the machine
machine: # this one
    type: worker # for now

    # all files
    files:
        - content: |
              a
                b
          path: "/x"
        # after the first
        - {path: /y, op: 'create'}

# between two documents
--- # the second
kind: Surprise
apiVersion: example.com/v1
name: &a abc
other: *a
list:
- 1
- 0644
- yes
...
# nothing
---
--- {kind: KmsgLogConfig, apiVersion: v1alpha1, name: "a/b"}
`

func read(t *testing.T, text string) *document.Stream {
	t.Helper()
	s, err := document.Read("f", []byte(text))
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, text)
	}
	return s
}

// set returns a change that sets a field of the root.
func set(name, value string) func(*yaml.Node) error {
	return func(root *yaml.Node) error {
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value}
		if i := document.Index(root, name); i >= 0 {
			root.Content[i+1] = n
			return nil
		}
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, n)
		return nil
	}
}

func edit(t *testing.T, d *document.Document, change func(*yaml.Node) error) *document.Document {
	t.Helper()
	out, err := d.Edit(change)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRead(t *testing.T) {
	s := read(t, several)
	type row struct {
		ID   string
		Line int
	}
	var got []row
	for _, d := range s.Documents() {
		got = append(got, row{d.ID().String(), d.Line()})
	}
	want := []row{{"v1alpha1", 5}, {"example.com/v1/Surprise/abc", 19}, {"v1alpha1/KmsgLogConfig/a/b", 30}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("documents (-want +got):\n%s", d)
	}
	if d := s.Find(document.ID{APIVersion: "example.com/v1", Kind: "Surprise", Name: "abc"}); d == nil || d.File() != "f" || d.Line() != 19 {
		t.Errorf("Find gives %v", d)
	}
	if s.Find(document.ID{Kind: "Surprise"}) != nil {
		t.Error("Find finds what is not there")
	}
}

// TestUntouched: what nobody changed is written as it was read, to the byte.
func TestUntouched(t *testing.T) {
	for _, text := range []string{
		several, "", "\n", "# only a comment", "a: 1", "a: 1\n---", "---\n---\n", "\ufeffa: 1\n", "a: 1\r\n---\r\nkind: X\r\napiVersion: y\r\n",
		"%TAG ! tag:x,2000:\n---\na: 1\n", "a: 1\n...\n%TAG ! tag:x,2000:\n---\nkind: X\napiVersion: y\n", "a: |\n  ---x\n  ...\n", "a: 1\n...\nkind: X\napiVersion: y\n",
		"--- # c\n# c\na: 1 # c\n...\n", "a: \"x\n  y\"\n",
	} {
		s := read(t, text)
		if got := string(s.Bytes()); got != text {
			t.Errorf("%q is written as %q", text, got)
		}
		if got := string(s.With(s.Documents()...).Bytes()); got != text {
			t.Errorf("%q is written as %q by With", text, got)
		}
	}
}

// TestChanged: a changed document keeps its place, order, comments and styles,
// and the others their bytes.
func TestChanged(t *testing.T) {
	s := read(t, several)
	docs := s.Documents()
	one := edit(t, docs[0], set("debug", "yes"))
	two := edit(t, docs[1], set("other", "x"))
	got := string(s.With(two, one, docs[2]).Bytes())
	want := `# made by hand

---
# about the machine
machine: # this one
    type: worker # for now

    # all files
    files:
        - content: |
              a
                b
          path: "/x"
        # after the first
        - {path: /y, op: 'create'}
debug: yes

# between two documents
--- # the second
kind: Surprise
apiVersion: example.com/v1
name: abc
other: x
list:
- 1
- 0644
- yes
...
# nothing
---
--- {kind: KmsgLogConfig, apiVersion: v1alpha1, name: "a/b"}
`
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if string(s.Bytes()) != several {
		t.Error("the stream that was changed is another one")
	}
	again := edit(t, one, set("debug", "no"))
	if got := string(s.With(again, docs[1], docs[2]).Bytes()); !strings.Contains(got, "debug: no") || strings.Contains(got, "debug: yes") {
		t.Errorf("a second change gives\n%s", got)
	}
}

func TestWith(t *testing.T) {
	s := read(t, several)
	docs := s.Documents()
	added, err := document.New(read(t, "kind: New\napiVersion: v1\n").Documents()[0].Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		docs []*document.Document
		want string
	}{
		{"the last only", docs[2:], "# made by hand\n\n---\n--- {kind: KmsgLogConfig, apiVersion: v1alpha1, name: \"a/b\"}\n"},
		{"none", nil, "# made by hand\n\n---\n"},
		{"one more", []*document.Document{added, docs[2]}, "# made by hand\n\n---\n--- {kind: KmsgLogConfig, apiVersion: v1alpha1, name: \"a/b\"}\n---\nkind: New\napiVersion: v1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.want, string(s.With(tt.docs...).Bytes())); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	first := read(t, "a: 1\n---\nkind: X\napiVersion: y").Documents()
	if got := string(new(document.Stream).With(first...).Bytes()); got != "a: 1\n---\nkind: X\napiVersion: y" {
		t.Errorf("documents of another stream are written as %q", got)
	}
	literal := read(t, "a: |\n  no end")
	if got := string(literal.With(literal.Documents()[0], added).Bytes()); got != "a: |-\n  no end\n---\nkind: New\napiVersion: v1\n" {
		t.Errorf("an addition behind a text without an end gives %q", got)
	}
	noEnd := read(t, "a: 1\n---\nkind: X\napiVersion: y")
	if got := string(noEnd.With(append(noEnd.Documents(), added)...).Bytes()); got != "a: 1\n---\nkind: X\napiVersion: y\n---\nkind: New\napiVersion: v1\n" {
		t.Errorf("an addition behind a missing line end gives %q", got)
	}
}

// TestEncodings has values that an encoder can lose.
func TestEncodings(t *testing.T) {
	for _, text := range []string{
		"a: {b: null, # in flow\n c: 1}\n", "a: |\n   leading\n", "a: |2\n    indented\n", "a: \"tab\\there\"\n", "a: \"\\u0085\\x07\"\n",
		"a: |+\n  kept\n\n\n", "a: >\n  folded\n  text\n\n  more\n", "? a b\n: c\n", "'': empty\n", "a: ''\n", "a: !!binary aGk=\n", "a: 0x1F\n",
		"a: '---'\n", "a: \"\\n---\\n\"\n", "a: [1,\n  # c\n  2]\n", "\"a\": ~\n", "a: 1e3\n", "a: 2020-01-01\n", "a: !x y\n", "<<: {b: 1}\n",
	} {
		s := read(t, text)
		d := edit(t, s.Documents()[0], set("added", "x"))
		written := s.With(d).Bytes()
		again, err := document.Read("again", written)
		if err != nil {
			t.Errorf("%q is written as %q: %v", text, written, err)
			continue
		}
		if !document.Equal(again.Documents()[0].Root(), d.Root()) {
			t.Errorf("%q comes back as another value: %q", text, written)
		}
	}
}

// TestStyles: a text comes back whatever the style it is given, also where the
// style cannot hold it.
func TestStyles(t *testing.T) {
	s := read(t, "list:\n  - first\n")
	for _, text := range []string{
		"", " ", "\n", "\n\n", "a", " a", "a ", "a\n", "a\n\n", "\na", "  a\nb\n", "a\n  b\n c", "a \nb", "\ta\n", "a\n\t\nb", "a\r\nb", "a\u2028b\n", "é\n",
		"- a\n", "# a\n", "a: b\n", "---\n", "...\n", "\x07\n", "1", "null", "~", "yes", "0644", "[", "{a: b}", "*a", "&a", "!a", "%a", "@a", "`a", "'", "\"", "\\\n", "a\n\n\n b\n\n",
	} {
		for _, style := range []yaml.Style{0, yaml.LiteralStyle, yaml.FoldedStyle, yaml.SingleQuotedStyle, yaml.DoubleQuotedStyle} {
			for _, comment := range []string{"", "# c"} {
				n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text, Style: style, LineComment: comment}
				d := edit(t, s.Documents()[0], func(root *yaml.Node) error {
					list := document.Field(root, "list")
					list.Content = append(list.Content, n)
					return nil
				})
				again := read(t, string(s.With(d).Bytes()))
				if got := document.Field(again.Documents()[0].Root(), "list").Content[1]; got.Value != text || got.ShortTag() != "!!str" {
					t.Errorf("%q in style %d comes back as %q:\n%s", text, style, got.Value, s.With(d).Bytes())
				}
			}
		}
	}
}

func TestAliases(t *testing.T) {
	s := read(t, "base: &b {x: 1, y: &y [2]}\nuse: *b\nmerged: {<<: *b, x: 3}\nmore: {<<: [*b, {z: 4}]}\nlist: *y\n")
	d := edit(t, s.Documents()[0], func(root *yaml.Node) error {
		document.Field(root, "base").Content[1].Value = "9"
		return nil
	})
	want := "base: {x: 9, y: [2]}\nuse: {x: 1, y: [2]}\nmerged: {x: 3, y: [2]}\nmore: {x: 1, y: [2], z: 4}\nlist: [2]\n"
	if d := cmp.Diff(want, string(s.With(d).Bytes())); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for name, text := range map[string]string{
		"bomb":        bomb(),
		"to itself":   "a: &a {b: *a}\n",
		"merged text": "a: {<<: x}\n",
	} {
		_, err := read(t, text).Documents()[0].Edit(func(*yaml.Node) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "aliases") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	failed := errors.New("no")
	if d, err := s.Documents()[0].Edit(func(*yaml.Node) error { return failed }); d != nil || !errors.Is(err, failed) {
		t.Errorf("a change that fails gives %v, %v", d, err)
	}
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a list", "# c\n- a\n", "f:2: is a list, not a mapping; write it as field: value"},
		{"a text", "---\n---\nhunter2\n", "f:3: is text, not a mapping; write it as field: value"},
		{"no kind", "a: 1\n---\napiVersion: v1\n", "f:3: kind: is missing; write the document's kind, such as VolumeConfig"},
		{"no version", "kind: X\n", "f:1: apiVersion: is missing; write apiVersion: v1alpha1"},
		{"kind is a list", "apiVersion: v1\nkind: [X]\n", "f:2: kind: is a list, not text; write the text in quotes"},
		{"twice", "kind: X\napiVersion: v1\nname: a\n---\nkind: X\napiVersion: v1\nname: b\n---\nname: a\nkind: X\napiVersion: v1\n", "f:9: document v1/X/a is there twice, first on line 1; keep one of them, or merge the two"},
		{"main twice", "machine: {}\n---\ncluster: {}\n", "f:3: document v1alpha1 is there twice, first on line 1; keep one of them, or merge the two"},
		{"field twice", "a: 1\n---\nkind: X\napiVersion: v1\na: {b: 1,\n  b: 2}\n", "f:6: a.b: the field is there twice, first on line 5; keep one of them"},
		{"syntax", "a: 1\n---\na: [\n---\nb: 1\n", "f:4: did not find expected node content"},
		{"not UTF-8", "a: \xff\n", "f:1: is not UTF-8; write the file as UTF-8, with other characters as escapes in double quotes"},
		{"directive", "a: 1\n...\n%TAG ! x:\n", "f:3: has a directive that no document follows; remove the line that starts with %"},
		{"another YAML", "a: 1\n...\n%YAML 1.2\n---\nb: 1\n", "f:3: a %YAML directive asks for a version of YAML that is not read; remove the line that starts with %YAML"},
		{"line ends", "a: 1\n# no\rmachine: {}\n", "f:2: has a line end that is not LF or CR LF; end the line with LF"},
		{"odd line ends", "a: x\u2028y\n", "f:1: has a line end that is not LF or CR LF"},
		{"all at once", "- 1\n---\n- 2\n", "f:1: is a list, not a mapping; write it as field: value\nf:3: is a list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := document.Read("f", []byte(tt.text))
			if err == nil || s != nil || !strings.HasPrefix(err.Error(), tt.want) {
				t.Fatalf("error %v\nwant  %s", err, tt.want)
			}
			var all document.Errors
			if !errors.As(err, &all) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error is a %T: %v", err, err)
			}
		})
	}
}

func TestReadFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	var in document.Report
	if data, ok := document.ReadFile(&in, path, 5); !ok || string(data.Bytes()) != "hello" || in.Failed() {
		t.Errorf("ReadFile gives %v", in.Err())
	}
	in = document.Report{Name: "n"}
	if _, ok := document.ReadFile(&in, path, 4); ok || in.Err() == nil || in.Err().Error() != "n: is larger than 0 KiB; check that this is the right file" {
		t.Errorf("ReadFile of what is too large gives %v", in.Err())
	}
}
