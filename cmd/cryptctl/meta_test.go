package main

import (
	"os"
	"path/filepath"
	"testing"
)

// metaIn makes META with a value, and gives its second copy a flaw.
func metaIn(t *testing.T, value string) (dir, image string) {
	t.Helper()
	dir = t.TempDir()
	image = filepath.Join(dir, "meta.img")
	write(t, image, "")
	if err := os.Truncate(image, 1<<20); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "value"), value)
	cryptctl(t, dir, 0, "meta", "set", "meta.img", "15", "--value-file", "value")
	if err := overwrite(image, 262200, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	return dir, image
}

func TestMetaRepairAsks(t *testing.T) {
	t.Parallel()
	dir, image := metaIn(t, "a value")
	same := unchanged(t, image)
	s := onTerminal(t, dir, []string{"meta", "repair", "meta.img"}, nil)
	s.expect("copy 2 (at byte 262144) is not used")
	s.expect("The copy of META on meta.img that counts will be written over the other one.")
	s.expect("Type repair to go on: ")
	s.types("yes\n")
	s.expect("cryptctl: not confirmed; nothing was changed")
	s.ends(exitFailure)
	same()

	s = onTerminal(t, dir, []string{"meta", "repair", "meta.img"}, nil)
	s.expect("Type repair to go on: ")
	s.types("repair\n")
	s.expect("wrote copy 2 (at byte 262144) again from copy 1 (at byte 0)")
	s.ends(0)
	cryptctl(t, dir, 0, "meta", "list", "meta.img")
}

// A value may hold what a terminal acts on.
func TestMetaGetOnTerminal(t *testing.T) {
	t.Parallel()
	dir, _ := metaIn(t, "a\x1b[2Jvalue")
	s := onTerminal(t, dir, []string{"meta", "get", "meta.img", "15"}, nil)
	s.expect("the value of UUIDOverride is not plain text, which a terminal may act on; send it to a file")
	s.ends(exitFailure)

	dir, _ = metaIn(t, "plain\n")
	s = onTerminal(t, dir, []string{"meta", "get", "meta.img", "15"}, nil)
	s.expect("plain")
	s.ends(0)
}
