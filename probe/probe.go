// Package probe says what is on a partition, a device or an image, and whether
// it is proven empty. It never writes.
//
// A volume is formatted only if [Report.Empty] says so, and that takes three
// answers:
//
//	+---------------+-----------------------+---------------------------------+
//	|               | 1: no signature       | 3: zeros                        |
//	+---------------+-----------------------+---------------------------------+
//	| first 4 MiB   | rows of table.go, at  | every byte                      |
//	| between       | any offset, start or  | 16 KiB at every 1/512, or every |
//	|               | end, the odd ones of  | byte of an area up to 64 MiB    |
//	| last 4 MiB    | odd.go                | every byte                      |
//	+---------------+-----------------------+---------------------------------+
//
// The second is that of package blkid of go-blockdevice, which the node's own
// system goes by: it is shown the same bytes and names nothing.
//
// The zeros are the proof; the signatures give it a name, and reach the copies
// that formats keep outside of the first and last 4 MiB. Encrypted data without
// a header is not empty: it is "data".
//
// One exception: a format by this project that was cut short leaves a note (see
// package marker). The bytes below its reach are disregarded, all others are
// proven empty as usual.
//
// What this does not prove: data that lies only between the samples of an area
// larger than 64 MiB, with neither a signature nor any other byte in the first
// and last 4 MiB. Nor does it hold a lock: whoever formats must hold the device
// exclusively from before the probe to after the format.
package probe

import (
	"fmt"
	"io"

	"github.com/cryptctl/cryptctl/probe/marker"
)

const (
	mib = 1 << 20

	// edge is how much of either end must be zero to the last byte.
	edge = 4 * mib
	// signatureEdge is how much of either end [Signatures] reads at once: what
	// the table and go-blockdevice look at lies there, but for a few blocks.
	signatureEdge = mib
)

// Area is what is probed. An [io.SectionReader] is one: a partition within an
// image or a disk, or all of it.
type Area interface {
	io.ReaderAt
	Size() int64
}

// Report is what a probe saw.
type Report struct {
	Size     int64     // of the area, in bytes
	Read     int64     // bytes read from the area
	Findings []Finding // signatures by their place in the table, or one of [KindData]

	// Interrupted says that a format of this project began here and was cut
	// short, and UUID which volume it was to make. Its note is among Findings
	// and does not count against Empty.
	Interrupted bool
	UUID        string
}

// Empty reports whether the area is proven empty, so that formatting it
// destroys nothing.
func (r Report) Empty() bool {
	_, found := r.Content()
	return !found
}

// Content returns the first thing that was found and counts.
func (r Report) Content() (f Finding, found bool) {
	for _, f := range r.Findings {
		if !r.Interrupted || f.Kind != KindMarker {
			return f, true
		}
	}
	return Finding{}, false
}

// Probe reads as much of the area as the proof of emptiness takes: some 16 MiB,
// 4 MiB more after an interrupted format, and all of an area of up to 64 MiB.
// It looks for data only where no signature is found. An error means that
// nothing is known of the area: it must be taken for full.
func Probe(a Area) (Report, error) {
	v, note, err := open(a, edge)
	if err != nil {
		return Report{}, err
	}
	r := Report{Size: v.size}
	found, err := signatures(v)
	if err == nil && len(found) == 0 {
		found, err = data(v)
	}
	if err != nil {
		return Report{}, fmt.Errorf("probe: %w", err)
	}
	if note != nil {
		r.Findings = append(r.Findings, note.finding())
		if note.honoured {
			r.Interrupted, r.UUID = true, note.UUID
		}
	}
	r.Findings = append(r.Findings, found...)
	r.Read = v.read
	return r, nil
}

// NotEmptyError says that an area is not proven empty, and by what.
type NotEmptyError struct{ Finding }

// Error names the finding.
func (e *NotEmptyError) Error() string { return "not empty: " + e.Finding.String() }

// Prove is nil when the area is proven empty, and a [*NotEmptyError] when it is
// not.
func Prove(a Area) error {
	report, err := Probe(a)
	if err != nil {
		return err
	}
	if f, found := report.Content(); found {
		return &NotEmptyError{f}
	}
	return nil
}

// Signatures looks for signatures only, reading some 2 MiB. None does not mean
// empty: that is for [Probe] to say.
func Signatures(a Area) ([]Finding, error) {
	v, note, err := open(a, signatureEdge)
	if err != nil {
		return nil, err
	}
	found, err := signatures(v)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	if note != nil {
		found = append([]Finding{note.finding()}, found...)
	}
	return found, nil
}

// open reads both ends of the area and the note of an interrupted format, if
// there is one. Where the note may be believed, the view shows zeros below its
// reach.
func open(a Area, window int64) (*view, *note, error) {
	v, err := newView(a, window)
	if err != nil {
		return nil, nil, fmt.Errorf("probe: %w", err)
	}
	m, ok := marker.Decode(v.head)
	if !ok {
		return v, nil, nil
	}
	n := &note{Marker: m, honoured: m.Reach <= marker.MaxReach && m.Reach <= v.size}
	if n.honoured {
		v.disregard(m.Reach)
	}
	return v, n, nil
}

// note is a marker and whether it may be believed.
type note struct {
	marker.Marker
	honoured bool
}

func (n *note) finding() Finding {
	f := Finding{Kind: KindMarker, Detail: fmt.Sprintf("the note of an unfinished format of volume %s", n.UUID)}
	if !n.honoured {
		f.Detail += fmt.Sprintf(", which claims more (%d bytes) than such a note may", n.Reach)
	}
	return f
}

// signatures runs every search for signatures. go-blockdevice is asked last: it
// sees less than the table, and what it names is added only if it is new.
func signatures(v *view) ([]Finding, error) {
	var found []Finding
	for _, search := range []func(*view) ([]Finding, error){luks, inTable, zfs, bootSector} {
		more, err := search(v)
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	more, err := secondVoice(v)
	if err != nil && len(found) == 0 {
		// Where there are findings its trouble changes nothing; where there are
		// none it may have met what no one else saw.
		return nil, err
	}
	for _, f := range more {
		if !named(found, f.Kind) {
			found = append(found, f)
		}
	}
	return found, nil
}

func named(found []Finding, kind string) bool {
	for _, f := range found {
		if f.Kind == kind {
			return true
		}
	}
	return false
}
