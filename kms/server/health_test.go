package server_test

import (
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/server"
)

// TestKeysetGone: a keyset that cannot be read shows in the metrics, the log and
// /readyz, and nodes whose keys are in use are answered.
func TestKeysetGone(t *testing.T) {
	t.Parallel()
	b, log := open(t, t.TempDir(), policy.Rules{Enrol: policy.Open}), &lines{}
	t.Cleanup(b.close)
	r := start(t, b, func(o *server.Options) { o.Log = slog.New(slog.NewTextHandler(log, nil)) })
	cc := plain(t, r.nodes, "")
	raw, err := seal(within(t), cc, nodeA, []byte("data"))
	if err != nil {
		t.Fatal(err)
	}
	up := `cryptctl_kms_part_up{part="kek"}`
	eventually(t, "kek 1", func() bool { return metric(t, r, up) == 1 })
	path := filepath.Join(b.dir, "kek.json")
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "kek 0", func() bool { return metric(t, r, up) == 0 && log.count("not available") == 1 })
	if text := get(t, r, "/readyz", http.StatusOK); !strings.Contains(text, "only nodes whose keys are in use are answered") {
		t.Errorf("/readyz: %q", text)
	}
	if data, err := unseal(within(t), cc, nodeA, raw); err != nil || string(data) != "data" {
		t.Errorf("a key in use: %v", err)
	}
	if err := os.Rename(path+".away", path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "kek 1 again", func() bool { return metric(t, r, up) == 1 && log.count("available again") == 1 })
}

// TestFreeSpaceMetric: how much room the audit log has is told.
func TestFreeSpaceMetric(t *testing.T) {
	if n := metric(t, fresh(t, nil), "cryptctl_kms_audit_free_bytes"); n <= 0 {
		t.Errorf("%v bytes", n)
	}
}
