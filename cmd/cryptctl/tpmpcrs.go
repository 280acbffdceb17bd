package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

func tpmPCRsCommand() *cobra.Command {
	var t tpmTarget
	var bank string
	cmd := &cobra.Command{
		Use:   "pcrs",
		Short: "Show the values of the PCRs, and what each is for",
		Args:  args(),
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&bank, "bank", "sha256", "PCR `BANK`: sha1, sha256, sha384 or sha512")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := pcr.BankByName(bank); err != nil {
			return usageError("--bank: %w", err)
		}
		d, err := t.dial()
		if err != nil {
			return err
		}
		rows, err := pcrRows(cmd.Context(), d, bank)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), rows)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, r := range rows {
			fmt.Fprintf(w, "%d:%s=%s\t%s\n", r.PCR, r.Bank, r.Value, r.Purpose)
		}
		return w.Flush()
	}
	return cmd
}

// pcrRows reads all registers of a bank.
func pcrRows(ctx context.Context, d *tpm.Device, bank string) ([]pcrRow, error) {
	all := make([]int, pcr.Count)
	for i := range all {
		all[i] = i
	}
	values, err := d.ReadPCRs(ctx, bank, all...)
	if err != nil {
		return nil, err
	}
	rows := []pcrRow{}
	for _, index := range slices.Sorted(maps.Keys(values)) {
		rows = append(rows, pcrRow{index, bank, hex.EncodeToString(values[index]), eventlog.Purpose(index)})
	}
	return rows, nil
}

// pcrRow is one register.
type pcrRow struct {
	PCR     int    `json:"pcr"`
	Bank    string `json:"bank"`
	Value   string `json:"value"`
	Purpose string `json:"purpose"`
}

func tpmExplainCommand() *cobra.Command {
	e := explainer{}
	cmd := &cobra.Command{
		Use:   "explain [DEVICE --slot N | --json-file FILE | --record FILE | --save FILE]",
		Short: "Say which PCRs moved since a key was sealed, and by what",
		Long: `Says whether the TPM would give back the key of a token now, without asking for it,
and if not why. Tokens of cryptctl also tell which PCRs moved and, if they keep a
record of the events at the time of the seal, which events are others now. Without
one, what is measured into those PCRs in this boot is listed. Both take the event log.

For other tokens and PCRs --save writes a record of the present values and events
while all is well, and --record compares it with what is now. A record holds no
secret, but texts of boot loaders, such as command lines. That in a token is not
authenticated: who writes the header can change it.

Exit code 0: it is said, whether the TPM would give the key or not, and whether PCRs
moved or not; --json says which. Exit code 1: it could not be found out.`,
		Args: oneDevice,
	}
	e.flags(cmd)
	cmd.RunE = e.run
	return cmd
}

func (e *explainer) flags(cmd *cobra.Command) {
	e.key.flags(cmd)
	e.token.flags(cmd)
	f := cmd.Flags()
	f.IntVar(&e.token.req.Slot, "slot", 0, "keyslot whose token is meant")
	f.StringVar(&e.save, "save", "", "`FILE` to write a record of the present state to")
	f.StringVar(&e.record, "record", "", "`FILE` with a record, to be compared with the present state")
	f.StringVar(&e.pcrs, "pcrs", "0,1,2,3,4,5,6,7,11,12,13,14", "`LIST` of PCRs to record")
	f.StringVar(&e.bank, "bank", "sha256", "PCR `BANK` to record")
	e.log = eventLogFlag(cmd)
	e.asJSON = jsonFlag(cmd)
}

func (e *explainer) run(cmd *cobra.Command, a []string) error {
	d, err := e.key.dial()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	var x explanation
	switch byToken := e.token.jsonFile != "" || len(a) > 0; {
	case e.save != "" && (e.record != "" || byToken), e.record != "" && byToken:
		return usageError("give one of DEVICE, --json-file, --record and --save")
	case e.save != "":
		return e.write(ctx, cmd, d)
	case e.record != "":
		x, err = e.compare(ctx, cmd, d)
	default:
		x, err = e.check(ctx, cmd, d, a)
	}
	if err != nil {
		return err
	}
	if *e.asJSON {
		return printJSON(cmd.OutOrStdout(), x)
	}
	return x.write(cmd.OutOrStdout())
}

