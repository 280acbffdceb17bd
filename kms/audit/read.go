package audit

import (
	"encoding/json"
	"errors"
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

var errEnough = errors.New("enough")

// Read gives the records of a log from number from on, while it may be written.
// Their chain is checked from the beginning of the file that holds the first one;
// a [Fault] ends it. It ends at the last whole record: to follow a log, read again
// from there.
func Read(dir string, from uint64) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		names, err := files(dir)
		for len(names) > 1 && firstOf(names[1]) <= from {
			names = names[1:]
		}
		v := Verifier{}
		prev := Head{}
		v.each = func(line []byte, h Head) error {
			r := Record{Head: h, Prev: prev}
			if h.Seq == v.first.Seq+1 {
				r.Prev = v.first
			}
			if prev = h; h.Seq < from {
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
		for _, name := range names {
			if err == nil {
				err = v.file(filepath.Join(dir, name))
			}
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(Record{}, err)
		}
	}
}
