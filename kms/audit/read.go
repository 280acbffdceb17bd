package audit

import (
	"encoding/json"
	"fmt"
	"iter"
	"path/filepath"
)

// Record is an event with its place in the chain.
type Record struct {
	Head
	Prev Head // the record before
	Event
}

// Last returns the number of the record from which on there are n that match; that
// of the first record if there are less, and of the next one to come for n = 0. The
// newest files are read first, and no more of them than needed.
func Last(dir string, n int, match func(Record) bool) (from uint64, err error) {
	names, err := files(dir)
	if err != nil || len(names) == 0 {
		return 1, err
	}
	for i := len(names) - 1; i >= 0; i-- {
		seen, next, err := matches(filepath.Join(dir, names[i]), match)
		if err != nil {
			return 0, err
		}
		switch {
		case n <= 0:
			return next, nil
		case len(seen) >= n:
			return seen[len(seen)-n], nil
		}
		n -= len(seen)
	}
	return firstOf(names[0]), nil
}

// matches gives the numbers of the records of one file that match, and the number
// that follows its last one.
func matches(path string, match func(Record) bool) (seen []uint64, next uint64, err error) {
	v := verifier{}
	v.each = func(line []byte, h Head) error {
		r := Record{Head: h}
		if err := json.Unmarshal(line, &r.Event); err != nil {
			return fmt.Errorf("audit log: record %d: %w", h.Seq, err)
		}
		if match(r) {
			seen = append(seen, h.Seq)
		}
		return nil
	}
	if err := v.file(path); err != nil {
		return nil, 0, err
	}
	return seen, max(v.last.Seq+1, firstOf(filepath.Base(path))), nil
}

// Read gives the records of a log from number from on, while it may be written.
// Their chain is checked from the beginning of the file that holds the first one;
// a [Fault] ends it. It ends at the last whole record: a [Cursor] follows a log.
func Read(dir string, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) { NewCursor(dir, from).Records()(yield) }
}