// explainer is what explain was told.
type explainer struct {
	key          sealedKey
	token        tokenSource
	save, record string
	pcrs, bank   string
	log          *string
	asJSON       *bool
}

// explanation is what explain says.
type explanation struct {
	Opens  *bool    `json:"opens,omitempty"` // of a token: would the TPM give its key back
	Reason string   `json:"reason,omitempty"`
	Text   string   `json:"text,omitempty"`
	PCRs   []moved  `json:"pcrs"`
	Notes  []string `json:"notes,omitempty"`
}

// moved is one PCR that is part of the answer.
type moved struct {
	PCR    int      `json:"pcr"`
	Before string   `json:"before"` // hexadecimal; of tokens the first bytes
	After  string   `json:"after"`
	Moved  bool     `json:"moved"`
	Text   string   `json:"text"`
	Events []string `json:"events,omitempty"` // what is measured now
}

func (x explanation) write(out io.Writer) error {
	if x.Text != "" {
		fmt.Fprintln(out, oneLine(x.Text))
	}
	for _, m := range x.PCRs {
		fmt.Fprintln(out, oneLine(m.Text))
		for _, e := range m.Events {
			fmt.Fprintln(out, "    "+oneLine(e))
		}
	}
	for _, n := range x.Notes {
		fmt.Fprintln(out, oneLine(n))
	}
	return nil
}

// readLog reads the event log that the TPM's registers come from; nil, and why,
// when there is none.
func (e *explainer) readLog() (*eventlog.Log, error) {
	path := *e.log
	if path == "" && !tpm.IsMachine(e.key.spec) {
		return nil, fmt.Errorf("%w of this TPM: give one with --event-log", eventlog.ErrNone)
	}
	if path == "" {
		path = eventlog.Path
	}
	return eventlog.Read(path)
}

// now makes a record of the present state, with events if there are some.
func (e *explainer) now(ctx context.Context, d *tpm.Device, bankName string, pcrs []int) (*eventlog.Record, error, error) {
	bank, err := pcr.BankByName(bankName)
	if err != nil {
		return nil, nil, usageError("--bank: %w", err)
	}
	values, err := d.ReadPCRs(ctx, bankName, pcrs...)
	if err != nil {
		return nil, nil, err
	}
	log, noLog := e.readLog()
	if noLog != nil {
		return eventlog.NewRecord(bank, values), noLog, nil
	}
	r, err := log.Record(bank, values)
	return r, nil, err
}

func (e *explainer) write(ctx context.Context, cmd *cobra.Command, d *tpm.Device) error {
	pcrs, err := pcrList("pcrs", e.pcrs)
	if err != nil {
		return err
	}
	r, noLog, err := e.now(ctx, d, e.bank, pcrs)
	if err != nil {
		return err
	}
	if noLog != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: values only, since there are no events:", noLog)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeFile(cmd, e.save, append(text, '\n')); err != nil || e.save == "-" {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "recorded %d PCRs\n", len(r.PCRs))
	return nil
}

// compare explains by a record.
func (e *explainer) compare(ctx context.Context, cmd *cobra.Command, d *tpm.Device) (explanation, error) {
	before, err := readRecord(e.record)
	if err != nil {
		return explanation{}, err
	}
	var pcrs []int
	for _, p := range before.PCRs {
		pcrs = append(pcrs, p.PCR)
	}
	after, noLog, err := e.now(ctx, d, before.Bank, pcrs)
	if err != nil {
		return explanation{}, err
	}
	movements, err := eventlog.Explain(before, after)
	if err != nil {
		return explanation{}, fmt.Errorf("%s: %w", e.record, err)
	}
	x := explanation{PCRs: []moved{}, Text: fmt.Sprintf("%d of %d PCRs moved", len(movements), len(before.PCRs))}
	for _, m := range movements {
		x.PCRs = append(x.PCRs, moved{PCR: m.PCR, Before: plain(m.Before), After: m.After, Moved: true, Text: m.String()})
	}
	if noLog != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: values only, since there are no events:", noLog)
	}
	return x, nil
}

// readRecord reads what --save wrote.
func readRecord(path string) (*eventlog.Record, error) {
	text, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	r, err := eventlog.ReadRecord(text)
	if err != nil {
		return nil, fmt.Errorf("%s is no record of explain --save: %w", path, err)
	}
	return r, nil
}
