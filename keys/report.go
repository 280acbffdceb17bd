package keys

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// Outcome is what became of a slot.
type Outcome string

// Outcomes.
const (
	Kept          Outcome = "kept"
	Added         Outcome = "added"
	Replaced      Outcome = "replaced"
	Removed       Outcome = "removed"
	StayedForeign Outcome = "foreign"
	WasBlocked    Outcome = "blocked"
)

func (a Action) outcome() Outcome {
	switch a {
	case Keep:
		return Kept
	case Add:
		return Added
	case Replace:
		return Replaced
	case Remove:
		return Removed
	case Foreign:
		return StayedForeign
	}
	return WasBlocked
}

// Report says what became of each slot of a volume.
type Report struct {
	Volume  string   `json:"volume"`
	UUID    string   `json:"uuid"`
	SeqID   uint64   `json:"seqid"`
	Changed bool     `json:"changed"` // the header was written
	Slots   []Result `json:"slots"`
	// Asking are slots of remote keys that were not waited for: their lines are not
	// the last word; see [Session.ApplyLocal].
	Asking []int `json:"asking,omitempty"`
}

// Result is one line of a report.
type Result struct {
	Slot    int     `json:"slot"`
	Outcome Outcome `json:"outcome"`
	Kind    string  `json:"kind,omitempty"`
	Reason  string  `json:"reason"`
}

func (s *Session) report(steps []Step, changed bool) *Report {
	r := &Report{Volume: s.name, UUID: s.header.UUID(), SeqID: s.header.SeqID(), Changed: changed}
	for _, step := range steps {
		r.Slots = append(r.Slots, Result{step.Slot, step.Action.outcome(), step.Kind, step.Reason})
		s.opts.log().Info("slot reconciled", "volume", s.name, "slot", step.Slot, "kind", step.Kind,
			"outcome", string(step.Action.outcome()), "reason", step.Reason)
	}
	return r
}

// Blocked counts the slots that are not as configured.
func (r *Report) Blocked() (n int) {
	for _, s := range r.Slots {
		if s.Outcome == WasBlocked {
			n++
		}
	}
	return n
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	rows := make([][4]string, len(r.Slots))
	for i, s := range r.Slots {
		rows[i] = [4]string{fmt.Sprint(s.Slot), string(s.Outcome), s.Kind, s.Reason}
	}
	return writeTable(w, "OUTCOME", rows)
}

// WriteSteps writes a plan for people.
func WriteSteps(w io.Writer, steps []Step) error {
	rows := make([][4]string, len(steps))
	for i, s := range steps {
		rows[i] = [4]string{fmt.Sprint(s.Slot), string(s.Action), s.Kind, s.Reason}
	}
	return writeTable(w, "ACTION", rows)
}

func writeTable(w io.Writer, what string, rows [][4]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(t, "SLOT\t%s\tKIND\tREASON\n", what)
	for _, r := range rows {
		if r[2] == "" {
			r[2] = "-"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r[0], r[1], oneLine(r[2]), oneLine(r[3]))
	}
	return t.Flush()
}

// oneLine keeps a row one row: reasons hold what servers and disks say.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}
