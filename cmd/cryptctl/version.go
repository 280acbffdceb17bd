package main

import (
	"fmt"
	"runtime/debug"

	"github.com/spf13/cobra"
)

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
