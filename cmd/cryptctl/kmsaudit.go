package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

func kmsAuditCommand() *cobra.Command {
	k := &kmsTarget{}
	return k.group(group("audit", "Read and check the audit log of a key server", kmsAuditVerify(k), kmsAuditTail(k), kmsAuditAdopt()))
}

// kmsVerdict is what was found of an audit log.
type kmsVerdict struct {
	OK         bool   `json:"ok"`
	Records    uint64 `json:"records"`
	First      uint64 `json:"first"`            // above 1 when older files were archived
	Head       string `json:"head"`             // of the last record; to be kept elsewhere
	Before     string `json:"before,omitempty"` // the head of what was archived before, as the first record has it
	BrokenAt   uint64 `json:"broken_at,omitempty"`
	Detail     string `json:"detail,omitempty"`
	Unfinished uint64 `json:"unfinished,omitempty"` // bytes of a last line without an end
}

func kmsAuditVerify(k *kmsTarget) *cobra.Command {
	var texts []string
	var archive bool
	cmd := &cobra.Command{
		Use:   "verify [LOG]",
		Short: "Check the hash chain of the audit log",
		Long: `Finds a record that was edited, taken out, inserted or moved, and a log that was cut
behind a head that is known. LOG is the directory of an audit log (kms/audit), which
may be a copy and may be in use; without it the key server checks its own.

Who may write the log can compute another one. Keep the head that is shown where
they cannot write, and give it with --head the next time.

With --archive LOG has older files of a log, without the file "head": then only what
--head gives shows that nothing is missing at their end. The line "before" of the log
that goes on after them is that.

Exit code 1: the log is not what was written.`,
		Args: maybe("LOG"),
	}
	cmd.Flags().StringSliceVar(&texts, "head", nil, "`HEADS` that were kept elsewhere, as this command shows them")
	cmd.Flags().BoolVar(&archive, "archive", false, "LOG has files that were moved out of a log, and no head")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if archive && len(given) == 0 {
			return usageError("--archive is about a directory; name it")
		}
		var heads []audit.Head
		for _, text := range texts {
			h, err := audit.ParseHead(text)
			if err != nil {
				return usageError("--head %q: %w", text, err)
			}
			heads = append(heads, h)
		}
		if len(given) > 0 {
			v, err := verifyLocal(cmd.Context(), given[0], archive, heads)
			return errors.Join(err, v.write(cmd, *asJSON, err))
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
			v, err := a.verify(cmd, heads)
			return errors.Join(err, v.write(cmd, *asJSON, err))
		})(cmd, given)
	}
	return cmd
}

// verifyLocal checks a log in a directory, or files of one. An error is about the
// reading, not about what was found.
func verifyLocal(ctx context.Context, dir string, archive bool, heads []audit.Head) (kmsVerdict, error) {
	check := audit.Verify
	if archive {
		check = audit.VerifyArchive
	}
	r, err := check(ctx, dir, heads...)
	v := kmsVerdict{OK: err == nil, Records: r.Records, First: r.First, Head: r.Last.String(), Unfinished: uint64(r.Unfinished)}
	if r.First > 1 {
		v.Before = r.Before.String()
	}
	if fault, ok := errors.AsType[*audit.Fault](err); ok {
		v.BrokenAt, v.Detail = fault.Seq, fault.Error()
		return v, nil
	}
	switch {
	case archive || err == nil:
	case errors.Is(err, os.ErrNotExist) && mustBeLog(dir) == nil:
		err = fmt.Errorf("%w; give --archive if these files were moved out of a log; if it is a log that lost its head, see cryptctl kms audit adopt --help", err)
	default:
		err = fmt.Errorf("%w; give the directory of an audit log", err)
	}
	return v, err
}

// mustBeLog refuses a directory that has nothing of an audit log.
func mustBeLog(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("%w; give the directory of an audit log", err)
	}
	for _, e := range entries {
		if e.Name() == "head" || filepath.Ext(e.Name()) == ".jsonl" {
			return nil
		}
	}
	return fmt.Errorf("%s has no audit log; give the directory that has, such as %s", dir, filepath.Join(kmsDir, "audit"))
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
	if v.Before != "" {
		fmt.Fprintf(out, "before: %s\n", v.Before)
	}
	if v.Unfinished > 0 {
		fmt.Fprintf(out, "%d bytes without a line end follow: a write that goes on, or was killed\n", v.Unfinished)
	}
	return nil
}
