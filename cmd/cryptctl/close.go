package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/mapping"
)

func closeCommand() *cobra.Command {
	var deferred, cancel bool
	cmd := &cobra.Command{
		Use:   "close NAME",
		Short: "Close an open volume; its key leaves the kernel",
		Long: `Takes the mapping /dev/mapper/NAME away, whether cryptctl or cryptsetup made it.
One that is in use stays, and who uses it is named; with --deferred it goes when
its last user leaves.`,
		Args: args("NAME"),
	}
	cmd.Flags().BoolVar(&deferred, "deferred", false, "close it when its last user leaves; its name is gone at once")
	cmd.Flags().BoolVar(&cancel, "cancel-deferred", false, "take back a deferred close")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		said, err := "closed %s\n", error(nil)
		switch {
		case deferred && cancel:
			return usageError("--deferred and --cancel-deferred contradict each other; give one of them")
		case cancel:
			said, err = "%s stays open\n", mapping.CancelDeferred(a[0])
		case deferred:
			said, err = "%s closes when its last user leaves\n", mapping.Close(a[0], mapping.CloseOptions{Deferred: true})
		default:
			err = mapping.Close(a[0], mapping.CloseOptions{})
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), said, a[0])
		return nil
	}
	return cmd
}
