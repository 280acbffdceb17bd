package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInterruptedText: what a signal ends speaks of a header only where there is
// one.
func TestInterruptedText(t *testing.T) {
	t.Parallel()
	const header, other = "interrupted; the header has either its old content or the complete new one", "interrupted before it was done"
	const daemon = "interrupted; what the node did is not known: see cryptctl status"
	for line, want := range map[string]string{
		"sync": header, "key add": header, "header restore": header, "erase": header, "format": header,
		"kms init": other, "kms node approve": other, "pki cert": other, "config patch": other, "meta set": other,
		"status": other, "boot": other, "close": other, "apply": daemon, "reset": daemon,
	} {
		cmd, _, err := root().Find(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		if got := interruptedText(cmd); got != want {
			t.Errorf("%s: %q", line, got)
		}
	}
	dir := t.TempDir()
	s := onTerminal(t, dir, []string{"kms", "init", "fleet", "--passphrase-file", "-"}, nil)
	s.expect("New passphrase: ")
	s.until("the end of the echo", func() bool { return !s.echoes() })
	s.types("\x03")
	s.expect("cryptctl: interrupted before it was done\r\n")
	s.ends(exitFailure)
	if _, err := os.Stat(filepath.Join(dir, "fleet")); err == nil {
		t.Error("something was made")
	}
}
