package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms/audit"
)

func kmsAuditAdopt() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "adopt LOG",
		Short: "Go on with an audit log as it is, though it is not what was written",
		Long: `A key server does not start when its audit log has lost its head, ends too early, or
has a newest file that was changed: someone may want to hide something. Find out why
first, and copy the directory as evidence. Then this makes the log one that the
server goes on with: after the last record that can be read. What follows that is put
aside in a file torn-..., nothing is deleted, and a record in the log says what was
wrong. LOG is the directory of the log (kms/audit); the server must be stopped.

A log that is sound stays as it is.`,
		Args: args("LOG"),
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		dir := given[0]
		if err := mustBeLog(dir); err != nil {
			return err
		}
		defer keepOwners(dir)
		head, err := openAndClose(dir, audit.Options{})
		if err == nil {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is sound, nothing had to be adopted; it ends with record %d\n", dir, head.Seq)
			return err
		}
		if !errors.Is(err, audit.ErrUnfit) {
			return err
		}
		if err := confirm(cmd, yes, whatIsAdopted(dir, err), "adopt"); err != nil {
			if cmd.Context().Err() != nil {
				return errors.New("interrupted; nothing was changed")
			}
			return err
		}
		before := asideIn(dir)
		if head, err = openAndClose(dir, audit.Options{Adopt: true}); err != nil {
			return err
		}
		for _, name := range asideIn(dir) {
			if !slices.Contains(before, name) {
				fmt.Fprintf(cmd.OutOrStdout(), "put aside: %s\n", name)
			}
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is adopted: record %d says what was wrong, and the log goes on after it\nhead: %s\n", dir, head.Seq, head)
		return err
	}
	return cmd
}

// whatIsAdopted says what is wrong, for the question.
func whatIsAdopted(dir string, err error) string {
	what := "its head is missing or damaged"
	if fault, ok := errors.AsType[*audit.Fault](err); ok {
		what = oneLine(fault.Error())
	}
	return fmt.Sprintf("The audit log %s is not what was written (%s), and from then on counts as sound as it is", dir, what)
}

func openAndClose(dir string, o audit.Options) (audit.Head, error) {
	l, err := audit.Open(dir, o)
	if err != nil {
		return audit.Head{}, err
	}
	head := l.Head()
	return head, l.Close()
}

// asideIn are the files that were put aside.
func asideIn(dir string) []string {
	names, _ := filepath.Glob(filepath.Join(dir, "torn-*"))
	return names
}

// keepOwners gives files of root's in a directory to its owner: a service that has a
// user of its own could not open them.
func keepOwners(dir string) {
	info, err := os.Stat(dir)
	if err != nil || os.Geteuid() != 0 {
		return
	}
	of, ok := info.Sys().(*syscall.Stat_t)
	if !ok || of.Uid == 0 {
		return
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		i, err := e.Info()
		if err != nil || !i.Mode().IsRegular() {
			continue
		}
		if s, ok := i.Sys().(*syscall.Stat_t); ok && s.Uid == 0 {
			_ = os.Lchown(filepath.Join(dir, e.Name()), int(of.Uid), int(of.Gid))
		}
	}
}
