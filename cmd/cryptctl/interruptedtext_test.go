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
	for line, header := range map[string]bool{
		"sync": true, "key add": true, "header restore": true, "erase": true,
		"kms init": false, "kms node approve": false, "pki cert": false, "config patch": false,
	} {
		cmd, _, err := root().Find(strings.Fields(line))
		if err != nil {
			t.Fatal(err)
		}
		if got := interruptedText(cmd); strings.Contains(got, "the header is as it was") != header || !strings.HasPrefix(got, "interrupted") {
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
