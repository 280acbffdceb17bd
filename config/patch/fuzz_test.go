package patch_test

import (
	"bytes"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

// many returns the format with all numbers below n.
func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// TestHostile has patches that cost far more than their size when applied
// naively, with the most that both ways to apply them may allocate.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector's own memory would count")
	}
	labels := "machine:\n  nodeLabels:\n" + many(99_900, "    a%d: x\n")
	fewer := "machine:\n  nodeLabels:\n" + many(40_000, "    a%d: x\n")
	devices := "machine:\n  network:\n    interfaces:\n" + many(49_000, "      - interface: a%d\n")
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	for _, tt := range []struct {
		name, config, patch, want string
		mib                       uint64
	}{
		{"many fields", labels, labels, "", 2400},
		{"many fields by operation", labels, "- {op: remove, path: /machine/nodeLabels/a99899}\n", "", 2400},
		{"many texts", "a: [" + strings.Repeat("a, ", 249_900) + "a]\n", "b: 1\n", "", 2400},
		{"many texts by operation", "a: [" + strings.Repeat("a, ", 249_900) + "a]\n", "- {op: add, path: /b, value: 1}\n", "", 2600},
		{"many devices", devices, devices, "machine.network.interfaces: has too many entries to find those that are meant", 450},
		{"many new devices", "machine: {network: {}}\n", devices, "machine.network.interfaces: has too many entries", 260},
		{"some new devices", "machine: {network: {}}\n", "machine:\n  network:\n    interfaces:\n" + many(3_000, "      - interface: a%d\n"), "", 100},
		{"many operations", labels, many(2_001, "- {op: test, path: /a%d, value: 1}\n"), "has more than 2000 operations", 200},
		{"many operations of which the last fails", "machine: {}\n", many(1_999, "- {op: add, path: /machine/a%d, value: 1}\n") + "- {op: remove, path: /b}\n", "[1999]: remove /b", 1300},
		{"a bomb in the patch", "a: 1\n", bomb, "its aliases stand for more than 1000000 values", 420},
		{"a bomb in the configuration", bomb, "machine: {}\n", "its aliases stand for more than 1000000 values", 420},
		{"a bomb as a value", "machine: {}\n", "- {op: add, path: /machine/x, value: {" + strings.ReplaceAll(strings.TrimSuffix(bomb, "\n"), "\n", ", ") + "}}\n", "its aliases stand for more than 1000000 values", 420},
		{"a deep patch", "a: 1\n", strings.Repeat("{a: ", 100_000), "nests deeper than 100 levels", 30},
		{"a large patch", "a: 1\n", strings.Repeat("#", document.MaxSource+1), "is larger than 10240 KiB", 30},
		{"lists", "a: 1\n", "machine: [" + strings.Repeat("[]", 5_000_000), "has more than 250000 commas, colons, quotes, brackets and other marks", 30},
		{"quotes", "a: 1\n", "[" + strings.Repeat(`"",`, 3_000_000), "has more than 250000 commas, colons, quotes, brackets and other marks", 30},
		{"dashes", "a: 1\n", strings.Repeat("-\n", 5_000_000), "has more than 100000 entries", 30},
		{"documents", "a: 1\n", strings.Repeat("a\n...\n", 1_700_000), "has more than 1000 documents", 30},
		{"a field twice", "a: 1\n", "a: {b: 1, b: 2}\n", "the field is there twice", 30},
		{"deletions", fewer, strings.ReplaceAll(fewer, ": x", ": {$patch: delete}"), "there are more than 1000 deletions", 420},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for _, o := range []patch.Options{{}, {Talos: true}} {
				s := read(t, tt.config)
				p, err := patch.Load("patch", []byte(tt.patch))
				if err == nil {
					_, err = o.Apply(s, p)
				}
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("%.300v", err)
				case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
					t.Errorf("error %.300v, want %s", err, tt.want)
				}
			}
			runtime.ReadMemStats(&after)
			if mib := (after.TotalAlloc - before.TotalAlloc) >> 20; mib > tt.mib {
				t.Errorf("took %d MiB, want at most %d", mib, tt.mib)
			}
		})
	}
}

// seeds are configurations and patches: those of the guides.
func seeds(t testing.TB) (out [][2]string) {
	for _, e := range examples(t) {
		for _, part := range e.patches() {
			out = append(out, [2]string{e["config.yaml"], e[part]})
		}
	}
	if len(out) < 40 {
		t.Fatalf("%d seeds", len(out))
	}
	return out
}

