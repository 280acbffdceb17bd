package main

import "github.com/spf13/cobra"

func kmsCommand() *cobra.Command {
	return group("kms", "Run a key server for a fleet of nodes, and operate one", kmsInitCommand(), kmsServeCommand(), kmsRenewCommand(),
		kmsNodeCommand(), kmsKeyCommand(), kmsPolicyCommand(), kmsAuditCommand(), kmsBackupCommand(), kmsRestoreCommand())
}
