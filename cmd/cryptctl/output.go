package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"reflect"
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
//   - Secrets are never printed, but by --show-secrets of meta get and config show,
//     patch and diff, and by tpm unseal --reveal.

// jsonFlag adds --json.
func jsonFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "print JSON")
}

// printJSON escapes what a terminal might act on, too: package json leaves the
// control characters above 7E as they are.
func printJSON(w io.Writer, v any) error {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := io.WriteString(w, harmless(b.String()))
	return err
}

// harmless escapes the control characters that package json leaves in its strings.
func harmless(text string) string {
	var safe strings.Builder
	safe.Grow(len(text))
	for _, c := range text {
		if c >= 0x7f && c <= 0x9f {
			fmt.Fprintf(&safe, `\u%04x`, c)
			continue
		}
		safe.WriteRune(c)
	}
	return safe.String()
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
	typed, err := interruptible(cmd.Context(), func() (s string, err error) {
		_, err = fmt.Fscanln(os.Stdin, &s)
		return s, err
	})
	if cmd.Context().Err() != nil {
		return err
	}
	if typed != word {
		return fmt.Errorf("not confirmed; nothing was changed")
	}
	return nil
}

// interruptible waits for f, but not longer than for the context. What f returns
// after that is wiped.
func interruptible[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result) // no buffer: a value is with f or with who waits
	go func() {
		v, err := f()
		select {
		case done <- result{v, err}:
		case <-ctx.Done():
			unlessEnded(ctx, v, err)
		}
	}()
	var r result
	select {
	case r = <-done:
	case <-ctx.Done():
	}
	return unlessEnded(ctx, r.value, r.err)
}

// unlessEnded returns v and err, or once the context has ended why it has; v, which
// nobody gets then, is wiped if it is a secret.
func unlessEnded[T any](ctx context.Context, v T, err error) (T, error) {
	if ctx.Err() == nil {
		return v, err
	}
	switch s := any(v).(type) {
	case []byte: // a password of package term
		clear(s)
	case interface{ Wipe() }:
		if !reflect.ValueOf(s).IsZero() { // not every Wipe takes a nil pointer
			s.Wipe()
		}
	}
	var none T
	return none, context.Cause(ctx)
}
