package patch_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
)

func TestLoad(t *testing.T) {
	for _, tt := range []struct{ text, format string }{
		{"machine: {}\n", "strategic merge"},
		{`{"machine": {}}`, "strategic merge"},
		{"---\nmachine: {}\n---\n" + kmsg, "strategic merge"},
		{"", "strategic merge"},
		{"[]", "RFC 6902"},
		{"- op: remove\n  path: /a\n", "RFC 6902"},
		{"---\n---\n- {op: remove, path: /a}\n", "RFC 6902"},
	} {
		if p := load(t, tt.text); p.Format() != tt.format || p.Name() != "patch" {
			t.Errorf("%q is %s of %s", tt.text, p.Format(), p.Name())
		}
	}
}

func TestArguments(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "p.yaml")
	if err := os.WriteFile(path, []byte("machine: {type: file}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	patches, err := patch.Arguments("@"+path, path, `[{"op":"remove","path":"/machine/token"}]`, "machine: {type: last}")
	if err != nil || len(patches) != 4 || patches[0].Name() != path || patches[3].Name() != "patch 4" {
		t.Fatalf("Arguments gives %v, %v", patches, err)
	}
	s, err := patch.Options{}.Apply(read(t, "machine: {token: x}\n"), patches...)
	if err != nil || string(s.Bytes()) != "machine: {type: last}\n" {
		t.Errorf("in order they give %v", err)
	}
	_, err = patch.Arguments("@"+filepath.Join(dir, "no"), "nosuchfile", "a: [", "machine: {}")
	want := filepath.Join(dir, "no") + ": no such file; check the path\nnosuchfile: no such file; check the path\n" +
		"patch 3:2: did not find expected node content; mend the YAML on this line or the one above"
	if err == nil || err.Error() != want {
		t.Errorf("error\n%v\nwant\n%s", err, want)
	}
	if _, ok := err.(document.Errors); !ok {
		t.Errorf("error is a %T", err)
	}
}
