package tpm

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// maxRecord is how long a record may be in a token: all slots and tokens of a
// volume share the 12 KiB that headers of cryptsetup and Talos have for their JSON.
// PCR 7 takes 300 to 500 bytes, 0, 4 and 7 together 700 to 1000.
const maxRecord = 1 << 10

// record is what a token keeps of how its PCRs got their values. It is nil when
// that is not known, or is too long: unless the log accounts for the value of each
// of them, what it has for them is not what the key is sealed to.
func (p *Provider) record(values PCRs) []byte {
	if len(values) == 0 || p.opts.EventLog == nil {
		return nil
	}
	log, err := p.opts.EventLog()
	if err != nil || log == nil {
		return nil
	}
	verdicts, err := log.Compare(pcr.SHA256, values)
	if err != nil {
		return nil
	}
	for i := range verdicts {
		if !verdicts[i].Accounted() {
			return nil
		}
	}
	r, err := log.Record(pcr.SHA256, values)
	if err != nil {
		return nil
	}
	packed, err := r.Pack()
	if err != nil || len(packed) > maxRecord {
		return nil
	}
	return packed
}

// Accounted is nil when the event log gives the PCRs of the policy the values that
// they have: nothing was extended that no boot extends. Whoever seals without
// being asked looks at it first, since a key that is bound to such a value is lost
// with the next boot, or is what somebody wants. A TPM without a log of its own is
// not looked at.
func (p *Provider) Accounted(ctx context.Context) error {
	if p.opts.EventLog == nil || len(p.opts.Policy.PCRs) == 0 {
		return nil
	}
	log, err := p.opts.EventLog()
	if err != nil {
		return fmt.Errorf("the event log, which says what the PCRs should be: %w", err)
	}
	if log == nil {
		return nil
	}
	values, err := p.opts.Device.ReadPCRs(ctx, bankSHA256, p.opts.Policy.PCRs...)
	if err != nil {
		return err
	}
	verdicts, err := log.Compare(pcr.SHA256, values)
	if err != nil {
		return fmt.Errorf("the event log, which says what the PCRs should be: %w", err)
	}
	for i := range verdicts {
		if v := &verdicts[i]; !v.Accounted() {
			return fmt.Errorf("the event log does not account for PCR %d%s: something extended it that is no part of the boot", v.PCR, pcrMeaning(v.PCR))
		}
	}
	return nil
}

// RecordOf returns the record that a token keeps of the events behind its PCRs, for
// eventlog.Explain; nil without an error when it keeps none, as those of other
// formats. It is for people: nothing but the values' first bytes is held against
// the token, and neither is authenticated.
func RecordOf(raw json.RawMessage) (*eventlog.Record, error) {
	if token.TypeOf(raw) != token.TypeOwn {
		return nil, nil
	}
	t, err := token.ReadOwn(raw)
	if err != nil || t.Record == nil {
		return nil, err
	}
	r, err := eventlog.Unpack(t.Record)
	if err != nil {
		return nil, err
	}
	if r.Bank != bankSHA256 || len(r.PCRs) != len(t.Policy.PCRs) {
		return nil, errors.New("it is of other PCRs than the token")
	}
	for _, p := range r.PCRs {
		begin, bound := t.Policy.PCRs[p.PCR]
		if !bound || !strings.HasPrefix(strings.ToLower(p.Value), hex.EncodeToString(begin)) {
			return nil, fmt.Errorf("its value of PCR %d is not that of the token", p.PCR)
		}
	}
	return r, nil
}
