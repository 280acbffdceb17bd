package main

import "github.com/spf13/cobra"

func configShowCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "show [FILE]",
		Short: "Show a machine configuration without its secrets",
		Long: `Prints all documents of a machine configuration in their order, with [secret] in
the place of each secret: passphrases, passwords, tokens, private keys. Comments
are left out too, since a field that was commented out is one. Such an output is
for people: a configuration with [secret] in it is refused.

With --show-secrets the file is printed as it is, byte for byte.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) == 0 {
				return nil
			}
			return args("FILE")(cmd, given)
		},
	}
	configFlag(cmd, &file, "machine configuration `FILE`; - is stdin")
	secrets := secretsFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) == 0 && file == "":
			return usageError("FILE is missing; see %s --help", cmd.CommandPath())
		case len(given) > 0 && file != "":
			return usageError("%q is one file too many: --file names one", given[0])
		case len(given) > 0:
			file = given[0]
		}
		s, err := readStream(cmd.Context(), file)
		if err != nil {
			return err
		}
		return showStream(cmd.OutOrStdout(), s, *secrets)
	}
	return cmd
}
