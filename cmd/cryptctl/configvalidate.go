package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
)

// keyRow is one key of a configuration for people and for JSON.
type keyRow struct {
	Volume  string `json:"volume"`
	Cipher  string `json:"cipher"`
	KeySize int    `json:"key_size"` // bits
	Slot    int    `json:"slot"`
	Kind    string `json:"kind"`
	At      string `json:"at"`
}

func keyRows(c *config.Config) []keyRow {
	rows := []keyRow{}
	for _, v := range c.Volumes {
		for _, k := range v.Keys {
			rows = append(rows, keyRow{v.Volume, v.Cipher, v.KeySize, k.Slot, k.Kind(), k.Source.String()})
		}
	}
	return rows
}

func configValidateCommand() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use:   "validate [FILE...]",
		Short: "Check a machine configuration",
		Long: `Reads the files as one machine configuration and reports every mistake, with
file, line, field, the rule and the fix. What concerns disk encryption is read
strictly: an unknown field is a mistake. Of all other documents the form is
checked: YAML, no field twice, no document twice, apiVersion and kind.

Shows the keys of all volumes when there is none.`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().StringArrayVarP(&files, "file", "f", nil, "machine configuration `FILE` (repeatable; - is stdin)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		files = append(files, given...)
		if len(files) == 0 {
			return usageError("FILE is missing; see %s --help", cmd.CommandPath())
		}
		if err := oneStdin(files...); err != nil {
			return err
		}
		c, err := checkFiles(cmd.Context(), files)
		if err != nil {
			return err
		}
		defer c.Wipe()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), keyRows(c))
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "VOLUME\tCIPHER\tBITS\tSLOT\tKIND\tAT")
		for _, k := range keyRows(c) {
			fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\n", k.Volume, k.Cipher, k.KeySize, k.Slot, k.Kind, k.At)
		}
		return w.Flush()
	}
	return cmd
}

// checkFiles reads files as one configuration; those that cannot be read are
// mistakes beside the others.
func checkFiles(ctx context.Context, paths []string) (*config.Config, error) {
	var sources []config.Source
	var all config.Errors
	for _, path := range paths {
		name, text, err := readSource(ctx, path)
		var unread config.Errors
		if errors.As(err, &unread) {
			all = append(all, unread...)
			continue
		} else if err != nil {
			return nil, err
		}
		defer text.Wipe()
		sources = append(sources, config.Source{Name: name, Data: text.Bytes()})
	}
	c, err := config.Read(sources...)
	if len(all) == 0 {
		return c, err
	}
	if c != nil {
		c.Wipe()
	}
	var more config.Errors
	errors.As(err, &more)
	return nil, append(all, more...)
}
