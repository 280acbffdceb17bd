package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config/diff"
	"github.com/cryptctl/cryptctl/config/document"
)

// changeRow is one difference for people and for JSON.
type changeRow struct {
	Document string `json:"document"`
	Path     string `json:"path"` // "" = the document
	Kind     string `json:"kind"` // added, removed or changed
	Old      string `json:"old,omitempty"`
	New      string `json:"new,omitempty"`
}

func configDiffCommand() *cobra.Command {
	var exitCode bool
	cmd := &cobra.Command{
		Use:   "diff OLD NEW",
		Short: "Show the differences between two machine configurations",
		Long: `Compares two machine configurations by document and path. The order of fields and
documents, comments and styles are no difference. Entries of lists are found by
their name, such as slot or interface, where they have one; a new order of them is
a difference, but not of keys, which have slots. One of the files can be - for stdin.

Of a secret that changed it is shown that it did; --show-secrets shows both.`,
		Args: args("OLD", "NEW"),
	}
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "exit with 3 when they differ")
	asJSON := jsonFlag(cmd)
	secrets := secretsFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if err := oneStdin(given...); err != nil {
			return err
		}
		old, err := readStream(cmd.Context(), given[0])
		if err != nil {
			return err
		}
		now, err := readStream(cmd.Context(), given[1])
		if err != nil {
			return err
		}
		rows, err := changeRows(old, now, *secrets)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), rows)
		} else {
			err = writeChanges(cmd.OutOrStdout(), rows)
		}
		if err == nil && exitCode && len(rows) > 0 {
			return &exitError{code: exitPending}
		}
		return err
	}
	return cmd
}

func changeRows(old, now *document.Stream, secrets bool) ([]changeRow, error) {
	changes, err := diff.Options{Secrets: secrets}.Streams(old, now)
	if err != nil {
		return nil, fmt.Errorf("%s and %s cannot be compared: %w", old.Name(), now.Name(), err)
	}
	rows := []changeRow{}
	for _, c := range changes {
		rows = append(rows, changeRow{c.Document.String(), c.Path, string(c.Kind), c.Old, c.New})
	}
	return rows, nil
}

// writeChanges writes a table, and nothing when there is no difference.
func writeChanges(out io.Writer, rows []changeRow) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DOCUMENT\tPATH\tCHANGE\tVALUE")
	for _, r := range rows {
		value := r.Old + r.New
		if r.Kind == string(diff.Changed) {
			value = r.Old + " -> " + r.New
		}
		path := r.Path
		if path == "" {
			path = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Document, path, r.Kind, value)
	}
	return w.Flush()
}
