package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// check explains by a token.
func (e *explainer) check(ctx context.Context, cmd *cobra.Command, d *tpm.Device, a []string) (explanation, error) {
	_, raw, err := e.token.read(cmd, a)
	if err != nil {
		return explanation{}, err
	}
	p, err := e.key.opener(d)
	if err != nil {
		return explanation{}, err
	}
	x := explanation{PCRs: []moved{}, Opens: new(bool)}
	err = p.Fits(ctx, raw)
	var known *tpm.Error
	switch {
	case err == nil:
		*x.Opens, x.Text = true, "the TPM would give this key back now"
	case errors.As(err, &known) && known.Reason != tpm.NoTPM:
		x.Reason, x.Text = string(known.Reason), "the TPM would not give this key back now: "+err.Error()
	default:
		return explanation{}, err
	}
	err = e.sealedValues(ctx, d, raw, &x)
	return x, err
}

// sealedValues adds which of the PCRs moved that the key is bound to: our own
// tokens have the first bytes of their values. By what is told by their records.
func (e *explainer) sealedValues(ctx context.Context, d *tpm.Device, raw json.RawMessage, x *explanation) error {
	own, err := token.ReadOwn(raw)
	if err != nil || len(own.Policy.PCRs) == 0 {
		if err != nil && token.TypeOf(raw) != token.TypeOwn && token.TypeOf(raw) != "" {
			x.Notes = append(x.Notes, "this kind of token has no values of the PCRs as they were")
		}
		return nil
	}
	pcrs := slices.Sorted(maps.Keys(own.Policy.PCRs))
	now, err := d.ReadPCRs(ctx, "sha256", pcrs...)
	if err != nil {
		return err
	}
	log, noLog := e.readLog()
	told, noRecord := movements(raw, log, now)
	for _, index := range pcrs {
		was := own.Policy.PCRs[index]
		m := moved{PCR: index, Before: hex.EncodeToString(was), After: hex.EncodeToString(now[index]), Moved: !bytes.HasPrefix(now[index], was)}
		m.Text = fmt.Sprintf("PCR %d (%s) is as it was", index, eventlog.Purpose(index))
		if m.Moved {
			m.explain(told[index], log)
		}
		x.PCRs = append(x.PCRs, m)
	}
	if noRecord != nil {
		x.Notes = append(x.Notes, "the token's record of events cannot be read: "+noRecord.Error())
	}
	if noLog != nil && !*x.Opens {
		x.Notes = append(x.Notes, "what is measured into them now cannot be told: "+noLog.Error())
	}
	return nil
}

// explain says what moved a PCR. Where the events that are others now are not
// known, there are those of now.
func (m *moved) explain(told *eventlog.Movement, log *eventlog.Log) {
	m.Text = fmt.Sprintf("PCR %d (%s) moved: it began with %s, and is %s", m.PCR, eventlog.Purpose(m.PCR), m.Before, m.After)
	if told != nil {
		m.Text = told.String()
	}
	if told == nil || len(told.Changes) == 0 {
		m.Events = eventsOf(log, m.PCR)
	}
}

// movements explains by the record that a token keeps; there are none without it.
func movements(raw json.RawMessage, log *eventlog.Log, now map[int][]byte) (map[int]*eventlog.Movement, error) {
	before, err := tpm.RecordOf(raw)
	if err != nil || before == nil {
		return nil, err
	}
	after := eventlog.NewRecord(pcr.SHA256, now)
	if log != nil {
		if r, err := log.Record(pcr.SHA256, now); err == nil {
			after = r
		}
	}
	all, err := eventlog.Explain(before, after)
	if err != nil {
		return nil, err
	}
	of := map[int]*eventlog.Movement{}
	for i := range all {
		of[all[i].PCR] = &all[i]
	}
	return of, nil
}

// eventsOf lists what a log has for a PCR.
func eventsOf(l *eventlog.Log, index int) []string {
	if l == nil {
		return nil
	}
	var text []string
	for i := range l.Events {
		if ev := &l.Events[i]; ev.Extends() && ev.PCR == uint32(index) {
			text = append(text, ev.Describe())
		}
	}
	return text
}
