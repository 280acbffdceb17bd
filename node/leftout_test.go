package node_test

import (
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/node"
)

// TestLeftOut: a stored configuration with a certificate that this version cannot
// read, as Talos or an older version left it, opens the volumes, and the operator is
// told. Apply refuses it.
func TestLeftOut(t *testing.T) {
	r := newRig(t)
	r.mustReboot(t)
	base := config(k("s0"), k("e0"))
	r.apply(t, base, node.Auto)
	r.write(t, "EPHEMERAL")
	odd := base + roots(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("of another time")})))
	if _, err := r.Apply(t.Context(), []byte(odd), node.Auto); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("Apply: %v", err)
	}
	if err := os.WriteFile(filepath.Join(r.dir("STATE"), "config.yaml"), []byte(odd), 0o600); err != nil {
		t.Fatal(err)
	}
	r.mustReboot(t)
	r.wantPhase(t, node.Running)
	r.wantOpen(t, "STATE", "EPHEMERAL")
	if !r.has(t, "EPHEMERAL") {
		t.Error("EPHEMERAL is another one")
	}
	if all := strings.Join(r.Status().Notices, "\n"); strings.Count(all, "left out") != 1 || !strings.Contains(all, "certificates: has a certificate that cannot be read") {
		t.Errorf("notices: %s", all)
	}
	r.apply(t, base, node.Auto)
	if all := r.Status().Notices; len(all) > 0 {
		t.Errorf("notices with a right configuration in force: %q", all)
	}
}

// TestFormerUnread: a former configuration that cannot be read is named, and stays:
// it may have the only key of a volume.
func TestFormerUnread(t *testing.T) {
	t.Parallel()
	r := running(t, config(k("s0"), k("e0")))
	r.apply(t, config(k("s0"), k("e1")), node.Staged)
	all, _ := filepath.Glob(filepath.Join(r.dir("STATE"), "cryptctl/former/*"))
	if len(all) != 1 {
		t.Fatalf("former configurations: %q", all)
	}
	text, err := os.ReadFile(all[0])
	if err != nil {
		t.Fatal(err)
	}
	odd := strings.Replace(string(text), "  type: worker\n", "  type: worker\n  env: {A: a, A: b}\n", 1)
	if err := os.WriteFile(all[0], []byte(odd), 0o600); err != nil {
		t.Fatal(err)
	}
	r.mustReboot(t)
	if v := r.volume(t, "EPHEMERAL"); v.Phase != node.VolumeFailed {
		t.Errorf("EPHEMERAL is %s", v.Phase)
	}
	if n := r.Status().Notices; len(n) != 1 || !strings.Contains(n[0], filepath.Base(all[0])) {
		t.Errorf("notices %q", n)
	}
	if err := os.WriteFile(all[0], text, 0o600); err != nil {
		t.Fatalf("it did not stay: %v", err)
	}
	if err := r.Boot(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantOpen(t, bothVolumes...)
}
