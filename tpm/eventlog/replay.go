package eventlog

import (
	"bytes"
	"fmt"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// startupLocality begins the note that tells at which locality TPM2_Startup ran
// (PC Client Platform Firmware Profile, 10.4.5.3).
const startupLocality = "StartupLocality\x00"

// Replay returns what the events make of all PCRs of a bank. PCRs without an
// event have the value of a reset. It fails if the bank is not known here, not
// in the log, or not in each of its events: then the log does not account for
// the bank, and nothing may be bound to it.
func (l *Log) Replay(bank pcr.Bank) (map[int][]byte, error) {
	if !bank.Known() {
		return nil, fmt.Errorf("PCRs of %s: this bank is not known", bank)
	}
	if _, named := l.size(bank); !named {
		return nil, fmt.Errorf("the event log has no %s digests: the firmware does not measure into that bank", bank)
	}
	values := make(map[int][]byte, pcr.Count)
	for index := range pcr.Count {
		values[index] = bank.Initial(index)
	}
	locality, err := l.startup()
	if err != nil {
		return nil, err
	}
	values[0][bank.Size()-1] = locality
	for i := range l.Events {
		e := &l.Events[i]
		if !e.Extends() {
			continue
		}
		digest := e.Digest(bank)
		if digest == nil {
			return nil, fmt.Errorf("event %d of the event log, of PCR %d, has no %s digest: the log does not account for that bank", e.Number, e.PCR, bank)
		}
		values[int(e.PCR)] = bank.Extend(values[int(e.PCR)], digest)
	}
	return values, nil
}

// startup returns the locality that the TPM was started at, which is the last
// byte of PCR 0 then: 0 without a note, 3, or 4 after a measured start.
func (l *Log) startup() (byte, error) {
	locality, noted, extended := byte(0), false, false
	for i := range l.Events {
		e := &l.Events[i]
		extended = extended || e.PCR == 0 && e.Extends()
		if e.Extends() || !bytes.HasPrefix(e.Data, []byte(startupLocality)) {
			continue
		}
		switch {
		case len(e.Data) != len(startupLocality)+1:
			return 0, fmt.Errorf("event %d of the event log, the startup locality, has %d bytes", e.Number, len(e.Data))
		case noted:
			return 0, fmt.Errorf("event %d of the event log is a second startup locality", e.Number)
		case extended:
			return 0, fmt.Errorf("event %d of the event log, the startup locality, comes after an event of PCR 0", e.Number)
		}
		noted, locality = true, e.Data[len(startupLocality)]
		if locality != 0 && locality != 3 && locality != 4 {
			return 0, fmt.Errorf("event %d of the event log gives the startup locality %d: it is 0, 3 or 4", e.Number, locality)
		}
	}
	return locality, nil
}

// of returns the events that extended a PCR.
func (l *Log) of(index int) []*Event {
	var events []*Event
	for i := range l.Events {
		if e := &l.Events[i]; e.Extends() && e.PCR == uint32(index) {
			events = append(events, e)
		}
	}
	return events
}
