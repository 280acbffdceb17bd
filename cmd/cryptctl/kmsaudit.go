package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

func kmsAuditCommand() *cobra.Command {
	k := &kmsTarget{}
	return k.group(group("audit", "Read and check the audit log of a key server", kmsAuditVerify(k), kmsAuditTail(k)))
}

// kmsVerdict is what was found of an audit log.
type kmsVerdict struct {
	OK         bool   `json:"ok"`
	Records    uint64 `json:"records"`
	First      uint64 `json:"first"` // above 1 when older files were archived
	Head       string `json:"head"`  // of the last record; to be kept elsewhere
	BrokenAt   uint64 `json:"broken_at,omitempty"`
	Detail     string `json:"detail,omitempty"`
	Unfinished uint64 `json:"unfinished,omitempty"` // bytes of a last line without an end
}

func kmsAuditVerify(k *kmsTarget) *cobra.Command {
	var texts []string
	cmd := &cobra.Command{
		Use:   "verify [LOG]",
		Short: "Check the hash chain of the audit log",
		Long: `Finds a record that was edited, taken out, inserted or moved, and a log that was cut
behind a head that is known. LOG is the directory of an audit log (kms/audit), which
may be a copy and may be in use; without it the key server checks its own.

Who may write the log can compute another one. Keep the head that is shown where
they cannot write, and give it with --head the next time.

Exit code 1: the log is not what was written.`,
		Args: maybe("LOG"),
	}
	cmd.Flags().StringSliceVar(&texts, "head", nil, "`HEADS` that were kept elsewhere, as this command shows them")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		var heads []audit.Head
		for _, text := range texts {
			h, err := audit.ParseHead(text)
			if err != nil {
				return usageError("--head %q: %w", text, err)
			}
			heads = append(heads, h)
		}
		if len(given) > 0 {
			v, err := verifyLocal(given[0], heads)
			return errors.Join(err, v.write(cmd, *asJSON, err))
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
			v, err := a.verify(cmd, heads)
			return errors.Join(err, v.write(cmd, *asJSON, err))
		})(cmd, given)
	}
	return cmd
}

// verifyLocal checks a log in a directory. An error is about the reading, not about
// what was found.
func verifyLocal(dir string, heads []audit.Head) (kmsVerdict, error) {
	r, err := audit.Verify(dir, heads...)
	v := kmsVerdict{OK: err == nil, Records: r.Records, First: r.First, Head: r.Last.String(), Unfinished: uint64(r.Unfinished)}
	if fault, ok := errors.AsType[*audit.Fault](err); ok {
		v.BrokenAt, v.Detail = fault.Seq, fault.Error()
		return v, nil
	}
	if err != nil {
		err = fmt.Errorf("%w; give the directory of an audit log", err)
	}
	return v, err
}

// verify has the server check its log.
func (a *kmsAdmin) verify(cmd *cobra.Command, heads []audit.Head) (kmsVerdict, error) {
	r := &wire.VerifyAuditRequest{}
	for _, h := range heads {
		r.Heads = append(r.Heads, &wire.AuditHead{Sequence: h.Seq, Hash: h.Hash[:]})
	}
	out, err := a.VerifyAudit(cmd.Context(), r)
	return kmsVerdict{
		OK: out.GetOk(), Records: out.GetRecords(), First: out.GetFirst(), Unfinished: out.GetUnfinished(),
		Head:     fmt.Sprintf("%d:%s", out.GetHead().GetSequence(), hex.EncodeToString(out.GetHead().GetHash())),
		BrokenAt: out.GetBrokenAt(), Detail: out.GetDetail(),
	}, err
}

// write shows a verdict; nothing if there is none. One that is bad is an error, too.
func (v kmsVerdict) write(cmd *cobra.Command, asJSON bool, failed error) error {
	if failed != nil {
		return nil
	}
	var err error
	switch out := cmd.OutOrStdout(); {
	case asJSON:
		err = printJSON(out, v)
	case v.OK:
		err = v.text(out)
	}
	if err == nil && !v.OK {
		err = fmt.Errorf("%s; what is before that record is sound, compare the rest with a copy", oneLine(v.Detail))
	}
	return err
}

func (v kmsVerdict) text(out io.Writer) error {
	if v.Records == 0 {
		_, err := fmt.Fprintln(out, "sound: no records")
		return err
	}
	fmt.Fprintf(out, "sound: %d records, from %d on\nhead: %s\n", v.Records, v.First, v.Head)
	if v.Unfinished > 0 {
		fmt.Fprintf(out, "%d bytes without a line end follow: a write that goes on, or was killed\n", v.Unfinished)
	}
	return nil
}
