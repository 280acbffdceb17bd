package audit_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// TestUnfit: a log that does not fit its head is refused with the way out, and
// stays as it is; what only cannot be read now has no such way.
func TestUnfit(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, dir, file string)
		want  bool // that adopting is offered
	}{
		"head missing": {func(t *testing.T, dir, _ string) { os.Remove(filepath.Join(dir, "head")) }, true},
		"head damaged": {func(t *testing.T, dir, _ string) { write(t, filepath.Join(dir, "head"), []byte("7")) }, true},
		"cut":          {func(t *testing.T, _, file string) { write(t, file, read(t, file)[:20]) }, true},
		"edited": {func(t *testing.T, _, file string) {
			write(t, file, bytes.Replace(read(t, file), []byte("allowed"), []byte("refused"), 1))
		}, true},
		"head is no file": {func(t *testing.T, dir, _ string) {
			os.Remove(filepath.Join(dir, "head"))
			os.Mkdir(filepath.Join(dir, "head"), 0o700)
		}, false},
	} {
		dir := written(t, 4, audit.Options{})
		file := logFiles(t, dir)[0]
		test.spoil(t, dir, file)
		before := read(t, file)
		_, err := audit.Open(dir, audit.Options{})
		told := err != nil && strings.Contains(err.Error(), "cryptctl kms audit adopt "+dir)
		if errors.Is(err, audit.ErrUnfit) != test.want || told != test.want || err == nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(read(t, file), before) {
			t.Errorf("%s: a refused log was changed", name)
		}
		l, err := audit.Open(dir, audit.Options{Adopt: true})
		if (err == nil) != test.want {
			t.Errorf("%s: adopted: %v", name, err)
		}
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := audit.Verify(t.Context(), dir); err != nil || !bytes.Contains(read(t, file), []byte(`"detail":"adopted: `)) {
			t.Errorf("%s: after adopting: %v, %s", name, err, read(t, file))
		}
	}
}

// TestVerifyArchive: older files of a log, in a directory of their own, are held
// against their names, each other, and heads that were kept.
func TestVerifyArchive(t *testing.T) {
	whole := written(t, 12, audit.Options{FileSize: 500})
	names := logFiles(t, whole)
	if len(names) < 4 {
		t.Fatalf("%d files", len(names))
	}
	archive := func(names ...string) string {
		dir := t.TempDir()
		for _, name := range names {
			write(t, filepath.Join(dir, filepath.Base(name)), read(t, name))
		}
		return dir
	}
	live := archive(append(names[3:], filepath.Join(whole, "head"))...)
	rest, err := audit.Verify(t.Context(), live)
	if err != nil {
		t.Fatal(err)
	}
	first, err := audit.VerifyArchive(t.Context(), archive(names[0]))
	if err != nil {
		t.Fatal(err)
	}
	rep, err := audit.VerifyArchive(t.Context(), archive(names[:3]...), first.Last, rest.Before)
	if err != nil || rep.Files != 3 || rep.First != 1 || rep.Before != (audit.Head{}) || rep.Last != rest.Before || rep.Last.Seq == 0 {
		t.Errorf("%+v, %v; the log goes on after %v", rep, err, rest.Before)
	}
	middle := archive(names[1:3]...)
	if rep, err := audit.VerifyArchive(t.Context(), middle, first.Last); err != nil || rep.Before != first.Last {
		t.Errorf("%+v, %v", rep, err)
	}
	other := first.Last
	other.Hash[0] ^= 1
	edited := archive(names[:3]...)
	inside := filepath.Join(edited, filepath.Base(names[1]))
	write(t, inside, bytes.Replace(read(t, inside), []byte("allowed"), []byte("refused"), 1))
	for name, test := range map[string]struct {
		dir  string
		head audit.Head
		want audit.Kind
		text string
	}{
		"cut":           {archive(names[:2]...), rest.Before, audit.Cut, ""},
		"gap":           {archive(names[0], names[2]), first.Last, audit.Missing, ""},
		"edited":        {edited, first.Last, audit.Edited, ""},
		"another start": {middle, other, audit.Replaced, ""},
		"another end":   {archive(names[0]), other, audit.Replaced, ""},
		"too new":       {archive(names[2]), audit.Head{Seq: 1}, "", "is in an older file"},
		"nothing":       {t.TempDir(), first.Last, "", "has no file of an audit log"},
	} {
		_, err := audit.VerifyArchive(t.Context(), test.dir, test.head)
		if err == nil || kindOf(err) != test.want || !strings.Contains(err.Error(), test.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := audit.Verify(t.Context(), middle); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log without its head verifies: %v", err)
	}
}
