package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// Units of a row.
const (
	seconds = "s"
	mebi    = "MiB"
	// commands are those that a TPM was sent.
	commands = "commands"
	// perSecond are calls; nodes are those that were refused.
	perSecond = "/s"
	nodes     = "nodes"
)

// row is one comparison: a value of each side for each round.
type row struct {
	Case      string    `json:"case"`
	Unit      string    `json:"unit"`
	Ours      []float64 `json:"ours"`
	Peer      []float64 `json:"peer"`
	OursCPU   []float64 `json:"ours_cpu_s,omitempty"`
	PeerCPU   []float64 `json:"peer_cpu_s,omitempty"`
	Target    float64   `json:"target,omitempty"`   // of ours over the peer's; 0: none
	AtLeast   bool      `json:"at_least,omitempty"` // the target is met from it on upwards: more is better
	Elsewhere float64   `json:"elsewhere"`          // share of the machine that others used meanwhile
	Note      string    `json:"note,omitempty"`
}

// wall compares the wall time of two sides of a series.
func (s series) wall(name string, ours, peer int, target float64) row {
	wall := func(s sample) float64 { return s.Wall.Seconds() }
	cpu := func(s sample) float64 { return s.CPU.Seconds() }
	return row{
		Case: name, Unit: seconds, Target: target, Elsewhere: s.elsewhere,
		Ours: values(s.samples[ours], wall), Peer: values(s.samples[peer], wall),
		OursCPU: values(s.samples[ours], cpu), PeerCPU: values(s.samples[peer], cpu),
	}
}

// memory compares the peak resident memory of two sides of a series.
func (s series) memory(name string, ours, peer int, target float64) row {
	rss := func(s sample) float64 { return float64(s.RSS) / (1 << 20) }
	return row{
		Case: name, Unit: mebi, Target: target, Elsewhere: s.elsewhere,
		Ours: values(s.samples[ours], rss), Peer: values(s.samples[peer], rss),
	}
}

func values(samples []sample, f func(sample) float64) (out []float64) {
	for _, s := range samples {
		out = append(out, f(s))
	}
	return out
}

// without takes off what another side of the same series takes, in the median;
// -1 takes off nothing.
func (r row) without(s series, ours, peer int) row {
	takeOff := func(from []float64, side int, f func(sample) float64) {
		if side < 0 {
			return
		}
		floor := median(values(s.samples[side], f))
		for i := range from {
			from[i] = max(from[i]-floor, 0)
		}
	}
	wall := func(s sample) float64 { return s.Wall.Seconds() }
	cpu := func(s sample) float64 { return s.CPU.Seconds() }
	takeOff(r.Ours, ours, wall)
	takeOff(r.OursCPU, ours, cpu)
	takeOff(r.Peer, peer, wall)
	takeOff(r.PeerCPU, peer, cpu)
	return r
}

// against puts a fixed size in the peer's place.
func (r row) against(bytes int64) row {
	for i := range r.Peer {
		r.Peer[i] = float64(bytes) / (1 << 20)
	}
	return r
}

// ratio is ours over the peer's. JSON has no word for that of nothing to nothing,
// which remains when a process start is taken off: it says null.
type ratio float64

func (r ratio) defined() bool { return !math.IsNaN(float64(r)) && !math.IsInf(float64(r), 0) }

// MarshalJSON implements [json.Marshaler].
func (r ratio) MarshalJSON() ([]byte, error) {
	if !r.defined() {
		return []byte("null"), nil
	}
	return json.Marshal(float64(r))
}

// String gives the ratio as the table has it.
func (r ratio) String() string {
	if !r.defined() {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(r))
}

// summary is what a row says.
type summary struct {
	Ours     float64 `json:"ours_median"`
	Peer     float64 `json:"peer_median"`
	Ratio    ratio   `json:"ratio"`        // of the medians
	Paired   ratio   `json:"paired_ratio"` // median of the ratios of each round
	Least    ratio   `json:"least_ratio"`
	Greatest ratio   `json:"greatest_ratio"`
	CPU      ratio   `json:"cpu_ratio"`     // of the medians of CPU time
	Met      *bool   `json:"met,omitempty"` // nil without a target
}

