//go:build vm

package vm_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"

	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// memory is a dump of a machine's memory.
type memory struct{ of, path string }

// dump dumps the machine's memory, and shows that what is in it is found.
func (g *guest) dump(t *testing.T, of string) *memory {
	t.Helper()
	marker := make([]byte, 32)
	rand.Read(marker)
	g.do(t, "write", wire.File{Path: "/run/marker", Content: marker}, nil)
	m := &memory{of, g.DumpMemory(t)}
	if m.count(t, marker) == 0 {
		t.Fatal("what is in the machine's memory is not found in the dump of it")
	}
	return m
}

// find returns what of a secret is in the dump: it, its base64, or half of either.
func (m *memory) find(t *testing.T, name string, secret []byte) (found []string) {
	t.Helper()
	if len(secret) < 32 {
		t.Fatalf("%s: a secret of %d bytes", name, len(secret))
	}
	text := []byte(base64.StdEncoding.EncodeToString(secret))
	for form, b := range map[string][]byte{"": secret, " in base64": text} {
		half := len(b) / 2
		for part, piece := range map[string][]byte{"first half": b[:half], "second half": b[half:]} {
			if n := m.count(t, piece); n > 0 {
				found = append(found, fmt.Sprintf("the memory of %s has the %s of %s%s %d times", m.of, part, name, form, n))
			}
		}
	}
	return found
}

// count returns how often bytes are in the dump.
func (m *memory) count(t *testing.T, b []byte) (n int) {
	t.Helper()
	f, err := os.Open(m.path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf, kept := make([]byte, 4<<20), 0 // the end of the part before, where b may begin
	for {
		got, err := io.ReadFull(f, buf[kept:])
		n += bytes.Count(buf[:kept+got], b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = copy(buf, buf[len(buf)-len(b)+1:])
	}
}
