package vault_test

import (
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
	"github.com/cryptctl/cryptctl/secret"
)

const nodeUUID = "01234567-89ab-cdef-0123-456789abcdef"

func request() keeper.Request {
	return keeper.Request{Node: nodeUUID, Source: netip.MustParseAddr("192.0.2.7")}
}

// open starts a keeper on a directory; it has nothing in memory of an earlier one.
func open(t *testing.T, dir string, o kek.TransitOptions) (k *keeper.Keeper, stop func()) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, "nodes.db"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := audit.Open(filepath.Join(dir, "audit"), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	k, err = keeper.New(t.Context(), keeper.Options{Store: db, KEK: client(t, o), Audit: l, Rules: policy.Rules{Enrol: policy.Open}})
	if err != nil {
		t.Fatal(err)
	}
	return k, func() {
		k.Close()
		l.Close()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func unseal(t *testing.T, k *keeper.Keeper, raw []byte, want *secret.Bytes) {
	t.Helper()
	data, err := k.Unseal(t.Context(), request(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Release(data)
	if !data.Equal(want) {
		t.Fatal("other data came back")
	}
}

// TestKeeper: the key-encryption key is rotated, the nodes' keys are rewrapped, the
// old version is retired in Vault, and the node's blob still opens.
func TestKeeper(t *testing.T) {
	both(t, func(t *testing.T, s *server, o kek.TransitOptions) {
		dir, data, by := t.TempDir(), secret.Random(32), keeper.Operator{Name: "op"}
		k, stop := open(t, dir, o)
		raw, err := k.Seal(t.Context(), request(), data)
		if err != nil {
			t.Fatal(err)
		}
		unseal(t, k, raw, data)
		if _, err := client(t, o).Rotate(t.Context()); err != nil {
			t.Fatal(err)
		}
		if r, err := k.Rewrap(t.Context(), by, nil); err != nil || r.Renewed != 1 || r.Failed != 0 {
			t.Fatalf("%+v, %v", r, err)
		}
		if use, err := k.KEKUse(t.Context()); err != nil || use["v1"] != 0 || use["v2"] != 1 {
			t.Fatal(use, err)
		}
		s.must(http.MethodPost, mount+"/keys/"+o.Key+"/config", map[string]any{"min_decryption_version": 2}, nil)
		stop()

		k, stop = open(t, dir, o)
		defer stop()
		unseal(t, k, raw, data)
	})
}

// TestKeeperWithoutVault: nodes are told to come later while it is sealed or gone,
// and are served when it is back.
func TestKeeperWithoutVault(t *testing.T) {
	s := start(t)
	o, dir, data := s.options(plain), t.TempDir(), secret.Random(32)
	k, stop := open(t, dir, o)
	raw, err := k.Seal(t.Context(), request(), data)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	k, stop = open(t, dir, o)
	defer stop()
	for _, change := range []func(){s.seal, s.down, s.up} {
		change()
		got, err := k.Unseal(t.Context(), request(), raw)
		k.Release(got)
		if code := keeper.CodeOf(err); code != keeper.Unavailable {
			t.Errorf("code %v: %v", code, err)
		}
	}
	s.open()
	unseal(t, k, raw, data)
}
