package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

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
// text. The error is of type [config.Errors].
func readSource(path string) (name string, text *secret.Bytes, err error) {
	in := &document.Report{Name: path}
	if path == "-" {
		in.Name = "stdin"
	}
	text, ok := document.ReadFile(in, path, document.MaxSource)
	if !ok {
		return in.Name, nil, in.Sorted()
	}
	return in.Name, text, nil
}

// readStream reads the documents of a machine configuration; "-" is stdin. The
// error is of type [config.Errors].
func readStream(path string) (*document.Stream, error) {
	name, text, err := readSource(path)
	if err != nil {
		return nil, err
	}
	defer text.Wipe()
	return document.Read(name, bytes.Clone(text.Bytes())) // which keeps it
}

// checkConfig reads sources as one machine configuration: what concerns
// encryption strictly, and all documents as what they are for those who change
// them. The error is of type [config.Errors] and has every mistake once.
func checkConfig(sources ...config.Source) (*config.Config, error) {
	var all config.Errors
	c, err := config.Read(sources...)
	errors.As(err, &all)
	order := make(map[string]int)
	for i, s := range slices.Backward(sources) {
		order[s.Name] = i
		var more config.Errors
		_, err := document.Read(s.Name, bytes.Clone(s.Data))
		errors.As(err, &more)
		for _, e := range more {
			if !slices.ContainsFunc(all, func(o *config.Error) bool { return o.Position == e.Position && o.Problem == e.Problem }) {
				all = append(all, e)
			}
		}
	}
	if len(all) == 0 {
		return c, nil
	}
	if c != nil {
		c.Wipe()
	}
	slices.SortStableFunc(all, func(a, b *config.Error) int {
		if d := order[a.File] - order[b.File]; d != 0 {
			return d
		}
		return a.Line - b.Line
	})
	return nil, all
}

// checkText is checkConfig for one text whose reading is all that is asked for.
func checkText(name string, text []byte) error {
	c, err := checkConfig(config.Source{Name: name, Data: text})
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
