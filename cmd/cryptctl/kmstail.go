package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// kmsTail says which records are wanted.
type kmsTail struct {
	lines  uint32
	follow bool
	node   string
}

func kmsAuditTail(k *kmsTarget) *cobra.Command {
	var t kmsTail
	cmd := &cobra.Command{
		Use:   "tail [LOG]",
		Short: "Show the last records of the audit log, and with --follow those that come",
		Long: `Shows who asked for what, when and from where, and what became of it. LOG is the
directory of an audit log (kms/audit); without it the key server is asked. Servers
that share a store have a log each.

With --json it is one array; with --follow there is no end to it, and each line is a
JSON value of its own.`,
		Args: maybe("LOG"),
	}
	cmd.Flags().Uint32VarP(&t.lines, "lines", "n", 10, "`NUMBER` of records from the end")
	cmd.Flags().BoolVar(&t.follow, "follow", false, "go on with the records that come, until a signal ends it")
	cmd.Flags().StringVar(&t.node, "node", "", "only records about the node with this `UUID`")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) (err error) {
		if t.node != "" {
			if t.node, err = nodeArg(t.node); err != nil {
				return err
			}
		}
		show := &kmsRecords{out: cmd.OutOrStdout(), json: *asJSON, follow: t.follow}
		if len(given) > 0 {
			err = t.local(cmd.Context(), given[0], show)
		} else {
			err = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error { return t.remote(cmd.Context(), a, show) })(cmd, given)
		}
		if t.follow && cmd.Context().Err() != nil {
			return nil // the end that was wanted
		}
		return errors.Join(err, show.end(err))
	}
	return cmd
}

func (t *kmsTail) remote(ctx context.Context, a *kmsAdmin, show *kmsRecords) error {
	s, err := a.TailAudit(ctx, &wire.TailAuditRequest{LastRecords: t.lines, Uuid: t.node, Follow: t.follow})
	return each(s, err, func(r *wire.AuditRecord) error { return show.record(recordOf(r)) })
}

func (t *kmsTail) wants(r audit.Record) bool { return t.node == "" || r.Node == t.node }

// local reads a directory, and looks at it again when its files change.
func (t *kmsTail) local(ctx context.Context, dir string, show *kmsRecords) error {
	if _, err := os.ReadDir(dir); err != nil {
		return fmt.Errorf("%w; give the directory of an audit log", err)
	}
	from, err := audit.Last(dir, int(t.lines), t.wants)
	if err != nil {
		return err
	}
	for was := int64(-1); ; {
		size := logSize(dir) // before it is read: what comes meanwhile is read the next time
		if size != was {
			for r, err := range audit.Read(dir, from) {
				if err != nil {
					return err
				}
				if from = r.Seq + 1; !t.wants(r) {
					continue
				}
				if err := show.record(r); err != nil {
					return err
				}
			}
		}
		if was = size; !t.follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func logSize(dir string) (all int64) {
	names, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			all += info.Size()
		}
	}
	return all
}

// recordOf is a record that came from a server.
func recordOf(r *wire.AuditRecord) audit.Record {
	out := audit.Record{Head: audit.Head{Seq: r.GetSequence()}, Prev: audit.Head{Seq: r.GetSequence() - 1}, Event: audit.Event{
		Time: r.GetTime().AsTime(), Op: r.GetAction(), Node: r.GetUuid(), Source: r.GetAddress(), Actor: r.GetActor(),
		Outcome: r.GetOutcome(), Reason: r.GetReason(), Rule: r.GetRule(), KeyVersion: r.GetKeyVersion(), Detail: r.GetDetail(),
	}}
	copy(out.Hash[:], r.GetHash())
	copy(out.Prev.Hash[:], r.GetPrevious())
	return out
}

// kmsRecords shows records as they come.
type kmsRecords struct {
	out          io.Writer
	json, follow bool
	all          []kmsRecord
}

// kmsRecord is a record as it stands in the log.
type kmsRecord struct {
	Seq  uint64 `json:"seq"`
	Prev string `json:"prev"`
	audit.Event
	Hash string `json:"hash"`
}

func (k *kmsRecords) record(r audit.Record) error {
	one := kmsRecord{r.Seq, hex.EncodeToString(r.Prev.Hash[:]), r.Event, hex.EncodeToString(r.Hash[:])}
	switch {
	case k.json && !k.follow:
		k.all = append(k.all, one)
		return nil
	case k.json:
		line, err := json.Marshal(one)
		if err == nil {
			_, err = fmt.Fprintln(k.out, harmless(string(line)))
		}
		return err
	}
	why := plain(r.Outcome)
	for _, more := range []string{r.Reason, r.Rule, r.Detail} {
		if more != "" {
			why += ", " + plain(more)
		}
	}
	who := r.Source
	if r.Actor != "" {
		who = r.Actor + " " + who
	}
	_, err := fmt.Fprintf(k.out, "%-6d  %s  %-12s  %-36s  %s: %s\n", r.Seq, timeText(&r.Time), plain(r.Op), dash(r.Node), dash(who), why)
	return err
}

// end shows what was gathered, unless it failed.
func (k *kmsRecords) end(failed error) error {
	if failed != nil || !k.json || k.follow {
		return nil
	}
	if k.all == nil {
		k.all = []kmsRecord{}
	}
	return printJSON(k.out, k.all)
}
