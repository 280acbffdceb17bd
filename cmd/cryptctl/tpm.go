package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/doctor"
	"github.com/cryptctl/cryptctl/tpm/pcr"
)

func tpmCommand() *cobra.Command {
	return group("tpm", "Look at the TPM, seal and unseal by hand, predict and sign kernel images",
		tpmStatusCommand(), tpmDoctorCommand(), tpmPCRsCommand(), tpmExplainCommand(),
		tpmPredictCommand(), tpmSignCommand(),
		tpmSealCommand(), tpmUnsealCommand(), tpmLatchCommand())
}

// tpmWait is how long a command waits for an answer of a TPM, and not for a person
// who types a PIN: some take 20 seconds to make one key, and a boot must not hang on
// a dead one.
const tpmWait = 2 * time.Minute

// tpmTarget is the TPM that a command is about.
type tpmTarget struct{ spec string }

func (t *tpmTarget) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.spec, "tpm", "", "the `TPM`: a device, or swtpm:SOCKET for a software TPM (default: the machine's)")
}

// dial names the TPM, which may not be too slow; nothing is opened yet.
func (t *tpmTarget) dial() (*tpm.Device, error) {
	d, err := tpm.Dial(t.spec)
	if err != nil {
		return nil, usageError("--tpm: %w", err)
	}
	d.Limit = tpmWait
	return d, nil
}

// gather finds out all there is to know. Of the machine nothing is asked when the
// TPM is another; an event log can be given.
func (t *tpmTarget) gather(cmd *cobra.Command, log string) (doctor.Facts, error) {
	d, err := t.dial()
	if err != nil {
		return doctor.Facts{}, err
	}
	from := doctor.Sources{}
	if tpm.IsMachine(t.spec) {
		from = doctor.Machine()
	}
	if log != "" {
		from.EventLog = log
	}
	return doctor.Gather(cmd.Context(), d, from), cmd.Context().Err()
}

// eventLogFlag adds --event-log.
func eventLogFlag(cmd *cobra.Command) *string {
	return cmd.Flags().String("event-log", "", "`FILE` with the firmware's event log (default: the machine's, for the machine's TPM)")
}

func tpmStatusCommand() *cobra.Command {
	var t tpmTarget
	cmd := &cobra.Command{
		Use:   "status",
		Short: "What the TPM is, and how it stands",
		Long: `Shows maker and firmware of the TPM, its PCR banks, the count of wrong PINs, and
whether the latch is closed. cryptctl tpm doctor says what of it is wrong.`,
		Args: args(),
	}
	t.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := t.gather(cmd, "")
		if err != nil {
			return err
		}
		for _, s := range []doctor.Subject{doctor.TPM, doctor.Owner, doctor.RootKey, doctor.PINs, doctor.Endorsed, doctor.Banks, doctor.Measured} {
			if err := f.Unknown[s]; err != nil {
				return err
			}
		}
		s := newTPMStatus(f)
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), s)
		}
		return s.write(cmd.OutOrStdout())
	}
	return cmd
}

// tpmStatus is what status shows.
type tpmStatus struct {
	Kind         doctor.Kind `json:"kind"`
	Maker        string      `json:"maker"`
	Model        string      `json:"model"`
	Firmware     string      `json:"firmware"`
	Revision     string      `json:"specification"`
	Banks        []string    `json:"banks"`
	Failures     int         `json:"wrongPINs"`
	MaxTries     int         `json:"maxWrongPINs"`
	Recovery     int         `json:"wrongPINForgottenAfterSeconds"`
	LockedOut    bool        `json:"lockedOut"`
	RootKey      string      `json:"storageRootKey"` // kept or none
	Template     string      `json:"template"`       // of the storage root key; "" when it is not known
	Certificates []string    `json:"certificates"`
	Latch        string      `json:"latch"`      // open, closed or unknown
	SecureBoot   string      `json:"secureBoot"` // "" for a TPM that is not the machine's
}

