package main

import "github.com/spf13/cobra"

func kmsCommand() *cobra.Command {
	return group("kms", "Run a key server for a fleet of nodes", kmsInitCommand(), kmsServeCommand())
}
