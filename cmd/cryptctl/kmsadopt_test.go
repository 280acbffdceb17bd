package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// TestAdoptAsks: without the word nothing is changed, and with it the log is one
// that opens; what root makes belongs to the directory's owner.
func TestAdoptAsks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "audit")
	l, err := audit.Open(log, audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := l.Append(audit.Event{Op: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(log, "head")); err != nil {
		t.Fatal(err)
	}
	owner := os.Geteuid()
	if owner == 0 {
		owner = 4711
		for _, path := range []string{log, filepath.Join(log, "0000000000000001.jsonl")} {
			if err := os.Chown(path, owner, owner); err != nil {
				t.Fatal(err)
			}
		}
	}
	same := unchanged(t, filepath.Join(log, "0000000000000001.jsonl"))
	for _, wrong := range []string{"yes\n", "\x04"} {
		s := onTerminal(t, dir, []string{"kms", "audit", "adopt", "audit"}, nil)
		s.expect("its head is missing or damaged")
		s.expect("Type adopt to go on: ")
		s.types(wrong)
		s.expect("cryptctl: not confirmed; nothing was changed")
		s.ends(exitFailure)
	}
	s := onTerminal(t, dir, []string{"kms", "audit", "adopt", "audit"}, nil)
	s.expect("Type adopt to go on: ")
	s.types("\x03")
	s.expect("cryptctl: interrupted; nothing was changed")
	s.ends(exitFailure)
	same()
	if _, err := os.Stat(filepath.Join(log, "head")); err == nil {
		t.Error("there is a head")
	}
	s = onTerminal(t, dir, []string{"kms", "audit", "adopt", "audit"}, nil)
	s.expect("Type adopt to go on: ")
	s.types("adopt\n")
	s.expect("audit is adopted: record 4 says what was wrong")
	s.ends(0)
	if rep, err := audit.Verify(t.Context(), log); err != nil || rep.Records != 4 {
		t.Errorf("%+v, %v", rep, err)
	}
	files, err := os.ReadDir(log)
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if s, ok := info.Sys().(*syscall.Stat_t); !ok || int(s.Uid) != owner {
			t.Errorf("%s belongs to %d", f.Name(), s.Uid)
		}
	}
}

// TestArchiveIsShown: the head that an archive is held against comes from the log
// that goes on.
func TestArchiveIsShown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log, old := filepath.Join(dir, "audit"), filepath.Join(dir, "old")
	l, err := audit.Open(log, audit.Options{FileSize: 300})
	if err != nil {
		t.Fatal(err)
	}
	for range 6 {
		if err := l.Append(audit.Event{Op: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(log, "*.jsonl"))
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	if err := os.Mkdir(old, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range names[:2] {
		if err := os.Rename(name, filepath.Join(old, filepath.Base(name))); err != nil {
			t.Fatal(err)
		}
	}
	out, _ := cryptctl(t, dir, 0, "kms", "audit", "verify", "audit")
	_, before, ok := strings.Cut(out, "\nbefore: ")
	if !ok {
		t.Fatal(out)
	}
	before = strings.TrimSpace(before)
	archived, _ := cryptctl(t, dir, 0, "kms", "audit", "verify", "--archive", "old", "--head", before)
	if !strings.Contains(archived, "\nhead: "+before+"\n") || strings.Contains(archived, "before:") {
		t.Errorf("%q after %s", archived, before)
	}
	if err := os.Remove(filepath.Join(old, filepath.Base(names[1]))); err != nil {
		t.Fatal(err)
	}
	if _, problem := cryptctl(t, dir, 1, "kms", "audit", "verify", "--archive", "old", "--head", before); !strings.Contains(problem, "cut: the log ends with record") {
		t.Error(problem)
	}
}
