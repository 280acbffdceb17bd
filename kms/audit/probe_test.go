package audit

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestFullDiskIsKnown: after a record that was not written Err says why, until one
// is written; that the disk is full is found without a record, too, and that it is
// not any more. Nothing of a trial is left.
func TestFullDiskIsKnown(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := &plan{fails: map[string]int{}, count: map[string]int{}}
	l.disk.file = bad{l.disk.file, p}
	l.disk.open = func(path string, flag int) (file, error) {
		f, err := openFile(path, flag)
		if err != nil {
			return nil, err
		}
		return bad{f, p}, nil
	}
	full := func(nth int) {
		p.mu.Lock()
		defer p.mu.Unlock()
		clear(p.count)
		p.fails = map[string]int{"write": nth}
	}
	record := func() error { return l.Append(Event{Op: "test"}) }
	rest := func() { // the last record was a while ago
		l.mu.Lock()
		defer l.mu.Unlock()
		l.tried = time.Now().Add(-2 * idle)
	}
	if err := errors.Join(record(), l.Err(), l.Probe()); err != nil {
		t.Fatal(err)
	}
	full(1)
	if err := record(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(l.Err(), syscall.ENOSPC) {
		t.Errorf("a record: %v; then %v", err, l.Err())
	}
	if err := record(); err != nil || l.Err() != nil {
		t.Errorf("the next one: %v, %v", err, l.Err())
	}
	full(1)
	if err := l.Probe(); err != nil {
		t.Errorf("right after a record nothing is tried: %v", err)
	}
	rest()
	if err := l.Probe(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(l.Err(), syscall.ENOSPC) {
		t.Errorf("tried: %v; then %v", err, l.Err())
	}
	if err := l.Probe(); err != nil || l.Err() != nil { // at once: it failed before
		t.Errorf("tried again: %v, %v", err, l.Err())
	}
	if entries, err := filepath.Glob(filepath.Join(dir, "probe*")); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if n, err := l.Free(); err != nil || n <= 0 {
		t.Errorf("free: %d, %v", n, err)
	}
	if _, err := Verify(t.Context(), dir, l.Head()); err != nil {
		t.Error(err)
	}
	rest()
	if err := os.Mkdir(filepath.Join(dir, "probe"), 0o700); err != nil { // in the way, as a read-only disk is
		t.Fatal(err)
	}
	if err := l.Probe(); err == nil || !strings.Contains(err.Error(), "audit log: ") {
		t.Errorf("in the way: %v", err)
	}
	l.Close()
	if err := l.Probe(); !errors.Is(err, ErrUnusable) {
		t.Errorf("closed: %v", err)
	}
}
