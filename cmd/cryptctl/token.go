package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

func tokenCommand() *cobra.Command {
	return group("token", "List, show, import and remove tokens",
		tokenListCommand(), tokenShowCommand(), tokenImportCommand(), tokenRemoveCommand())
}

func tokenListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{Use: "list DEVICE", Short: "List the tokens", Args: args("DEVICE")}
	t.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, h, err := t.read(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		if *asJSON {
			tokens := map[string]json.RawMessage{}
			for _, token := range h.Tokens() {
				tokens[fmt.Sprint(token.ID)] = token.JSON
			}
			return printJSON(cmd.OutOrStdout(), tokens)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "TOKEN\tTYPE\tSLOTS\tBYTES")
		for _, token := range h.Tokens() {
			fmt.Fprintf(w, "%d\t%s\t%v\t%d\n", token.ID, plain(token.Type), token.Keyslots, len(token.JSON))
		}
		return w.Flush()
	}
	return cmd
}

func tokenShowCommand() *cobra.Command {
	var t target
	var id int
	cmd := &cobra.Command{Use: "show DEVICE --token N", Short: "Print a token's JSON", Args: args("DEVICE")}
	t.flags(cmd)
	numberFlag(cmd, "token", &id, -1, "token `N` to show")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if id < 0 {
			return usageError("--token says which token is meant")
		}
		v, h, err := t.read(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		token, ok := h.Token(id)
		if !ok {
			return fmt.Errorf("%s: token %d: %w", v.name, id, luks.ErrNoToken)
		}
		return printJSON(cmd.OutOrStdout(), token.JSON)
	}
	return cmd
}

// maxToken is more than any JSON area holds.
const maxToken = 4 << 20

func tokenImportCommand() *cobra.Command {
	var t target
	var id int
	var from string
	cmd := &cobra.Command{
		Use:   "import DEVICE --token N --json-file FILE",
		Short: "Store a token, in place of the one there with --replace",
		Args:  args("DEVICE"),
	}
	t.flags(cmd)
	numberFlag(cmd, "token", &id, -1, "token `N` to store")
	cmd.Flags().StringVar(&from, "json-file", "-", "`FILE` with the token; - is stdin")
	replace := cmd.Flags().Bool("replace", false, "replace the token that is there")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if id < 0 {
			return usageError("--token says which token is meant")
		}
		raw, err := readToken(cmd.Context(), from)
		if err != nil {
			return err
		}
		v, h, err := t.read(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		if _, there := h.Token(id); there && !*replace {
			return fmt.Errorf("%s: token %d exists; --replace replaces it", v.name, id)
		}
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		if _, err := h.Commit(luks.SetToken(id, raw)); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "stored token %d\n", id)
		return nil
	}
	return cmd
}

func readToken(ctx context.Context, path string) (json.RawMessage, error) {
	raw, err := readInput(ctx, path, maxToken)
	if errors.Is(err, secret.ErrTooLong) {
		return nil, fmt.Errorf("token: more than %d bytes fit no header", maxToken)
	} else if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	defer raw.Wipe()
	return bytes.Clone(raw.Bytes()), nil
}

func tokenRemoveCommand() *cobra.Command {
	var t target
	var id int
	cmd := &cobra.Command{
		Use:   "remove DEVICE --token N",
		Short: "Remove a token; the keyslots it names stay",
		Args:  args("DEVICE"),
	}
	t.flags(cmd)
	numberFlag(cmd, "token", &id, -1, "token `N` to remove")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if id < 0 {
			return usageError("--token says which token is meant")
		}
		v, h, err := t.read(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		token, ok := h.Token(id)
		if !ok {
			return fmt.Errorf("%s: token %d: %w", v.name, id, luks.ErrNoToken)
		}
		what := fmt.Sprintf("A key whose passphrase only token %d (%s) can give is lost with it", id, plain(token.Type))
		if err := confirm(cmd, *yes, what, fmt.Sprint(id)); err != nil {
			return err
		}
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		if _, err := h.Commit(luks.RemoveToken(id)); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "removed token %d\n", id)
		return nil
	}
	return cmd
}
