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

// printed says for each guide which fixtures stand for the examples that it
// prints, in its order. Log lines and commands are none, but for the patches in
// commands.
func printed() map[string]string {
	const gpu = "modules/strategic.yaml runtime-class/config.yaml default-runtime/rfc6902.yaml"
	return map[string]string{
		"01-configuration-patches": "hostname/strategic.yaml hostname/want.yaml renamed/rfc6902.yaml hostname/rfc6902.yaml " +
			"network/config.yaml network/strategic.yaml network/rfc6902.yaml network/want.yaml " +
			"subnets/config.yaml subnets/strategic.yaml subnets/rfc6902.yaml subnets/want.yaml " +
			"kubelet/config.yaml kubelet/strategic.yaml kubelet/rfc6902.yaml kubelet/want.yaml " +
			"admission/config.yaml admission/strategic.yaml admission/rfc6902.yaml admission/want.yaml hostname/rfc6902.json",
		"02-containerd":              "metrics/strategic.yaml pause/strategic.yaml",
		"03-certificate-authorities": "file/strategic.yaml",
		"04-disk-encryption":         "enable/strategic.yaml kinds/config.yaml rotate-add/want.yaml rotate-remove/want.yaml",
		"05-editing":                 "kubelet/rfc6902.json api-server/rfc6902.json kubelet/rfc6902.yaml",
		"06-logging": "first/strategic.yaml kernel-argument/strategic.yaml kmsg/strategic.yaml filebeat/config.yaml " +
			"fluent-bit/config.yaml forwarder/strategic.yaml vector/config.yaml",
		"07-pki":                   "client/config.yaml",
		"08-nvidia-fabric-manager": "modules/strategic.yaml",
		"09-nvidia-oss":            gpu,
		"10-nvidia-proprietary":    gpu,
		"11-image-cache":           "caches/strategic.yaml harbor/want.yaml credentials/strategic.yaml",
		"12-rbac":                  "rbac/strategic.yaml",
		"13-system-extensions":     "status/config.yaml",
	}
}

// TestGuidesAreComplete: no guide, no example and no patch gets lost.
func TestGuidesAreComplete(t *testing.T) {
	all, count := examples(t), 0
	for guide, parts := range printed() {
		for _, part := range strings.Fields(parts) {
			name, file, _ := strings.Cut(part, "/")
			if strings.TrimSpace(all[guide+"/"+name][file]) == "" {
				t.Errorf("guide %s: example %s is not there", guide, part)
			}
			count++
		}
	}
	if len(printed()) != 13 || count != 51 {
		t.Errorf("%d examples of %d guides; they print 51, and are 13", count, len(printed()))
	}
	patches := 0
	for _, e := range all {
		patches += len(e.patches())
	}
	if len(all) != 49 || patches != 56 {
		t.Errorf("%d fixtures with %d patches", len(all), patches)
	}
}

// patches returns the names of the parts that are patches.
func (e example) patches() (names []string) {
	for part := range e {
		if !slices.Contains([]string{"config.yaml", "want.yaml", "refused.yaml", "problem", "refusal"}, part) {
			names = append(names, part)
		}
	}
	slices.Sort(names)
	return names
}

// TestGuides: every example of the guides is read, is written as it was, is
// patched as its guide says, in every format, and the result is one that the
// reader of configurations takes, or refuses for the reason in its fixture.
func TestGuides(t *testing.T) {
	for name, e := range examples(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for part, text := range e {
				if strings.HasSuffix(part, ".yaml") && !strings.HasPrefix(part, "rfc") && part != "refused.yaml" {
					if got := string(read(t, text).Bytes()); got != text {
						t.Errorf("%s is written as\n%s", part, got)
					}
				}
			}
			for _, part := range e.patches() {
				for _, o := range []patch.Options{{}, {Talos: true}} {
					if !o.Talos || part != "ours.yaml" {
						e.check(t, o, part)
					}
				}
			}
			e.checkRefused(t)
			e.checkRead(t)
		})
	}
}

// check applies one of the patches.
func (e example) check(t *testing.T, o patch.Options, part string) {
	t.Helper()
	got := string(apply(t, o, read(t, e["config.yaml"]), e[part]).Bytes())
	if strings.HasPrefix(part, "rfc") {
		// They know no styles of the patch.
		if !equal(read(t, got), read(t, e["want.yaml"])) {
			t.Errorf("%s with %+v gives\n%s", part, o, got)
		}
		return
	}
	if d := cmp.Diff(strings.Split(e["want.yaml"], "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s with %+v (-want +got):\n%s", part, o, d)
	}
}

// checkRefused: what is printed with "..." for what was left out is no YAML.
func (e example) checkRefused(t *testing.T) {
	t.Helper()
	if e["refused.yaml"] == "" {
		return
	}
	_, err := patch.Load("patch", []byte(e["refused.yaml"]))
	if err == nil || err.Error()+"\n" != e["problem"] {
		t.Errorf("refused with %v", err)
	}
}

// checkRead: the strict reader takes what was made.
func (e example) checkRead(t *testing.T) {
	t.Helper()
	text := e["config.yaml"]
	if want := e["want.yaml"]; want != "" {
		text = want
	}
	c, err := config.Read(config.Source{Name: "made", Data: []byte(text)})
	switch refusal := strings.TrimSpace(e["refusal"]); {
	case err == nil && refusal == "":
		c.Wipe()
	case err == nil || err.Error() != refusal:
		t.Errorf("read with %v, want %q", err, refusal)
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
