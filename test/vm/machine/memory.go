package machine

import (
	"path/filepath"
	"testing"
)

// DumpMemory writes all memory of the machine into a file, which goes with the
// test, and returns its path. The machine goes on.
func (m *Machine) DumpMemory(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "memory")
	_, err := m.qmp.do(m.ctx, "pmemsave", map[string]any{"val": 0, "size": m.config.MemoryMiB << 20, "filename": path})
	if err != nil {
		t.Fatal(err)
	}
	return path
}
