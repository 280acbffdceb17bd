package patch_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

// example is an example of a guide: a configuration, patches that say the same
// in different formats, and what they make of it.
type example map[string]string

// examples returns the examples of all guides by file and name.
func examples(t testing.TB) map[string]example {
	t.Helper()
	paths, err := filepath.Glob("testdata/guides/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[string]example)
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			name, part, _ := strings.Cut(f.Name, "/")
			name = strings.TrimSuffix(filepath.Base(path), ".txtar") + "/" + name
			if out[name] == nil {
				out[name] = example{}
			}
			out[name][part] = string(f.Data)
		}
	}
	return out
}

// TestGuides: every example of the guides is read, is written as it was, and is
// patched as its guide says, in every format.
func TestGuides(t *testing.T) {
	guides, patched := map[string]bool{}, 0
	for name, e := range examples(t) {
		guide, _, _ := strings.Cut(name, "/")
		guides[guide] = true
		t.Run(name, func(t *testing.T) {
			s := read(t, e["config.yaml"])
			if got := string(s.Bytes()); got != e["config.yaml"] {
				t.Errorf("written as\n%s", got)
			}
			for part, text := range e {
				if part == "config.yaml" || part == "want.yaml" {
					continue
				}
				patched++
				for _, o := range []patch.Options{{}, {Talos: true}} {
					if o.Talos && part == "ours.yaml" {
						continue
					}
					got := string(apply(t, o, s, text).Bytes())
					if part != "strategic.yaml" && got != e["want.yaml"] {
						// The other formats know no styles of the patch.
						if !equal(read(t, got), read(t, e["want.yaml"])) {
							t.Errorf("%s gives\n%s", part, got)
						}
						continue
					}
					if d := cmp.Diff(strings.Split(e["want.yaml"], "\n"), strings.Split(got, "\n")); d != "" {
						t.Errorf("%s with %+v (-want +got):\n%s", part, o, d)
					}
				}
			}
		})
	}
	if len(guides) != 13 || patched < 40 {
		t.Errorf("%d guides with %d patches", len(guides), patched)
	}
}

// TestReadable: what keys become by a patch is what the strict reader of
// encryption reads.
func TestReadable(t *testing.T) {
	s := read(t, state+"encryption:\n  provider: luks2\n  keys:\n    - slot: 0\n      nodeID: {}\n    - slot: 1\n      static: {passphrase: summer}\n")
	out := apply(t, patch.Options{}, s,
		state+"encryption:\n  keys:\n    - slot: 1\n      static: {passphrase: winter}\n    - slot: 2\n      tpm: {}\n",
		state+"encryption:\n  keys:\n    - slot: 0\n      $patch: delete\n")
	c, err := config.Read(config.Source{Name: "patched", Data: out.Bytes()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	keys := c.Volumes[0].Keys
	if len(keys) != 2 || keys[0].Slot != 1 || string(keys[0].Static.Passphrase.Bytes()) != "winter" || keys[1].Slot != 2 || keys[1].Kind() != "tpm" {
		t.Errorf("keys %+v", keys)
	}
	twice := apply(t, patch.Options{Talos: true}, s, state+"encryption: {keys: [{slot: 1, static: {passphrase: winter}}]}\n")
	if _, err := config.Read(config.Source{Name: "patched", Data: twice.Bytes()}); err == nil || !strings.Contains(err.Error(), "slot 1 is also used") {
		t.Errorf("with Talos' rules the keys are read: %v", err)
	}
}

func equal(a, b *document.Stream) bool {
	return slices.EqualFunc(a.Documents(), b.Documents(), func(a, b *document.Document) bool {
		return document.Equal(a.Root(), b.Root())
	})
}

func read(t testing.TB, text string) *document.Stream {
	t.Helper()
	s, err := document.Read("config", []byte(text))
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, text)
	}
	return s
}

func load(t testing.TB, text string) *patch.Patch {
	t.Helper()
	p, err := patch.Load("patch", []byte(text))
	if err != nil {
		t.Fatalf("%v\nof\n%s", err, text)
	}
	return p
}

func apply(t testing.TB, o patch.Options, s *document.Stream, patches ...string) *document.Stream {
	t.Helper()
	var loaded []*patch.Patch
	for _, text := range patches {
		loaded = append(loaded, load(t, text))
	}
	out, err := o.Apply(s, loaded...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
