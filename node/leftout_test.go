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
}
