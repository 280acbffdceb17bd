package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/pki"
)

func pkiCACommand() *cobra.Command {
	var name, out string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Make an authority that issues certificates",
		Long: `Makes an Ed25519 authority that signs itself: its certificate, which whoever
trusts it gets, and its key, which stays where certificates are issued. Who has
the key can be anyone to those who trust the certificate.`,
		Args: args(),
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "cryptctl", "`NAME` of the authority, for people")
	f.DurationVar(&ttl, "ttl", pki.AuthorityTTL, "how long it lives; nothing that it issues lives longer")
	f.StringVar(&out, "out", "ca", "`PREFIX` of the new files PREFIX.crt and PREFIX.key, or a folder for ca.crt and ca.key")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if ttl <= 0 {
			return usageError("--ttl: a life of %s; give one such as 87600h", ttl)
		}
		if name == "" {
			return usageError("--name: is empty; give a name that people will recognise")
		}
		_, pair, err := pki.NewAuthority(name, ttl)
		if err != nil {
			return err
		}
		defer pair.Wipe()
		cert, key := pairFiles(out, "ca")
		if err := pair.Write(cert, key); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: the certificate of %q, for those who trust it\n%s: its key, for nobody else\n", cert, name, key)
		return nil
	}
	return cmd
}
