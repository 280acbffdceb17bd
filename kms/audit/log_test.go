package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/audit"
)

func mustOpen(t testing.TB, dir string, o audit.Options) *audit.Log {
	t.Helper()
	l, err := audit.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// written makes a closed log of n records and returns its directory.
func written(t testing.TB, n int, o audit.Options) string {
	t.Helper()
	dir := t.TempDir()
	l := mustOpen(t, dir, o)
	for i := range n {
		if err := l.Append(audit.Event{Op: "unseal", Node: fmt.Sprint("node ", i), Outcome: "allowed"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func logFiles(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	return names
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func kindOf(err error) audit.Kind {
	if f, ok := errors.AsType[*audit.Fault](err); ok {
		return f.Kind
	}
	return ""
}

func TestRecordIsJSON(t *testing.T) {
	dir := t.TempDir()
	at := time.Date(2026, 11, 22, 13, 14, 15, 16, time.FixedZone("CET", 3600))
	l := mustOpen(t, dir, audit.Options{Now: func() time.Time { return at }})
	nasty := "line\nend, \"quote\", \x00, \xff" + strings.Repeat("é", 4000)
	if err := l.Append(audit.Event{Op: "unseal", Node: "n", Actor: nasty, KeyVersion: 3}); err != nil {
		t.Fatal(err)
	}
	text := read(t, logFiles(t, dir)[0])
	if bytes.Count(text, []byte("\n")) != 1 {
		t.Fatalf("not one line: %q", text)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got["op"] != "unseal" || got["seq"] != 1.0 || got["time"] != "2026-11-22T12:14:15.000000016Z" || got["key_version"] != 3.0 {
		t.Errorf("%v", got)
	}
	if actor := got["actor"].(string); len(actor) > 300 || !strings.HasPrefix(actor, "line\nend") || !strings.HasSuffix(actor, "é") {
		t.Errorf("actor of %d bytes: %q", len(actor), actor)
	}
	if got["hash"] != strings.SplitN(l.Head().String(), ":", 2)[1] {
		t.Errorf("head %v, record %v", l.Head(), got["hash"])
	}
	if _, ok := got["reason"]; ok {
		t.Error("an empty member was written")
	}
}

func TestManyAppenders(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, audit.Options{FileSize: 20_000})
	const people, each = 16, 40
	var wg sync.WaitGroup
	for p := range people {
		wg.Go(func() {
			for i := range each {
				if err := l.Append(audit.Event{Op: "unseal", Node: fmt.Sprint(p, "/", i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(audit.Event{Op: "late"}); !errors.Is(err, audit.ErrUnusable) {
		t.Errorf("append after close: %v", err)
	}
	rep, err := audit.Verify(t.Context(), dir, l.Head())
	if err != nil || rep.Records != people*each || rep.Last != l.Head() || rep.First != 1 || rep.Files < 3 {
		t.Fatalf("%+v, %v", rep, err)
	}
	var all []byte
	for _, f := range logFiles(t, dir) {
		all = append(all, read(t, f)...)
	}
	for p := range people {
		at := 0
		for i := range each { // each one's records are all there, in its order
			n := bytes.Index(all[at:], fmt.Appendf(nil, `"node":"%d/%d"`, p, i))
			if n < 0 {
				t.Fatalf("record %d of %d is missing or out of order", i, p)
			}
			at += n
		}
	}
}

func TestGoesOnAfterClose(t *testing.T) {
	dir := written(t, 3, audit.Options{})
	l := mustOpen(t, dir, audit.Options{})
	if l.Head().Seq != 3 {
		t.Fatalf("head %v", l.Head())
	}
	if _, err := audit.Open(dir, audit.Options{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("opened twice: %v", err)
	}
	if err := l.Append(audit.Event{Op: "seal"}); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if rep, err := audit.Verify(t.Context(), dir); err != nil || rep.Records != 4 {
		t.Fatalf("%+v, %v", rep, err)
	}
}

// TestTornEnd cuts the last file anywhere after the head: what was returned for
// stays, the rest is put aside, and the log verifies before and after.
func TestTornEnd(t *testing.T) {
	dir := written(t, 3, audit.Options{})
	name := logFiles(t, dir)[0]
	text, head := read(t, name), read(t, filepath.Join(dir, "head"))
	lines := bytes.SplitAfter(text, []byte("\n"))
	more := written(t, 5, audit.Options{}) // any bytes will do for what follows
	tail := read(t, logFiles(t, more)[0])[len(text)-10:]
	for _, n := range []int{0, 1, 100, len(lines[0]) - 1, len(lines[0]) + 5, len(tail)} {
		again := t.TempDir()
		write(t, filepath.Join(again, filepath.Base(name)), append(bytes.Clone(text), tail[:n]...))
		write(t, filepath.Join(again, "head"), head)
		if n > 0 && !bytes.Contains(tail[:n], []byte("\n")) {
			if rep, err := audit.Verify(t.Context(), again); err != nil || rep.Unfinished != n {
				t.Errorf("%d bytes: %+v, %v", n, rep, err)
			}
		}
		l, err := audit.Open(again, audit.Options{})
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if err := l.Append(audit.Event{Op: "seal"}); err != nil {
			t.Fatal(err)
		}
		l.Close()
		want := uint64(4)
		if n > 0 {
			want = 5 // the recovery is on record
		}
		rep, err := audit.Verify(t.Context(), again, l.Head())
		if err != nil || rep.Records != want || rep.Unfinished != 0 {
			t.Errorf("%d bytes: %+v, %v", n, rep, err)
		}
		aside, _ := filepath.Glob(filepath.Join(again, "torn-*"))
		if n > 0 && (len(aside) != 1 || !bytes.Equal(read(t, aside[0]), tail[:n])) {
			t.Errorf("%d bytes: put aside %v", n, aside)
		}
	}
}

// TestCutIsRefused takes bytes that the head covers.
func TestCutIsRefused(t *testing.T) {
	whole := written(t, 4, audit.Options{})
	text := read(t, logFiles(t, whole)[0])
	for n := 0; n < len(text); n += 97 {
		dir := t.TempDir()
		name := filepath.Join(dir, filepath.Base(logFiles(t, whole)[0]))
		write(t, name, text[:n])
		write(t, filepath.Join(dir, "head"), read(t, filepath.Join(whole, "head")))
		if _, err := audit.Open(dir, audit.Options{}); kindOf(err) != audit.Cut {
			t.Fatalf("cut to %d: opens with %v", n, err)
		}
		if _, err := audit.Verify(t.Context(), dir); kindOf(err) != audit.Cut {
			t.Fatalf("cut to %d: verifies with %v", n, err)
		}
		if !bytes.Equal(read(t, name), text[:n]) {
			t.Fatal("a refused log was changed")
		}
		l, err := audit.Open(dir, audit.Options{Adopt: true})
		if err != nil {
			t.Fatalf("adopt: %v", err)
		}
		l.Close()
		if _, err := audit.Verify(t.Context(), dir); err != nil {
			t.Fatalf("cut to %d, adopted: %v", n, err)
		}
		if !bytes.Contains(read(t, name), []byte("adopted: ")) {
			t.Fatal("adopting left no record")
		}
	}
}

func TestHeadLost(t *testing.T) {
	for _, bad := range []string{"", "12:zz", strings.Repeat("x", 86)} {
		dir := written(t, 3, audit.Options{})
		head := filepath.Join(dir, "head")
		if write(t, head, []byte(bad)); bad == "" {
			os.Remove(head)
		}
		if _, err := audit.Open(dir, audit.Options{}); err == nil || !strings.Contains(err.Error(), "adopt") {
			t.Errorf("head %q: %v", bad, err)
		}
		if _, err := audit.Verify(t.Context(), dir); err == nil {
			t.Errorf("head %q: verifies", bad)
		}
		l, err := audit.Open(dir, audit.Options{Adopt: true})
		if err != nil || l.Head().Seq != 4 {
			t.Fatalf("head %q: adopt: %v", bad, err)
		}
		l.Close()
	}
}

// TestCrashAtTheStart has a head that was not written yet, and no records.
func TestCrashAtTheStart(t *testing.T) {
	for _, head := range [][]byte{{}, make([]byte, 86)} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "head"), head)
		l := mustOpen(t, dir, audit.Options{})
		if err := l.Append(audit.Event{Op: "seal"}); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if rep, err := audit.Verify(t.Context(), dir); err != nil || rep.Records != 1 {
			t.Errorf("%+v, %v", rep, err)
		}
	}
	dir := written(t, 3, audit.Options{})
	os.Remove(logFiles(t, dir)[0])
	if _, err := audit.Open(dir, audit.Options{}); kindOf(err) != audit.Cut {
		t.Errorf("all records gone: %v", err)
	}
}

// TestCrashAtRotation has a new file that is empty, or torn in its first record.
func TestCrashAtRotation(t *testing.T) {
	for _, begun := range []string{"", `{"seq":4,"prev":"`} {
		dir := written(t, 3, audit.Options{})
		next := filepath.Join(dir, "0000000000000004.jsonl")
		write(t, next, []byte(begun))
		l, err := audit.Open(dir, audit.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(audit.Event{Op: "seal"}); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if rep, err := audit.Verify(t.Context(), dir); err != nil || rep.Files != 2 || rep.Last != l.Head() || rep.Records < 4 {
			t.Errorf("%q: %+v, %v", begun, rep, err)
		}
	}
}

func TestVerifyFindsWhatWasDone(t *testing.T) {
	whole := written(t, 9, audit.Options{FileSize: 500})
	names := logFiles(t, whole)
	if len(names) < 2 {
		t.Fatal("no rotation")
	}
	kept, err := audit.Verify(t.Context(), whole)
	if err != nil {
		t.Fatal(err)
	}
	lines := func(dir string) [][]byte {
		s := bytes.SplitAfter(read(t, logFiles(t, dir)[0]), []byte("\n"))
		return s[:len(s)-1]
	}
	join := func(t *testing.T, dir string, l ...[]byte) {
		write(t, logFiles(t, dir)[0], bytes.Join(l, nil))
	}
	for _, tt := range []struct {
		name string
		do   func(t *testing.T, dir string, l [][]byte)
		want audit.Kind
		line int
	}{
		{"nothing", func(*testing.T, string, [][]byte) {}, "", 0},
		{"content edited", func(t *testing.T, dir string, l [][]byte) {
			join(t, dir, l[0], bytes.Replace(l[1], []byte("allowed"), []byte("refused"), 1), l[2])
		}, audit.Edited, 2},
		{"hash written otherwise", func(t *testing.T, dir string, l [][]byte) {
			at := bytes.Index(l[1], []byte(`"hash":"`)) + len(`"hash":"`)
			join(t, dir, l[0], slices.Concat(l[1][:at], bytes.ToUpper(l[1][at:at+64]), l[1][at+64:]), l[2])
		}, audit.Foreign, 2},
		{"number edited", func(t *testing.T, dir string, l [][]byte) {
			join(t, dir, l[0], bytes.Replace(l[1], []byte(`"seq":2`), []byte(`"seq":3`), 1), l[2])
		}, audit.Edited, 2},
		{"record of another log", func(t *testing.T, dir string, l [][]byte) {
			join(t, dir, l[0], lines(written(t, 9, audit.Options{FileSize: 500}))[1], l[2])
		}, audit.Replaced, 2},
		{"last record of the file of another log", func(t *testing.T, dir string, l [][]byte) {
			join(t, dir, l[0], l[1], lines(written(t, 9, audit.Options{FileSize: 500}))[2])
		}, audit.Replaced, 3},
		{"line removed", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[0], l[2]) }, audit.Missing, 2},
		{"line doubled", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[0], l[1], l[1], l[2]) }, audit.Reordered, 3},
		{"lines swapped", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[0], l[2], l[1]) }, audit.Missing, 2},
		{"first lines taken", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[1], l[2]) }, audit.Missing, 1},
		{"line end lost in the middle", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[0], l[1], bytes.TrimSpace(l[2])) }, audit.Torn, 3},
		{"a note added", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[0], []byte("# hello\n"), l[1], l[2]) }, audit.Foreign, 2},
		{"a blank line", func(t *testing.T, dir string, l [][]byte) { join(t, dir, l[0], []byte("\n"), l[1], l[2]) }, audit.Foreign, 2},
		{"an endless line", func(t *testing.T, dir string, l [][]byte) {
			join(t, dir, l[0], bytes.Repeat([]byte("x"), audit.MaxLine+1))
		}, audit.Foreign, 2},
		{"last file gone", func(t *testing.T, dir string, _ [][]byte) {
			f := logFiles(t, dir)
			os.Remove(f[len(f)-1])
		}, audit.Cut, 0},
		{"middle file gone", func(t *testing.T, dir string, _ [][]byte) { os.Remove(logFiles(t, dir)[1]) }, audit.Missing, 0},
		{"all of it made anew", func(t *testing.T, dir string, _ [][]byte) {
			other := written(t, 9, audit.Options{FileSize: 500})
			for _, f := range append(logFiles(t, other), filepath.Join(other, "head")) {
				write(t, filepath.Join(dir, filepath.Base(f)), read(t, f))
			}
		}, audit.Replaced, 0},
		{"made anew and longer", func(t *testing.T, dir string, _ [][]byte) {
			other := written(t, 20, audit.Options{FileSize: 500})
			for _, f := range append(logFiles(t, other), filepath.Join(other, "head")) {
				write(t, filepath.Join(dir, filepath.Base(f)), read(t, f))
			}
		}, audit.Replaced, 0},
		{"old files archived", func(t *testing.T, dir string, _ [][]byte) { os.Remove(logFiles(t, dir)[0]) }, "", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range append(names, filepath.Join(whole, "head")) {
				write(t, filepath.Join(dir, filepath.Base(f)), read(t, f))
			}
			tt.do(t, dir, lines(dir))
			rep, err := audit.Verify(t.Context(), dir, kept.Last)
			if kindOf(err) != tt.want || tt.want == "" && err != nil {
				t.Fatalf("%v (%+v), want %q", err, rep, tt.want)
			}
			if f, ok := errors.AsType[*audit.Fault](err); ok && tt.line > 0 && (f.Line != tt.line || f.File != logFiles(t, dir)[0]) {
				t.Errorf("%v, want line %d", err, tt.line)
			}
		})
	}
}

