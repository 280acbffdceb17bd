package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// Rules of output:
//
//   - What was asked for goes to stdout: a table, or with --json one JSON value.
//   - Errors go to stderr, once, as "cryptctl: what, where, what to do".
//   - Progress goes to stderr, and only to a terminal.
//   - Text from a disk is printed with %q: it may hold escape sequences.
//   - Secrets are never printed.

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// withProgress shows key derivations, which take seconds, on a terminal.
func withProgress(ctx context.Context) context.Context {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return ctx
	}
	const clearLine = "\r\x1b[K"
	return kdf.WithTrace(ctx, kdf.Trace{
		Start: func(c kdf.Cost) {
			if c.Kind.MemoryHard() && c.MemoryKiB < 16<<10 {
				return
			}
			fmt.Fprintf(os.Stderr, "%sderiving a key: %s", clearLine, c)
		},
		Done: func(kdf.Cost, time.Duration) { fmt.Fprint(os.Stderr, clearLine) },
	})
}

// bytesText gives a size for people: exact, in the largest unit that fits.
func bytesText(n int64) string {
	for _, u := range []struct {
		unit string
		size int64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= u.size && n%(u.size/4) == 0 {
			return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", float64(n)/float64(u.size)), "0"), ".") + " " + u.unit
		}
	}
	return fmt.Sprintf("%d B", n)
}

// confirm asks on the terminal for a word to be typed; without a terminal --yes
// is needed.
func confirm(cmd *cobra.Command, yes bool, what, word string) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usageError("%s; give --yes to do it", what)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s.\nType %s to go on: ", what, word)
	var typed string
	fmt.Fscanln(os.Stdin, &typed)
	if typed != word {
		return fmt.Errorf("not confirmed; nothing was changed")
	}
	return nil
}
