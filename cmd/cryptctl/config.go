package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/redact"
	"github.com/cryptctl/cryptctl/secret"
)

func configCommand() *cobra.Command {
	return group("config", "Work on machine configurations",
		configValidateCommand(), configShowCommand(), configPatchCommand(), configDiffCommand(), configEditCommand())
}

// readSource reads a machine configuration; "-" is stdin. The caller wipes the
// text. The error is of type [config.Errors], unless the context is done.
func readSource(ctx context.Context, path string) (name string, text *secret.Bytes, err error) {
	in := &document.Report{Name: path}
	if path == "-" {
		in.Name = "stdin"
	}
	text, err = awaitInput(ctx, func() (*secret.Bytes, error) {
		text, ok := document.ReadFile(in, path, document.MaxSource)
		if !ok {
			return nil, in.Sorted()
		}
		return text, nil
	}, path)
	return in.Name, text, err
}

// readStream reads the documents of a machine configuration; "-" is stdin. The
// error is of type [config.Errors], unless the context is done.
func readStream(ctx context.Context, path string) (*document.Stream, error) {
	name, text, err := readSource(ctx, path)
	if err != nil {
		return nil, err
	}
	defer text.Wipe()
	return document.Read(name, bytes.Clone(text.Bytes())) // which keeps it
}

// checkText checks one text as config validate does. The error is of type
// [config.Errors].
func checkText(name string, text []byte) error {
	c, err := config.Read(config.Source{Name: name, Data: text})
	if err != nil {
		return err
	}
	c.Wipe()
	return nil
}

// showStream writes a configuration: byte for byte, or without its secrets and
// comments.
func showStream(w io.Writer, s *document.Stream, secrets bool) error {
	if !secrets {
		clean, err := redact.Stream(s)
		if err != nil {
			return fmt.Errorf("%s: %w", s.Name(), err)
		}
		s = clean
	}
	_, err := w.Write(s.Bytes())
	return err
}

// oneStdin refuses a command line that wants more than one thing from stdin.
func oneStdin(paths ...string) error {
	n := 0
	for _, p := range paths {
		if p == "-" || p == "@-" {
			n++
		}
	}
	if n > 1 {
		return usageError("only one of the files can be - (stdin)")
	}
	return nil
}

// secretsFlag adds --show-secrets.
func secretsFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("show-secrets", false, "show secrets")
}
