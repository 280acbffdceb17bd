package bolt_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/kms/store"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
)

// TestReadBackup: a backup is read where it lies and not touched; one that is cut or
// changed is refused.
func TestReadBackup(t *testing.T) {
	dir := t.TempDir()
	db, err := bolt.Open(filepath.Join(dir, "nodes.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, name := range []string{"a", "b/c"} {
		if _, err := db.Swap(t.Context(), name, 0, []byte("value of "+name)); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := db.Backup(&out); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "copy")
	put := func(text []byte) {
		t.Helper()
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(out.Bytes())
	got := map[string]string{}
	take := func(i store.Item) error { got[i.Name] = string(i.Value); return nil }
	sum, err := bolt.ReadBackup(t.Context(), path, take)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"a": "value of a", "b/c": "value of b/c"}, got); diff != "" {
		t.Error(diff)
	}
	if want := sha256.Sum256(out.Bytes()); !bytes.Equal(sum, want[:]) {
		t.Errorf("sum %x", sum)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, out.Bytes()) {
		t.Errorf("it was changed: %v", err)
	}
	stop := errors.New("enough")
	if _, err := bolt.ReadBackup(t.Context(), path, func(store.Item) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("stopped: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bolt.ReadBackup(ended, path, take); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	for at := range out.Len() {
		if at%997 != 0 {
			continue
		}
		changed := bytes.Clone(out.Bytes())
		changed[at] ^= 1
		put(changed)
		if _, err := bolt.ReadBackup(t.Context(), path, take); err == nil {
			t.Fatalf("byte %d changed, and it is read", at)
		}
		put(out.Bytes()[:at])
		if _, err := bolt.ReadBackup(t.Context(), path, take); err == nil {
			t.Fatalf("cut at %d, and it is read", at)
		}
	}
	if _, err := bolt.ReadBackup(t.Context(), dir, take); err == nil {
		t.Error("a directory is read")
	}
}
