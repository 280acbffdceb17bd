package machineconfig_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config/patch"
)

// TestGuides: the examples of the guides, patched by Talos, are what the
// fixtures of package patch say, and what we make of them.
func TestGuides(t *testing.T) {
	paths, err := filepath.Glob("../../../config/patch/testdata/guides/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	judged := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files := archive(string(data))
		for name, text := range files {
			dir, part := filepath.Split(name)
			if !strings.HasPrefix(part, "strategic.") && !strings.HasPrefix(part, "rfc6902.") {
				continue
			}
			t.Run(filepath.Base(path)+"/"+name, func(t *testing.T) {
				judged++
				want, err := normal([]byte(files[dir+"want.yaml"]))
				if err != nil {
					t.Fatal(err)
				}
				talos := theirs(files[dir+"config.yaml"], text)
				if talos.err != nil {
					t.Fatal(talos.err)
				}
				if d := cmp.Diff(want, talos.text); d != "" {
					t.Errorf("Talos makes something else of it than the fixture says:\n%s", d)
				}
				for _, o := range []patch.Options{{}, {Talos: true}} {
					if got := here(o, files[dir+"config.yaml"], text); got.err != nil || got.text != want {
						t.Errorf("%+v gives %v\n%s", o, got.err, cmp.Diff(want, got.text))
					}
				}
			})
		}
	}
	if judged < 50 {
		t.Errorf("%d patches", judged)
	}
}

// archive returns the files of a text archive (txtar).
func archive(text string) map[string]string {
	out := map[string]string{}
	marker := regexp.MustCompile(`(?m)^-- (.+) --\n`)
	found := marker.FindAllStringSubmatchIndex(text, -1)
	for i, m := range found {
		end := len(text)
		if i+1 < len(found) {
			end = found[i+1][0]
		}
		out[text[m[2]:m[3]]] = text[m[1]:end]
	}
	return out
}
