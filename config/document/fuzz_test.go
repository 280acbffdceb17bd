package document_test

import (
	"bytes"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

func FuzzRead(f *testing.F) {
	for _, text := range []string{
		several, "a: &a {b: *a}", "%YAML 1.2\n--- |\n x", "a: 1\n...\nb: 2\n", "? [a]\n: b\n", "{a: b, # c\n}", "- - -", "\ufeff---\n", "a: !!binary x",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 16<<10 || bytes.Count(data, []byte{'*'}) > 6 {
			return // larger inputs, and bombs, find nothing that smaller ones do not
		}
		s, err := document.Read("f", data)
		if err != nil {
			checkForm(t, err)
			return
		}
		if !bytes.Equal(s.Bytes(), data) {
			t.Fatalf("%q is written as %q", data, s.Bytes())
		}
		var in document.Report
		var whole []*yaml.Node
		for _, n := range document.Load(&in, data) {
			if !document.IsNull(n.Content[0]) {
				whole = append(whole, n.Content[0])
			}
		}
		if in.Failed() {
			return // such as a control character in a comment: refused is safe
		}
		if len(whole) != len(s.Documents()) {
			t.Fatalf("%q has %d documents, and %d when it is parsed as a whole", data, len(s.Documents()), len(whole))
		}
		for i, d := range s.Documents() {
			if !document.Equal(d.Root(), whole[i]) || d.Line() != whole[i].Line {
				t.Fatalf("%q is another document when it is parsed as a whole", data)
			}
		}
		var changed []*document.Document
		for _, d := range s.Documents() {
			e, err := d.Edit(func(*yaml.Node) error { return nil })
			if err != nil {
				return
			}
			changed = append(changed, e)
		}
		again, err := document.Read("again", s.With(changed...).Bytes())
		if err != nil {
			t.Fatalf("%q is written as %q: %v", data, s.With(changed...).Bytes(), err)
		}
		docs := again.Documents()
		if len(docs) != len(changed) {
			t.Fatalf("%q: %d documents are written as %d: %q", data, len(changed), len(docs), s.With(changed...).Bytes())
		}
		for i, d := range docs {
			if !document.Equal(d.Root(), changed[i].Root()) || d.ID() != changed[i].ID() {
				t.Fatalf("%q comes back as %q", data, again.Bytes())
			}
		}
	})
}

// checkForm asserts the form of the mistakes, whatever the input.
func checkForm(t *testing.T, err error) {
	t.Helper()
	all, ok := err.(document.Errors)
	if !ok || len(all) == 0 {
		t.Fatalf("error is a %T", err)
	}
	for _, e := range all {
		if e.File == "" || e.Problem == "" || e.Fix == "" || strings.ContainsAny(e.Error(), "\n\r\x00\x1b") {
			t.Errorf("malformed: %#v", e)
		}
	}
}
