package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/audit"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/store/bolt"
)

func kmsRestoreCommand() *cobra.Command {
	var dir string
	var accept bool
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make the store of a key server that is stopped from a backup",
		Long: `Checks a backup and makes the store of it that kms.yaml names. A store that is there
is not replaced: stop the server and move it away first. The audit log stays as it
is: it says what was changed since the backup, and that is shown, for none of it is
in the store any more. A node that was revoked since is served again, and one that
was forgotten has its keys again.

First the keys in it are tried, as cryptctl kms backup verify does it. If the keyset
of the directory does not open all of them, nothing is restored: look for the keyset
file of the backup's time. If there is none, --accept-lost-keys restores the rest.`,
		Args: args("BACKUP"),
	}
	cmd.Flags().StringVar(&dir, "dir", kmsDir, "`DIRECTORY` that kms init made")
	cmd.Flags().BoolVar(&accept, "accept-lost-keys", false, "restore also what the keyset does not open: the nodes of those keys have lost what they sealed")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		c, err := readKMSConfig(filepath.Join(dir, kmsConfigName))
		if err != nil {
			return err
		}
		if c.Store.File == "" {
			return errors.New("the store is in etcd, which is restored by etcdutl snapshot restore")
		}
		if err := notThere(c.Store.File); err != nil {
			return err
		}
		lost, err := checkBackup(cmd.Context(), c, given[0], accept)
		if err != nil {
			return err
		}
		n, sum, err := restoreStore(c.Store.File, given[0])
		if err != nil {
			return err
		}
		since, err := readSince(c.Audit, sum)
		if *asJSON {
			err = errors.Join(printJSON(cmd.OutOrStdout(), since.view(c.Store.File, n, lost)), err)
		} else {
			fmt.Fprintf(cmd.OutOrStdout(), "%s is restored from %s: %d records\n", c.Store.File, given[0], n)
			if lost != nil {
				fmt.Fprintf(cmd.OutOrStdout(), "Lost with it: %v\n", lost)
			}
			if err == nil {
				return since.write(cmd.OutOrStdout())
			}
		}
		if err != nil {
			return fmt.Errorf("the store is restored; what was changed since the backup is not known, for the audit log cannot be read: %w", err)
		}
		return nil
	}
	return cmd
}

// checkBackup says why a backup is not worth restoring: it is not whole, or keys in
// it do not open. The latter is lost in the place of an error if that was accepted.
func checkBackup(ctx context.Context, c *kmsConfig, path string, accept bool) (lost, err error) {
	s, err := surveyBackup(ctx, c, path)
	none, noKEK := errors.AsType[noKeyset](err)
	switch {
	case noKEK && accept:
		return none, nil
	case noKEK:
		return nil, fmt.Errorf("nothing was restored, for no key in the backup can be tried: %w; without it the backup opens nothing (--accept-lost-keys restores it all the same)", err)
	case err != nil:
		return nil, err
	}
	if lost = s.lost(); lost != nil && !accept {
		return nil, fmt.Errorf("nothing was restored: %w; put that keyset file in its place, or lose them with --accept-lost-keys", lost)
	}
	return lost, nil
}

// notThere refuses a store that there is.
func notThere(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there, and a restore replaces nothing; stop the key server, move the file away, keep it until the new one has proven itself, and try again", path)
	}
	return nil
}

// restoreStore makes the store, and returns the checksum of the backup.
func restoreStore(path, backup string) (records int, sum []byte, err error) {
	f, err := os.Open(backup)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close()
	h := sha256.New()
	if records, err = bolt.Restore(path, io.TeeReader(f, h)); err != nil {
		return 0, nil, fmt.Errorf("%s: %w", backup, err)
	}
	return records, h.Sum(nil), nil
}

// sinceBackup is what an audit log says of the time after a backup.
type sinceBackup struct {
	known   bool // the log has a record of the backup
	before  uint64
	changes []audit.Record
	sealed  []string // nodes that sealed since
}

