package document

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// maxErrors bounds the mistakes kept of one source, so that a hostile file of
// ten million unknown fields costs no more memory than the file itself.
const maxErrors = 1000

// Position is a place in a source.
type Position struct {
	File string // path, or the name the source was given
	Line int    // from 1; 0 means the source as a whole
}

// String returns "file:line", or the file alone when there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}

// Error is one mistake in a source.
type Error struct {
	Position
	Field   string // path of the field, such as "encryption.keys[0].slot"; "" = the whole source or document
	Problem string // what is wrong; never a passphrase
	Fix     string // what to do about it
}

// Error returns "file:line: field: problem; fix".
func (e *Error) Error() string {
	s := e.Position.String() + ": "
	if e.Field != "" {
		s += e.Field + ": "
	}
	return s + e.Problem + "; " + e.Fix
}

// Errors are all mistakes of the sources, in the order of the sources and of
// their lines.
type Errors []*Error

// Error returns one line per mistake.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the mistakes one by one.
func (es Errors) Unwrap() []error {
	out := make([]error, len(es))
	for i, e := range es {
		out[i] = e
	}
	return out
}

// Report is one source while it is read: its name and its mistakes so far. The
// zero value has no name and no mistakes.
type Report struct {
	Name string // for messages, usually the path

	errs    Errors
	dropped bool // there were more than maxErrors mistakes
}

// Fail adds a mistake. Of a source only the first thousand are kept.
func (r *Report) Fail(line int, field, problem, fix string) {
	if len(r.errs) >= maxErrors {
		r.dropped = true
		return
	}
	r.errs = append(r.errs, &Error{Position{r.Name, line}, field, problem, fix})
}

// more reports whether there are more mistakes than so many.
func (r *Report) more(than int) bool { return r.dropped || len(r.errs) > than }

// Failed reports whether there are mistakes.
func (r *Report) Failed() bool { return len(r.errs) > 0 }

// Dropped reports whether there were more mistakes than are kept.
func (r *Report) Dropped() bool { return r.dropped }

// Sorted returns the mistakes by line.
func (r *Report) Sorted() Errors {
	slices.SortStableFunc(r.errs, func(a, b *Error) int { return a.Line - b.Line })
	if r.dropped {
		r.errs = append(r.errs, &Error{
			Position: Position{File: r.Name},
			Problem:  fmt.Sprintf("more than %d mistakes", maxErrors),
			Fix:      "mend those above first",
		})
	}
	return r.errs
}

// Err returns the mistakes by line, nil when there are none.
func (r *Report) Err() error {
	if !r.Failed() {
		return nil
	}
	return r.Sorted()
}

// Shown returns text from a source so that it fits into one line of a message.
func Shown(s string) string {
	start, more := clip(s)
	if s == "" || strings.ContainsFunc(start, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		start = strconv.Quote(start)
	}
	return start + more
}

// clip returns the start of a text, and dots when there is more.
func clip(s string) (start, more string) {
	const most = 64
	if len(s) > most {
		return s[:most], "..."
	}
	return s, ""
}

// Nearest returns the name that word is most likely a misspelling of, or "".
// Case does not count; two letters may differ, one in words of up to four.
func Nearest(word string, names []string) string {
	best, least := "", 3
	if len(word) <= 4 {
		least = 2
	}
	for _, name := range names {
		if max(len(word)-len(name), len(name)-len(word)) >= least {
			continue
		}
		if d := distance(strings.ToLower(word), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	return best
}

// distance is the number of bytes to insert, delete, change or swap with their
// neighbour to make b of a (optimal string alignment).
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := range len(a) {
		for j := range len(b) {
			change := d[i][j]
			if a[i] != b[j] {
				change++
			}
			least := min(change, d[i][j+1]+1, d[i+1][j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				least = min(least, d[i-1][j-1]+1)
			}
			d[i+1][j+1] = least
		}
	}
	return d[len(a)][len(b)]
}
