package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/internal/durable"
)

// TestCheck: a file system that is sound is believed, and the file stays as it was.
// What a sync may hide is shown by the faults of test/interop, which abort the
// journal of a file system under load.
func TestCheck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for _, content := range []string{"", "content"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := durable.Check(f); err != nil {
				t.Error(err)
			}
		}
		f.Close()
		if got, err := os.ReadFile(path); err != nil || string(got) != content {
			t.Errorf("%q became %q, %v", content, got, err)
		}
	}
}
