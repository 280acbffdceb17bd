package patch_test

import (
	"bytes"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

// TestHostile has patches that cost far more than their size when applied
// naively.
func TestHostile(t *testing.T) {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	labels := "machine:\n  nodeLabels:\n" + many(100_000, "    a%d: x\n")
	devices := "machine:\n  network:\n    interfaces:\n" + many(50_000, "      - interface: a%d\n")
	bomb := "a: &a [x, x, x, x, x, x, x, x, x]\n"
	for c := 'b'; c < 'z'; c++ {
		bomb += fmt.Sprintf("%c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	for _, tt := range []struct{ name, config, patch, want string }{
		{"many fields", labels, labels, ""},
		{"many fields by operation", labels, "- {op: remove, path: /machine/nodeLabels/a99999}\n", ""},
		{"many devices", devices, devices, "machine.network.interfaces: has too many entries to find those that are meant"},
		{"many new devices", "machine: {network: {}}\n", devices, "machine.network.interfaces: has too many entries"},
		{"some new devices", "machine: {network: {}}\n", "machine:\n  network:\n    interfaces:\n" + many(3_000, "      - interface: a%d\n"), ""},
		{"many operations", labels, many(2_001, "- {op: test, path: /a%d, value: 1}\n"), "has more than 2000 operations"},
		{"many operations of which the last fails", "machine: {}\n", many(1_999, "- {op: add, path: /machine/a%d, value: 1}\n") + "- {op: remove, path: /b}\n", "[1999]: remove /b"},
		{"a bomb in the patch", "a: 1\n", bomb, "its aliases stand for more than 1000000 values"},
		{"a bomb in the configuration", bomb, "machine: {}\n", "its aliases stand for more than 1000000 values"},
		{"a bomb as a value", "machine: {}\n", "- {op: add, path: /machine/x, value: {" + strings.ReplaceAll(strings.TrimSuffix(bomb, "\n"), "\n", ", ") + "}}\n", "its aliases stand for more than 1000000 values"},
		{"a deep patch", "a: 1\n", strings.Repeat("{a: ", 1<<20), "nests deeper than 100 levels"},
		{"a large patch", "a: 1\n", strings.Repeat("#", document.MaxSource+1), "is larger than 10240 KiB"},
		{"a field twice", "a: 1\n", "a: {b: 1, b: 2}\n", "the field is there twice"},
		{"deletions", labels, strings.ReplaceAll(labels, ": x", ": {$patch: delete}"), "there are more than 1000 deletions"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
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
			if took, mib := time.Since(start), (after.TotalAlloc-before.TotalAlloc)>>20; took > 40*time.Second || mib > 6000 {
				t.Errorf("took %v and %d MiB", took, mib)
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