func newTPMStatus(f doctor.Facts) tpmStatus {
	s := tpmStatus{
		Kind: doctor.KindOf(f.Identity), Maker: doctor.MakerOf(f.Identity), Model: f.Identity.Model,
		Firmware: f.Identity.Firmware, Revision: f.Identity.Revision, Banks: []string{},
		Failures: f.PINs.Failures, MaxTries: f.PINs.MaxTries, Recovery: f.PINs.Recovery, LockedOut: f.PINs.LockedOut,
		RootKey: "none", Template: f.Root.Template, Certificates: orEmpty(f.Certificates), Latch: "unknown",
	}
	for _, b := range f.Banks {
		s.Banks = append(s.Banks, b.Name)
	}
	if f.Root.Present {
		s.RootKey = "kept"
	}
	for _, found := range doctor.Judge(f) {
		switch {
		case found.Subject == doctor.Latch && found.Level == doctor.OK:
			s.Latch = "closed"
		case found.Subject == doctor.Latch:
			s.Latch = "open"
		case found.Subject == doctor.SecureBoot:
			s.SecureBoot = found.Seen
		}
	}
	return s
}

func (s tpmStatus) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "TPM\t%s, of %s (%s)\n", s.Kind, plain(s.Maker), plain(s.Model))
	fmt.Fprintf(w, "firmware\t%s, specification %s\n", s.Firmware, s.Revision)
	fmt.Fprintf(w, "PCR banks\t%s\n", strings.Join(s.Banks, ", "))
	locked := ""
	if s.LockedOut {
		locked = "; locked"
	}
	fmt.Fprintf(w, "wrong PINs\t%d of %d; one is forgotten after %d s%s\n", s.Failures, s.MaxTries, s.Recovery, locked)
	root := s.RootKey
	if s.Template != "" {
		root += ", " + s.Template
	}
	fmt.Fprintf(w, "storage root key\t%s\n", root)
	fmt.Fprintf(w, "certificates\t%s\n", strings.Join(append(s.Certificates, []string{"none"}[min(len(s.Certificates), 1):]...), "; "))
	if s.SecureBoot != "" {
		fmt.Fprintf(w, "Secure Boot\t%s\n", s.SecureBoot)
	}
	fmt.Fprintf(w, "latch\t%s\n", s.Latch)
	return w.Flush()
}

func tpmDoctorCommand() *cobra.Command {
	var t tpmTarget
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "What is wrong with the TPM, and what to do",
		Long: `Looks at the TPM, its PCRs, the firmware's event log, Secure Boot and what the boot
image brings along, and says of each what was seen and what to do. Nothing is
changed. A finding is ok, a note, a warning (protects less than it seems), or a
problem (keys cannot be sealed or unsealed, or protect nothing).

Of a software TPM the machine's own log, Secure Boot and boot image say nothing,
and are left out.

Exit code 1: there is a problem.`,
		Args: args(),
	}
	t.flags(cmd)
	log := eventLogFlag(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f, err := t.gather(cmd, *log)
		if err != nil {
			return err
		}
		findings := doctor.Judge(f)
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), findings)
		} else {
			err = writeFindings(cmd.OutOrStdout(), findings)
		}
		if err == nil && doctor.Worst(findings) == doctor.Problem {
			err = errors.New("the TPM has problems; they are above, with what to do")
		}
		return err
	}
	return cmd
}

func writeFindings(out io.Writer, findings []doctor.Finding) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", f.Level, f.Subject, oneLine(f.Seen))
		if f.Do != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", oneLine(f.Do))
		}
	}
	return w.Flush()
}

// oneLine keeps what others wrote from breaking a table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r <= 0x9f {
			return ' '
		}
		return r
	}, s)
}

// pcrList reads "7,11"; "none" is no PCR at all.
func pcrList(flag, text string) ([]int, error) {
	if text == "none" {
		return nil, nil
	}
	var pcrs []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 || n >= pcr.Count {
			return nil, usageError("--%s %q: give numbers from 0 to %d with commas between them, or none", flag, text, pcr.Count-1)
		}
		pcrs = append(pcrs, n)
	}
	slices.Sort(pcrs)
	return slices.Compact(pcrs), nil
}

func tpmLatchCommand() *cobra.Command {
	var t tpmTarget
	cmd := &cobra.Command{
		Use:   "latch",
		Short: "Close the latch: what is sealed with it stays sealed until the next boot",
		Long: `Extends PCR 15. A key whose policy has the latch is not unsealed again before the
next boot, by nobody. For initramfs scripts: run it when all volumes are open, and
before control goes to anything that was read from them. When it fails, stop the
boot: the latch is open then.`,
		Args: args(),
	}
	t.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d, err := t.dial()
		if err != nil {
			return err
		}
		if err := d.Latch(cmd.Context()); err != nil {
			return fmt.Errorf("the latch is not closed: %w", err)
		}
		fmt.Fprintln(cmd.OutOrStdout(), "the latch is closed")
		return nil
	}
	return cmd
}
