package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
)

var errEnough = errors.New("enough")

// Cursor is a place in a log that is read as it grows. It checks each record once,
// against the one before it: to go on costs what is new, whatever is in the file.
type Cursor struct {
	dir    string
	from   uint64
	v      verifier
	prev   Head
	name   string // file
	offset int64  // in it: the end of the last record that was read
	lines  int    // up to there
}

// NewCursor returns a cursor before record number from.
func NewCursor(dir string, from uint64) *Cursor { return &Cursor{dir: dir, from: from} }

// Records gives the records from the cursor on, and moves it, up to the last whole
// one that there is. Called again it goes on from there. The chain is checked from
// the beginning of the file that holds the first record; a [Fault] ends it.
func (c *Cursor) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		names, err := c.files()
		c.v.each = c.giver(yield)
		for _, name := range names {
			if err == nil {
				err = c.file(name)
			}
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(Record{}, err)
		}
	}
}

// files are the files from the cursor's on.
func (c *Cursor) files() ([]string, error) {
	names, err := files(c.dir)
	if at := slices.Index(names, c.name); at >= 0 {
		return names[at:], err
	}
	if c.name != "" { // it was archived since it was read
		return slices.DeleteFunc(names, func(name string) bool { return firstOf(name) <= c.v.last.Seq }), err
	}
	for len(names) > 1 && firstOf(names[1]) <= c.from {
		names = names[1:]
	}
	return names, err
}

// giver makes records of lines.
func (c *Cursor) giver(yield func(Record, error) bool) func([]byte, Head) error {
	return func(line []byte, h Head) error {
		r := Record{Head: h, Prev: c.prev}
		if h.Seq == c.v.first.Seq+1 {
			r.Prev = c.v.first
		}
		c.prev = h
		c.offset += int64(len(line))
		c.lines++
		if h.Seq < c.from {
			return nil
		}
		if err := json.Unmarshal(line, &r.Event); err != nil {
			return fmt.Errorf("audit log: record %d: %w", h.Seq, err)
		}
		if !yield(r, nil) {
			return errEnough
		}
		return nil
	}
}

// file reads a file, or the rest of the one that was read before.
func (c *Cursor) file(name string) error {
	path := filepath.Join(c.dir, name)
	if name != c.name {
		c.name, c.offset, c.lines, c.v.skipped = name, 0, 0, 0
		return c.v.file(path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(c.offset, io.SeekStart); err != nil {
		return err
	}
	c.v.torn, c.v.skipped = nil, c.lines // what had no end is read again
	return c.v.read(path, f)
}