// FuzzApply reads, patches and writes: what comes out is read again, the
// configuration does not change, and the same patch does the same.
func FuzzApply(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add([]byte(s[0]), []byte(s[1]), false)
		f.Add([]byte(s[1]), []byte(s[0]), true)
	}
	f.Add([]byte(state+"encryption: {keys: [{slot: 1, tpm: {}}]}\n"), []byte(state+"encryption: {keys: [{slot: 1, $patch: delete}]}\n"), false)
	f.Add([]byte("machine: {registries: {mirrors: {'[::1]': {}, b: {}}}}\n"), []byte("machine: {registries: {mirrors: {'[::1]': {$patch: delete}}}}\n"), false)
	f.Add([]byte("machine: {type: a}\n---\n"+kmsg), []byte(kmsg+"$patch: delete\n"), false)
	f.Add([]byte("machine: &m {a: 1}\ncluster: *m\n"), []byte("machine: {$patch: delete}\n"), false)
	f.Fuzz(func(t *testing.T, config, text []byte, talos bool) {
		if len(config)+len(text) > 16<<10 || bytes.Count(config, []byte{'*'})+bytes.Count(text, []byte{'*'}) > 6 {
			return // larger inputs, and bombs, find nothing that smaller ones do not
		}
		s, err := document.Read("config", config)
		if err != nil {
			return
		}
		p, err := patch.Load("patch", text)
		if err != nil {
			checkForm(t, err)
			return
		}
		o := patch.Options{Talos: talos}
		out, err := o.Apply(s, p)
		again, errAgain := o.Apply(s, p)
		if !bytes.Equal(s.Bytes(), config) {
			t.Fatal("the configuration changed")
		}
		if err != nil {
			if out != nil || errAgain == nil || err.Error() != errAgain.Error() {
				t.Fatalf("%v, and again %v", err, errAgain)
			}
			checkForm(t, err)
			return
		}
		if !bytes.Equal(out.Bytes(), again.Bytes()) {
			t.Fatalf("the same patch gives\n%s\nand then\n%s", out.Bytes(), again.Bytes())
		}
		written, err := document.Read("written", out.Bytes())
		if err != nil {
			t.Fatalf("%v of\n%s", err, out.Bytes())
		}
		if !equal(written, out) {
			t.Fatalf("what is written is something else:\n%s", out.Bytes())
		}
		checkDeleted(t, s, out, text)
	})
}

// checkDeleted asserts that what a patch of one document deletes is gone: a field or
// a document by name, and of a list as many entries as the patch has for it when it
// has nothing else for it.
func checkDeleted(t *testing.T, before, after *document.Stream, text []byte) {
	t.Helper()
	var in document.Report
	docs := document.Load(&in, text)
	if in.Failed() || len(docs) != 1 {
		return // the second document may bring back what the first one deletes
	}
	root, err := document.Copy(docs[0].Content[0])
	if err != nil || root.Kind != yaml.MappingNode {
		return
	}
	id := document.IDOf(root)
	if document.Index(root, "$patch") >= 0 {
		if after.Find(id) != nil {
			t.Fatal("a deleted document is there")
		}
		return
	}
	if b, a := before.Find(id), after.Find(id); b != nil && a != nil {
		old, err := document.Copy(b.Root())
		if err != nil {
			t.Fatal(err)
		}
		checkGone(t, root, old, a.Root())
	}
}

// checkGone is checkDeleted for a value of a patch and what was and is at its place.
// "machine: null" is what stays when all of the main document goes.
func checkGone(t *testing.T, p, before, after *yaml.Node) {
	t.Helper()
	deletes := func(n *yaml.Node) bool { return document.Index(n, "$patch") >= 0 }
	switch p.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(p.Content); i += 2 {
			name := p.Content[i].Value
			if value := p.Content[i+1]; !deletes(value) {
				checkGone(t, value, document.Field(before, name), document.Field(after, name))
			} else if left := document.Field(after, name); left != nil && (name != "machine" || !document.IsNull(left)) {
				t.Fatalf("the deleted field %q is there", name)
			}
		}
	case yaml.SequenceNode:
		if len(p.Content) == 0 || slices.ContainsFunc(p.Content, func(n *yaml.Node) bool { return !deletes(n) }) {
			return
		}
		if before == nil || after == nil || len(after.Content) != len(before.Content)-len(p.Content) {
			t.Fatalf("%d entries are not deleted", len(p.Content))
		}
	}
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
