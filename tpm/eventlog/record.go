package eventlog

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// Record is what is kept of PCRs and the log, when a key is bound to them, so
// that Explain can tell later what moved. It holds no secret. As JSON it has
// 100 to 250 bytes per event, so it should hold the PCRs that matter.
type Record struct {
	Bank string        `json:"bank"`
	PCRs []RecordedPCR `json:"pcrs"`
}

// RecordedPCR is one PCR of a Record.
type RecordedPCR struct {
	PCR   int    `json:"pcr"`
	Value string `json:"value"` // in hexadecimal digits

	// Events are what made the value, in order. Null says that there was no log.
	Events []RecordedEvent `json:"events"`
}

// RecordedEvent is one event of a Record.
type RecordedEvent struct {
	// Digest is the begin of what was extended, in hexadecimal digits: enough to
	// tell events apart, not a proof of anything.
	Digest string `json:"digest"`
	About  string `json:"about"`            // "variable dbx"
	Detail string `json:"detail,omitempty"` // "77 hashes"
}

// shortDigest is how many bytes of a digest are kept.
const shortDigest = 8

// NewRecord makes a record of values for which there is no log.
func NewRecord(bank pcr.Bank, values map[int][]byte) *Record {
	r := &Record{Bank: bank.String()}
	for _, index := range slices.Sorted(maps.Keys(values)) {
		r.PCRs = append(r.PCRs, RecordedPCR{PCR: index, Value: hex.EncodeToString(values[index])})
	}
	return r
}

// Record makes a record of values and of the events that made them. Phases that
// followed the log are events of their own; so is an extension that the log does
// not account for.
func (l *Log) Record(bank pcr.Bank, values map[int][]byte) (*Record, error) {
	verdicts, err := l.Compare(bank, values)
	if err != nil {
		return nil, fmt.Errorf("a record of the PCRs: %w", err)
	}
	r := NewRecord(bank, values)
	for i := range verdicts { // both are in ascending order
		r.PCRs[i].Events = l.record(&verdicts[i])
	}
	return r, nil
}

func (l *Log) record(v *Verdict) []RecordedEvent {
	events := []RecordedEvent{}
	add := func(digest []byte, w words) {
		if w.doubt {
			w.detail += " (by its data, which do not have its digest)"
		}
		events = append(events, RecordedEvent{hex.EncodeToString(digest[:min(len(digest), shortDigest)]), w.about, w.detail})
	}
	for _, e := range l.of(v.PCR) {
		add(e.Digest(v.Bank), e.words())
	}
	for _, phase := range v.Phases {
		add(v.Bank.Sum([]byte(phase)), words{about: "phase " + phase})
	}
	if !v.Accounted() {
		add(v.Given, words{about: "extensions that are not in the log"})
	}
	return events
}
