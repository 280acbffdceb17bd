package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/disk"
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

func diskCommand() *cobra.Command {
	var size string
	var specs []string
	var asJSON *bool
	create := &cobra.Command{
		Use:     "create FILE",
		Short:   "Make a new disk image with GPT partitions",
		Long:    `Makes a new, sparse image file with labelled partitions. A file or device that is there already is never touched.`,
		Example: "  cryptctl disk create node.img --size 1G --partition META=1M --partition STATE=100M --partition EPHEMERAL=rest",
		Args:    args("FILE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			n, err := disk.ParseSize(size)
			if err != nil {
				return usageError("--size: %w", err)
			}
			var parts []disk.Spec
			for _, s := range specs {
				spec, err := disk.ParseSpec(s)
				if err != nil {
					return usageError("--partition: %w", err)
				}
				parts = append(parts, spec)
			}
			t, err := disk.Create(a[0], n, parts)
			if err != nil {
				return err
			}
			return writePartitions(cmd, t, *asJSON)
		},
	}
	asJSON = jsonFlag(create)
	create.Flags().StringVar(&size, "size", "", "`SIZE` of the image: 512M, 2G")
	create.Flags().StringArrayVar(&specs, "partition", nil, "a partition as `LABEL=SIZE`, or LABEL=rest (repeatable)")
	var listJSON *bool
	list := &cobra.Command{
		Use:   "list DEVICE",
		Short: "List the partitions of a disk or image",
		Args:  args("DEVICE"),
		RunE: func(cmd *cobra.Command, a []string) error {
			f, err := os.Open(a[0])
			if err != nil {
				return err
			}
			defer f.Close()
			t, err := disk.Read(f)
			if err != nil {
				return err
			}
			return writePartitions(cmd, t, *listJSON)
		},
	}
	listJSON = jsonFlag(list)
	return group("disk", "Make disk images and list partitions", create, list)
}

func writePartitions(cmd *cobra.Command, t *disk.Table, asJSON bool) error {
	if asJSON {
		t.Partitions = append([]disk.Partition{}, t.Partitions...) // [], not null
		return printJSON(cmd.OutOrStdout(), t)
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NUMBER\tLABEL\tOFFSET\tSIZE")
	for _, p := range t.Partitions {
		fmt.Fprintf(w, "%d\t%s\t%d\t%s\n", p.Number, plain(p.Label), p.Offset, bytesText(p.Size))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, d := range t.Damage {
		fmt.Fprintln(cmd.ErrOrStderr(), "note:", d)
	}
	return nil
}

// version is set by the linker when a release is built.
var version = ""

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version
			info, ok := debug.ReadBuildInfo()
			if v == "" {
				v = "devel"
			}
			if !ok {
				fmt.Fprintln(cmd.OutOrStdout(), "cryptctl", v)
				return nil
			}
			fmt.Fprintln(cmd.OutOrStdout(), "cryptctl", v, info.GoVersion)
			return nil
		},
	}
}
