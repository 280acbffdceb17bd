package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cryptctl/cryptctl/kms/audit"
)

// next gives what a cursor has to give, at most so many.
func next(t *testing.T, c *audit.Cursor, most int) (all []audit.Record, err error) {
	t.Helper()
	for r, err := range c.Records() {
		if err != nil {
			return all, err
		}
		if all = append(all, r); len(all) == most {
			break
		}
	}
	return all, nil
}

// TestCursor follows a log through its files, in steps and in parts of them.
func TestCursor(t *testing.T) {
	dir := t.TempDir()
	l := mustOpen(t, dir, audit.Options{FileSize: 1000})
	defer l.Close()
	for _, from := range []uint64{1, 25} {
		c := audit.NewCursor(dir, from)
		seq, prev := from, audit.Head{}
		for step := range 12 {
			for i := range step {
				if err := l.Append(audit.Event{Op: "test", Detail: fmt.Sprint(step, i)}); err != nil {
					t.Fatal(err)
				}
			}
			for part := 1; ; part++ {
				got, err := next(t, c, part)
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range got {
					if r.Seq != seq || prev.Seq > 0 && r.Prev != prev {
						t.Fatalf("record %d after %d, not %d: %+v", r.Seq, prev.Seq, seq, r)
					}
					seq, prev = seq+1, r.Head
				}
				if len(got) < part {
					break
				}
			}
		}
		if head := l.Head(); prev != head {
			t.Errorf("from %d it came to %d of %d", from, prev.Seq, head.Seq)
		}
	}
	if n := len(logFiles(t, dir)); n < 5 {
		t.Errorf("%d files: this test shows nothing", n)
	}
}

// TestCursorGoesOn: what was read is not read again; what has no end yet is, and
// what is wrong with the rest is found where it is.
func TestCursorGoesOn(t *testing.T) {
	dir := written(t, 6, audit.Options{})
	path := logFiles(t, dir)[0]
	whole := read(t, path)
	lines := bytes.SplitAfter(whole, []byte("\n"))
	upTo := func(n int) []byte { return bytes.Join(lines[:n], nil) }
	c := audit.NewCursor(dir, 1)
	for _, step := range []struct {
		text []byte
		want int
	}{
		{upTo(2), 2},
		{whole[:len(upTo(2))+10], 0},
		{append(bytes.Repeat([]byte("x"), len(upTo(2))), lines[2]...), 1}, // it does not look back
		{upTo(3), 0},
		{whole[:len(upTo(4))-1], 0},
		{upTo(4), 1},
	} {
		write(t, path, step.text)
		if got, err := next(t, c, 100); err != nil || len(got) != step.want {
			t.Fatalf("%d bytes: %d records, %v", len(step.text), len(got), err)
		}
	}
	write(t, path, append(upTo(4), lines[5]...))
	_, err := next(t, c, 100)
	if f, ok := errors.AsType[*audit.Fault](err); !ok || f.Kind != audit.Missing || f.Line != 5 || f.Seq != 5 || f.File != filepath.Join(dir, filepath.Base(path)) {
		t.Errorf("%v", err)
	}
}

// TestVerifyEnds: a verification ends when nobody waits for it.
func TestVerifyEnds(t *testing.T) {
	dir := written(t, 6, audit.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	if rep, err := audit.Verify(ctx, dir); err != nil || rep.Records != 6 {
		t.Errorf("%+v, %v", rep, err)
	}
	cancel()
	if _, err := audit.Verify(ctx, dir); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
