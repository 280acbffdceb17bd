package eventlog

import (
	"fmt"
	"strings"
)

// Movement is a PCR whose value is not the one that it was.
type Movement struct {
	PCR           int
	Before, After string // the values, in hexadecimal digits; "" if there is none
	Changes       []Change
	// Unknown says why there are no changes to name, if there are none.
	Unknown string
}

// Change is one difference between the events before and after.
type Change struct {
	Kind  ChangeKind
	About string // what the event is about: "variable dbx"
	Was   string // details before, with Changed and Removed
	Is    string // details after, with Changed and Added
}

// ChangeKind says what became of an event.
type ChangeKind string

// Kinds of changes.
const (
	Added   ChangeKind = "added"
	Removed ChangeKind = "removed"
	Changed ChangeKind = "changed"
	Moved   ChangeKind = "moved" // measured as before, at another place in the order
)

// String says the change in words.
func (c Change) String() string {
	about := clean(c.About)
	switch c.Kind {
	case Added:
		return withDetail(about+" is new", c.Is)
	case Removed:
		return withDetail(about+" is gone", c.Was)
	case Moved:
		return about + " is measured at another place in the order"
	}
	if c.Was == c.Is {
		return about + " has another content"
	}
	return fmt.Sprintf("%s was %s, is %s", about, orNothing(c.Was), orNothing(c.Is))
}

func withDetail(s, detail string) string {
	if detail = clean(detail); detail != "" {
		s += ": " + detail
	}
	return s
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return clean(s)
}

// String says the movement in words, in one line.
func (m Movement) String() string {
	head := fmt.Sprintf("PCR %d (%s): ", m.PCR, Purpose(m.PCR))
	if len(m.Changes) == 0 {
		return head + m.Unknown
	}
	parts := make([]string, len(m.Changes))
	for i, c := range m.Changes {
		parts[i] = c.String()
	}
	return head + strings.Join(parts, "; ")
}

// Explain says which events moved which PCR between two records, as a rule that
// of the time when a key was sealed and that of now. PCRs with equal values are
// not in the answer; PCRs of before that have no value after are. The records
// must be of the same bank.
func Explain(before, after *Record) ([]Movement, error) {
	if before.Bank != after.Bank {
		return nil, fmt.Errorf("the records are of the banks %s and %s, which cannot be compared", quote(before.Bank), quote(after.Bank))
	}
	now := map[int]*RecordedPCR{}
	for i := range after.PCRs {
		now[after.PCRs[i].PCR] = &after.PCRs[i]
	}
	var movements []Movement
	for i := range before.PCRs {
		then := &before.PCRs[i]
		m := Movement{PCR: then.PCR, Before: then.Value}
		is := now[then.PCR]
		switch {
		case is == nil:
			m.Unknown = "its value is not known now"
		case strings.EqualFold(is.Value, then.Value):
			continue
		default:
			m.After = is.Value
			m.compare(then, is)
		}
		movements = append(movements, m)
	}
	return movements, nil
}

func (m *Movement) compare(then, is *RecordedPCR) {
	switch {
	case then.Events == nil:
		m.Unknown = "it changed; what was measured into it before is not recorded"
		return
	case is.Events == nil:
		m.Unknown = "it changed; there is no event log that says by what"
		return
	}
	if m.Changes = diff(then.Events, is.Events); len(m.Changes) == 0 {
		m.Unknown = "it changed although the event log has the same events as before: it was reset, or extended past the log"
	}
}
