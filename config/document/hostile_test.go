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

// within runs f and fails when it takes longer, or more memory, than allowed.
func within(t *testing.T, most time.Duration, mib uint64, f func()) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	if took := time.Since(start); took > most {
		t.Errorf("took %v", took)
	}
	runtime.ReadMemStats(&after)
	if got := (after.TotalAlloc - before.TotalAlloc) >> 20; got > mib {
		t.Errorf("allocated %d MiB", got)
	}
}

// TestHostile has inputs that cost far more than their size when read naively.
func TestHostile(t *testing.T) {
	const most = document.MaxSource
	var fields strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&fields, "field%06d: %d\n", i, i)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"too large", strings.Repeat("#", most+1), "f: is larger than 10240 KiB; check that this is the right file"},
		{"deep flow", strings.Repeat("[", most), "f:1: nests deeper than 100 levels; a machine configuration is flatter; use another file"},
		{"deep mappings", strings.Repeat("{a: ", most/4), "f:1: nests deeper than 100 levels"},
		{"deep block", strings.Repeat("- ", most/2), "f:1: nests deeper than 100 levels"},
		{"commas", "[" + strings.Repeat("a,", most/2-1) + "]", "f: has more than 500000 commas, which no machine configuration has; check that this is the right file"},
		{"lines", strings.Repeat("- a\n", most/4), "f: has more than 250000 entries, which no machine configuration has; check that this is the right file"},
		{"fields", strings.Repeat("a:\n", most/3), "f: has more than 250000 entries"},
		{"nested lines", strings.Repeat(strings.Repeat("- ", 90)+"a\n", most/182), "f: has more than 250000 entries"},
		{"documents", strings.Repeat("---\n", 1001), "f: has more than 1000 documents; check that this is the right file"},
		{"many documents", strings.Repeat("---\n", most/4), "f: has more than 250000 entries"},
		{"the same field", strings.Repeat("a: 1\n", 200_000), "f:2: a: the field is there twice, first on line 1; keep one of them"},
		{"largest", fields.String(), ""},
		{"bomb", bomb(), ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			within(t, 20*time.Second, 1500, func() {
				_, err := document.Read("f", []byte(tt.text))
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("error %v", err)
				case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
					t.Errorf("error %.200v, want %s", err, tt.want)
				}
			})
		})
	}
	t.Run("resolved", func(t *testing.T) {
		s := read(t, "more: {<<: {a: 1}}\n"+bomb())
		within(t, 20*time.Second, 1500, func() {
			if _, err := s.Documents()[0].Edit(func(*yaml.Node) error { return nil }); err == nil {
				t.Error("a bomb is resolved")
			}
		})
	})
}