func TestHeadText(t *testing.T) {
	h := audit.Head{Seq: 12, Hash: [32]byte{1, 2, 255}}
	if got, err := audit.ParseHead(h.String()); err != nil || got != h {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "12", ":", "012:" + strings.Repeat("0", 64), "1:" + strings.Repeat("A", 64), "-1:" + strings.Repeat("0", 64), h.String() + " "} {
		if got, err := audit.ParseHead(bad); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, audit.Options{FileSize: 500})
	for i := range 9 {
		if err := l.Append(audit.Event{Op: "unseal", Node: fmt.Sprint(i + 1), KeyVersion: 3}); err != nil {
			t.Fatal(err)
		}
	}
	for from := uint64(0); from < 12; from++ {
		want, last := max(from, 1), audit.Head{}
		for r, err := range audit.Read(dir, from) { // while it is open
			if err != nil {
				t.Fatal(err)
			}
			if r.Seq != want || r.Node != fmt.Sprint(want) || r.KeyVersion != 3 || r.Time.IsZero() || r.Prev.Seq != want-1 || last.Seq > 0 && r.Prev != last {
				t.Fatalf("from %d: %+v, want record %d", from, r, want)
			}
			last = r.Head
			want++
		}
		if from <= 9 && last != l.Head() || from > 9 && last.Seq != 0 {
			t.Errorf("from %d: the last one is %v", from, last)
		}
	}
	seen := 0
	for range audit.Read(dir, 2) {
		if seen++; seen == 2 {
			break
		}
	}
	if seen != 2 {
		t.Errorf("%d records", seen)
	}
	l.Close()
	name := logFiles(t, dir)[1]
	write(t, name, bytes.Replace(read(t, name), []byte("unseal"), []byte("seal__"), 1))
	var err error
	for _, err = range audit.Read(dir, 1) {
	}
	if kindOf(err) != audit.Edited {
		t.Errorf("an edited log: %v", err)
	}
}
