package main

import (
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

func configCommand() *cobra.Command {
	var files []string
	var asJSON *bool
	validate := &cobra.Command{
		Use:   "validate",
		Short: "Check the disk encryption of a machine configuration",
		Long:  `Reads the files as one machine configuration and reports every mistake in its disk encryption, with file, line, field and fix.`,
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usageError("--file says which machine configuration to check")
			}
			c, err := config.ReadFiles(files...)
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
		},
	}
	validate.Flags().StringArrayVarP(&files, "file", "f", nil, "machine configuration `FILE` (repeatable; - is stdin)")
	asJSON = jsonFlag(validate)
	return group("config", "Work on machine configurations", validate)
}
