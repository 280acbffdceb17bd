package document_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
)

// bomb has 9^24 values when its aliases are resolved.
func bomb() string {
	var b strings.Builder
	b.WriteString("a: &a [x, x, x, x, x, x, x, x, x]\n")
	for c := 'b'; c < 'z'; c++ {
		fmt.Fprintf(&b, "%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	return b.String()
}

// many returns the format with all numbers below n.
func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// full returns a source of the largest size: the start, and the rest again and
// again.
func full(start, rest string) string {
	return start + strings.Repeat(rest, (document.MaxSource-len(start))/len(rest))
}

// within runs f and fails when it allocates more than so many MiB, or holds more
// than so many by what it returns. A minute is for what never ends.
func within(t *testing.T, allocates, holds uint64, f func() any) {
	t.Helper()
	var before, after, held runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	out := f()
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
	runtime.ReadMemStats(&after)
	runtime.GC()
	runtime.ReadMemStats(&held)
	runtime.KeepAlive(out)
	total, kept := (after.TotalAlloc-before.TotalAlloc)>>20, (max(held.HeapAlloc, before.HeapAlloc)-before.HeapAlloc)>>20
	if total > allocates || kept > holds {
		t.Errorf("allocated %d MiB and holds %d, want at most %d and %d", total, kept, allocates, holds)
	}
}

const (
	entries = "f: has more than 100000 entries, which no machine configuration has; check that this is the right file"
	marks   = "f: has more than 250000 commas, colons, quotes, brackets and other marks, which no machine configuration has; check that this is the right file"
)

// TestHostile has inputs that cost far more than their size when read naively.
// What the parser gets costs at most a few hundred MiB, by 10 MiB of text; what
// it does not get costs next to nothing.
func TestHostile(t *testing.T) {
	const most = document.MaxSource
	for _, tt := range []struct {
		name, text, want string
		mib              uint64
	}{
		{"too large", strings.Repeat("#", most+1), "f: is larger than 10240 KiB; check that this is the right file", 1},
		{"deep flow", "[" + strings.Repeat("[", 400_000), "f:1: nests deeper than 100 levels; a machine configuration is flatter; use another file", 1},
		{"deep mappings", strings.Repeat("{a: ", 150_000), "f:1: nests deeper than 100 levels", 1},
		{"deep block", strings.Repeat("- ", 200_000), "f:1: nests deeper than 100 levels", 1},
		{"bomb", bomb(), "", 2},

		{"flow lists", full("machine: [", "[]"), marks, 1},
		{"flow mappings", full("machine: [", "{}"), marks, 1},
		{"double quotes", full("machine: [", `""`), marks, 1},
		{"single quotes", full("machine: [", `'' `), marks, 1},
		{"quotes on one line", full("", `""`), marks, 1},
		{"commas", full("[", "a,"), marks, 1},
		{"colons in a list", full("[", "a: "), marks, 1},
		{"colons in a mapping", full("{", `"":`), marks, 1},
		{"dashes in flow", full("[", "- "), marks, 1},
		{"question marks in flow", full("[", "? "), marks, 1},
		{"tags", full("[", "! "), marks, 1},
		{"anchors", full("[", "&a "), marks, 1},
		{"aliases", full("[", "*a "), marks, 1},
		{"comments in flow", full("[", "a #\n"), marks, 1},
		{"comment lines in flow", full("[", "a\n#\n"), marks, 1},

		{"lines", full("", "- a\n"), entries, 1},
		{"nothing but dashes", full("machine:\n  l:\n", "  -\n"), entries, 1},
		{"dashes with line ends of DOS", full("", "  -\r\n"), entries, 1},
		{"dashes with tabs", full("", "-\ta\n"), entries, 1},
		{"dashes at the end", strings.Repeat("-\n", 100_000) + "-", entries, 1},
		{"question marks", full("", "?\n"), entries, 1},
		{"fields", full("", "a:\n"), entries, 1},
		{"nested lines", full("", strings.Repeat("- ", 90)+"a\n"), entries, 1},
		{"many documents", full("", "---\n"), entries, 1},
		{"documents", strings.Repeat("---\n", 1001), "f: has more than 1000 documents; check that this is the right file", 1},
		{"documents that end", full("", "a: 1\n...\n"), entries, 1},
		{"texts that end", full("", "a\n...\n"), "f: has more than 1000 documents; check that this is the right file", 600},

		// What is just within the limits.
		{"as many flow lists", "machine: [" + strings.Repeat("[]", 249_990), "f:1: did not find expected ',' or ']'", 640},
		{"as many colons", "[" + strings.Repeat("a: ", 249_990), "f:1: did not find expected ',' or ']'", 640},
		{"as many comments", "[" + strings.Repeat("a #\n", 249_990), "f:2: did not find expected ',' or ']'", 640},
		{"as many flow fields", "{" + strings.Repeat("a: b, ", 124_990), "f:2: did not find expected node content", 860},
		{"the same field", strings.Repeat("a: 1\n", 99_990), "f:2: a: the field is there twice, first on line 1; keep one of them", 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := []byte(tt.text)
			within(t, tt.mib, 1, func() any {
				_, err := document.Read("f", data)
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("error %v", err)
				case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
					t.Errorf("error %.200v, want %s", err, tt.want)
				}
				return nil
			})
		})
	}
	t.Run("resolved", func(t *testing.T) {
		s := read(t, "more: {<<: {a: 1}}\n"+bomb())
		within(t, 400, 1, func() any {
			if _, err := s.Documents()[0].Edit(func(*yaml.Node) error { return nil }); err == nil {
				t.Error("a bomb is resolved")
			}
			return nil
		})
	})
}

// TestLargest: the largest documents that are read are changed and written too,
// within a known memory.
func TestLargest(t *testing.T) {
	for _, tt := range []struct{ name, text string }{
		{"fields", many(99_990, "field%06d: 1\n")},
		{"entries", "l:\n" + strings.Repeat("  -\n", 99_990)},
		{"fields in flow", "a: {" + many(124_990, "a%d: b, ") + "z: y}\n"},
		{"a text", "a: |\n" + strings.Repeat("  a line of text, as of a manifest\n", 60_000)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var s *document.Stream
			within(t, 110, 60, func() any {
				s = read(t, tt.text)
				return s
			})
			within(t, 1100, 60, func() any {
				d, err := s.Documents()[0].Edit(func(root *yaml.Node) error {
					root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: "z"}, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: "1"})
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if out := s.With(d).Bytes(); string(out) != tt.text+"z: 1\n" {
					t.Errorf("%d bytes are written as %d", len(tt.text), len(out))
				}
				return d
			})
		})
	}
}

// TestNothing: a source without a byte has no document, and is written so.
func TestNothing(t *testing.T) {
	for _, data := range [][]byte{nil, {}} {
		s, err := document.Read("f", data)
		if err != nil || len(s.Documents()) != 0 || len(s.Bytes()) != 0 {
			t.Fatalf("%v, with %d documents and %d bytes", err, len(s.Documents()), len(s.Bytes()))
		}
		if got := string(s.With(read(t, "a: 1\n").Documents()...).Bytes()); got != "a: 1\n" {
			t.Errorf("with a document it is written as %q", got)
		}
	}
}
