package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/disk"
)

func diskCommand() *cobra.Command {
	return group("disk", "Make disk images and list partitions", diskCreateCommand(), diskListCommand())
}

func diskCreateCommand() *cobra.Command {
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
			if size == "" {
				return usageError("--size is missing: 512M, 2G")
			}
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
	return create
}

func diskListCommand() *cobra.Command {
	var asJSON *bool
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
			return writePartitions(cmd, t, *asJSON)
		},
	}
	asJSON = jsonFlag(list)
	return list
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