// readSince reads the audit log from the backup on.
func readSince(dir string, sum []byte) (s sinceBackup, err error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	is := func(r audit.Record) (ok bool) {
		if r.Op == "backup" {
			var before uint64
			if before, ok = server.BackupOf(r, sum); ok {
				s.known, s.before = true, before
			}
		}
		return ok
	}
	if _, err := audit.Last(dir, 1, is); err != nil || !s.known {
		return s, err
	}
	for r, err := range audit.Read(dir, s.before+1) {
		if err != nil {
			return s, err
		}
		s.take(r)
	}
	return s, nil
}

// take looks at one record. A change counts from its beginning: a server that was
// killed in it may have made it; one that failed was not made.
func (s *sinceBackup) take(r audit.Record) {
	switch {
	case r.Op == "backup" || r.Op == "rewrap":
	case r.Outcome == "allowed" && r.Op != "unseal" && !slices.Contains(s.sealed, r.Node):
		s.sealed = append(s.sealed, r.Node)
	case r.Outcome == "begun":
		s.changes = append(s.changes, r)
	case r.Outcome == "done" || r.Outcome == "failed":
		for i, c := range slices.Backward(s.changes) {
			if c.Outcome == "begun" && c.Op == r.Op && c.Node == r.Node && c.Actor == r.Actor {
				s.changes = slices.Delete(s.changes, i, i+1)
				break
			}
		}
		if r.Outcome == "done" {
			s.changes = append(s.changes, r)
		}
	}
}

// said is what a record says of a change: the values, and why it was made.
func said(r audit.Record) string {
	var parts []string
	for _, part := range []string{r.Change(), r.Reason, r.Detail} {
		if part != "" {
			parts = append(parts, plain(part))
		}
	}
	return strings.Join(parts, "; ")
}

// kmsRestoreView is a restore as JSON shows it.
type kmsRestoreView struct {
	Store   string      `json:"store"`
	Records int         `json:"records"`
	Lost    string      `json:"lost,omitempty"`
	Known   bool        `json:"backup_on_record"`
	Before  uint64      `json:"backup_record,omitempty"`
	Changes []kmsRecord `json:"changes_since"`
	Sealed  []string    `json:"sealed_since"`
}

func (s sinceBackup) view(store string, records int, lost error) kmsRestoreView {
	v := kmsRestoreView{Store: store, Records: records, Known: s.known, Before: s.before, Changes: []kmsRecord{}, Sealed: append([]string{}, s.sealed...)}
	if lost != nil {
		v.Lost = lost.Error()
	}
	for _, r := range s.changes {
		v.Changes = append(v.Changes, kmsRecord{r.Seq, hex.EncodeToString(r.Prev.Hash[:]), r.Event, hex.EncodeToString(r.Hash[:])})
	}
	return v
}

func (s sinceBackup) write(out io.Writer) error {
	if !s.known {
		_, err := fmt.Fprintln(out, `The audit log has no record of this backup. What was changed since it was made is not
in the store: a node that was revoked since is served again. Compare with cryptctl
kms audit tail and do again what was done before nodes can reach the server.`)
		return err
	}
	if len(s.changes) == 0 && len(s.sealed) == 0 {
		_, err := fmt.Fprintf(out, "The audit log has no change since the backup (record %d).\n", s.before)
		return err
	}
	fmt.Fprintf(out, `The audit log goes on after the backup (record %d). What follows is not in the store
any more, or not for sure:
`, s.before)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range s.changes {
		at := r.Time
		fmt.Fprintf(w, "  %d\t%s\t%s\t%s\tby %s\t%s\n", r.Seq, timeText(&at), plain(r.Op), dash(r.Node), dash(r.Actor), said(r))
	}
	for _, node := range s.sealed {
		fmt.Fprintf(w, "  \t\tsealed\t%s\tmay need a key that is not there\n", dash(node))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, `Do the changes again before nodes can reach the server: a node that was revoked or
frozen since is served, one that was forgotten has its keys again.`)
	if err == nil && slices.ContainsFunc(s.changes, func(r audit.Record) bool { return r.Op == "retire-kek" }) {
		_, err = fmt.Fprintln(out, `A version of the key-encryption key was destroyed since (retire-kek): a node whose keys
it wrapped in the backup has lost what it sealed.`)
	}
	return err
}
