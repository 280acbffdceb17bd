package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
that share a store have a log each. A server that ends the connection, or is started
anew, is asked again: nothing is left out.

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
		switch {
		case len(given) > 0:
			err = t.local(cmd.Context(), given[0], show)
		case t.follow:
			f := kmsFollower{kmsTail: &t, dial: k.dial, wait: time.Second, note: func(err error) {
				fmt.Fprintf(cmd.ErrOrStderr(), "note: %v; trying again until a signal ends it\n", err)
			}}
			k.noteEnd(cmd.ErrOrStderr())
			err = f.follow(cmd.Context(), show)
		default:
			err = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error { return t.remote(cmd.Context(), a, show) })(cmd, given)
		}
		if t.follow && cmd.Context().Err() != nil {
			return nil // the end that was wanted
		}
		return errors.Join(err, show.end(err))
	}
	return cmd
}

func (t *kmsTail) wants(r audit.Record) bool { return t.node == "" || r.Node == t.node }

// recordOf is a record that came from a server.
func recordOf(r *wire.AuditRecord) audit.Record {
	out := audit.Record{Head: audit.Head{Seq: r.GetSequence()}, Prev: audit.Head{Seq: r.GetSequence() - 1}, Event: audit.Event{
		Time: r.GetTime().AsTime(), Op: r.GetOp(), Node: r.GetNode(), Address: r.GetAddress(), Actor: r.GetActor(), Role: r.GetRole(), Serial: r.GetSerial(),
		Outcome: r.GetOutcome(), Code: r.GetCode(), Reason: r.GetReason(), Before: r.GetBefore(), After: r.GetAfter(), Rule: r.GetRule(), KeyVersion: r.GetKeyVersion(), Detail: r.GetDetail(),
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
	for _, more := range []string{r.Code, r.Rule, r.Change(), r.Reason, r.Detail} {
		if more != "" {
			why += ", " + plain(more)
		}
	}
	who := r.Address
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