func (r row) summary() summary {
	var ratios []float64
	for i := range r.Ours {
		ratios = append(ratios, r.Ours[i]/r.Peer[i])
	}
	s := summary{
		Ours: median(r.Ours), Peer: median(r.Peer), Paired: ratio(median(ratios)),
		Least: ratio(slices.Min(ratios)), Greatest: ratio(slices.Max(ratios)),
		CPU: ratio(median(r.OursCPU) / median(r.PeerCPU)),
	}
	s.Ratio = ratio(s.Ours / s.Peer)
	if r.Target > 0 {
		met := s.Ratio <= ratio(r.Target) && s.Paired <= ratio(r.Target)
		if r.AtLeast {
			met = s.Ratio >= ratio(r.Target) && s.Paired >= ratio(r.Target)
		}
		s.Met = &met
	}
	return s
}

// MarshalJSON implements [json.Marshaler]: the samples and what they say.
func (r row) MarshalJSON() ([]byte, error) {
	type samples row
	return json.Marshal(struct {
		samples
		summary
	}{samples(r), r.summary()})
}

// median returns NaN for no values.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
}

// report is all that a run says.
type report struct {
	Date     string   `json:"date"`
	Seconds  int      `json:"seconds"` // that the run took
	Versions []string `json:"versions"`
	Machine  string   `json:"machine"`
	Rows     []row    `json:"rows"`
	Skipped  []string `json:"skipped,omitempty"` // what was left out, and why
}

func (r report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeTable writes Markdown that can be read as it is.
func (r report) writeTable(w io.Writer) error {
	table := [][]string{{"case", "runs", "ours", "peer", "ratio", "paired", "min to max", "CPU", "target", "met", "others"}}
	var notes []string
	for _, row := range r.Rows {
		table = append(table, row.cells())
		if row.Note != "" {
			notes = append(notes, row.Case+": "+row.Note)
		}
	}
	_, err := fmt.Fprintf(w, "%s, %d s. %s.\n%s.\n\n%s\n", r.Date, r.Seconds, strings.Join(r.Versions, "; "), r.Machine, align(table))
	for _, n := range append(notes, r.Skipped...) {
		fmt.Fprintln(w, n)
	}
	return err
}

func (r row) cells() []string {
	s := r.summary()
	cells := []string{
		r.Case, fmt.Sprint(len(r.Ours)), amount(s.Ours, r.Unit), amount(s.Peer, r.Unit),
		s.Ratio.String(), s.Paired.String(), s.Least.String() + " to " + s.Greatest.String(), s.CPU.String(),
		"-", "-", fmt.Sprintf("%.0f %%", 100*r.Elsewhere),
	}
	if s.Met != nil {
		cells[8], cells[9] = map[bool]string{true: "≥ "}[r.AtLeast]+ratio(r.Target).String(), map[bool]string{true: "yes", false: "NO"}[*s.Met]
	}
	return cells
}

func amount(f float64, unit string) string {
	switch {
	case unit == commands, unit == nodes:
		return fmt.Sprintf("%.0f", f)
	case unit == perSecond:
		return fmt.Sprintf("%.0f /s", f)
	case unit == mebi:
		return fmt.Sprintf("%.0f MiB", f)
	case f > 0 && f < 0.0001:
		return fmt.Sprintf("%.1f µs", 1e6*f)
	case f < 0.1:
		return fmt.Sprintf("%.2f ms", 1000*f)
	case f < 1:
		return fmt.Sprintf("%.0f ms", 1000*f)
	}
	return fmt.Sprintf("%.2f s", f)
}

// align pads the cells of a Markdown table; the first row is its heading.
func align(table [][]string) string {
	width := make([]int, len(table[0]))
	for _, row := range table {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	rule := make([]string, len(width))
	for i, n := range width {
		rule[i] = strings.Repeat("-", n)
	}
	var out strings.Builder
	for _, row := range slices.Insert(slices.Clone(table), 1, rule) {
		for i, c := range row {
			fmt.Fprintf(&out, "| %s%s ", c, strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)))
		}
		out.WriteString("|\n")
	}
	return out.String()
}
