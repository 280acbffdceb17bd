// Command cryptctl looks at, checks, formats and rotates the keys of LUKS2
// volumes, on block devices and on image files.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/secret"
)

// Exit codes. Those above 2 are verdicts of single commands, for scripts.
const (
	exitOK       = 0
	exitFailure  = 1
	exitUsage    = 2
	exitPending  = 3 // plan --exit-code: changes are pending; config diff --exit-code: they differ
	exitDamaged  = 3 // check, meta list: damaged but readable
	exitRefused  = 4 // check, meta list: not a header, or META, that we use
	exitNoKey    = 5 // open, key test: no key opens
	exitNotEmpty = 6 // format: the device is not empty
)

const exitCodes = `Exit codes:
  0  done; check and meta list: sound
  1  failed
  2  wrong usage
  3  check and meta list: damaged but readable; plan --exit-code: changes are pending;
     config diff --exit-code: they differ; boot --once: no configuration yet
  4  check: refused; meta list: unreadable
  5  open and key test: no key opens
  6  format: the device is not empty`

// exitError is an error that has an exit code of its own. Without a text there
// is nothing more to say than what was printed.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func main() { os.Exit(run()) }

func run() int {
	if err := secret.DisableCoreDumps(); err != nil {
		fmt.Fprintln(os.Stderr, "cryptctl: core dumps could not be turned off:", err)
	}
	kms.QuietGRPC() // before anything uses it
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal ends the command at the next safe place; with its handler
	// gone, a second one ends it at once, which a header survives too. Without a
	// signal the handler stays until the end: one that comes when all is done must
	// not make it look as if it were not.
	context.AfterFunc(ctx, stop)
	cmd, started := root(), false
	cmd.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	ran, err := cmd.ExecuteContextC(ctx)
	var exit *exitError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "cryptctl:", interruptedText(ran))
		return exitFailure
	case errors.As(err, &exit):
		if text := err.Error(); text != "" {
			fmt.Fprintln(os.Stderr, "cryptctl:", text)
		}
		return exit.code
	}
	fmt.Fprintln(os.Stderr, "cryptctl:", err)
	if !started { // an error of cobra's, about what was typed
		return exitUsage
	}
	return exitFailure
}

// interruptedText says what became of a command that a signal ended.
func interruptedText(cmd *cobra.Command) string {
	for cmd.Parent().HasParent() {
		cmd = cmd.Parent()
	}
	switch cmd.Name() {
	case "kms", "pki", "config", "tpm", "meta", "disk", "status", "boot", "close": // they write no header, or many
		return "interrupted before it was done"
	case "apply", "reset":
		return "interrupted; what the node did is not known: see cryptctl status"
	}
	return "interrupted; the header has either its old content or the complete new one"
}

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cryptctl",
		Short: "Disk encryption and key management for Linux nodes",
		Long: `cryptctl makes LUKS2 volumes match the keys that a machine configuration
declares, safely: no key is removed before another was seen to open the volume,
only empty partitions are formatted, and a power cut at any instant leaves the
old keys or the new ones.

` + exitCodes,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usageError("%w; see %s --help", err, c.CommandPath())
	})
	cmd.AddCommand(
		inspectCommand(), checkCommand(), planCommand(), formatCommand(), syncCommand(), openCommand(), closeCommand(),
		keyCommand(), tokenCommand(), headerCommand(), eraseCommand(), metaCommand(),
		bootCommand(), statusCommand(), applyCommand(), resetCommand(),
		tpmCommand(), kmsCommand(), pkiCommand(),
		configCommand(), diskCommand(), versionCommand(),
	)
	return cmd
}

// args checks the number of arguments and names what is missing.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		switch {
		case len(given) < len(names):
			return usageError("%s is missing; see %s --help", names[len(given)], cmd.CommandPath())
		case len(given) > len(names):
			return usageError("%q is one argument too many; see %s --help", given[len(names)], cmd.CommandPath())
		}
		return nil
	}
}

// group makes a command that only holds others.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: func(cmd *cobra.Command, given []string) error {
		if len(given) > 0 {
			return usageError("%q is not a command of %s; see %s --help", given[0], cmd.CommandPath(), cmd.CommandPath())
		}
		return nil
	}, RunE: func(cmd *cobra.Command, _ []string) error {
		return usageError("%s needs a command; see %s --help", cmd.CommandPath(), cmd.CommandPath())
	}}
	cmd.AddCommand(sub...)
	return cmd
}
