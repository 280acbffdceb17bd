package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/patch"
	"github.com/cryptctl/cryptctl/config/redact"
)

// patching is what the flags of config patch say.
type patching struct {
	patches []string
	to      string
	talos   bool
	secrets *bool
}

func configPatchCommand() *cobra.Command {
	var p patching
	cmd := &cobra.Command{
		Use:   "patch FILE --patch PATCH",
		Short: "Apply patches to a machine configuration",
		Long: `Applies patches, in order, and writes the result, as talosctl machineconfig patch
does. FILE is a machine configuration of any number of documents; - is stdin.

A patch is given itself, or as @FILE (@- is stdin). A list is a patch of RFC 6902,
in JSON or YAML, for a configuration of one document; everything else is a
strategic merge patch of one or more documents, with $patch: delete. Keys of an
encryption merge by slot, and "- slot: 1" with $patch: delete removes one. Patches
with secrets belong in files: everyone on the machine sees arguments.

Either all patches apply, or nothing is written and each mistake is named. What no
patch touches keeps its bytes, its order and its comments. The result is checked as
config validate does before it is written.

With -o FILE the result goes to that file, whole and with mode 0600, secrets
included; it may be the one that was read, which keeps its owner. Without it, and
with -o -, it goes to stdout without secrets and comments, into a pipe as to a
terminal, unless --show-secrets is given.

--talos merges exactly as Talos 1.13 does, with its losses, and does not check the
result, as talosctl does not.`,
		Args: args("FILE"),
	}
	f := cmd.Flags()
	f.StringArrayVarP(&p.patches, "patch", "p", nil, "`PATCH`, or @FILE with one (repeatable)")
	f.StringVarP(&p.to, "output", "o", "-", "`FILE` to write; - is stdout")
	f.BoolVar(&p.talos, "talos", false, "merge exactly as Talos does, and do not check the result")
	p.secrets = secretsFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error { return p.run(cmd, given[0]) }
	return cmd
}

func (p *patching) run(cmd *cobra.Command, file string) error {
	switch {
	case len(p.patches) == 0:
		return usageError("--patch says what to change: a patch, or @FILE with one")
	case p.to == "":
		return usageError("--output names no file; - is stdout")
	case *p.secrets && p.to != "-":
		return usageError("--show-secrets is for stdout; %s gets everything anyway", p.to)
	}
	if err := oneStdin(append([]string{file}, p.patches...)...); err != nil {
		return err
	}
	out, err := p.apply(cmd, file)
	if err != nil {
		return err
	}
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if p.to != "-" {
		return p.write(file, out.Bytes())
	}
	if !*p.secrets {
		fmt.Fprintln(cmd.ErrOrStderr(), "note: shown without secrets and comments; -o FILE writes all of it, --show-secrets shows it")
	}
	return showStream(cmd.OutOrStdout(), out, *p.secrets)
}

// write writes the result. It has the owner of what was there only if that is
// the file that was patched: anyone can have put a file into a shared directory.
func (p *patching) write(file string, result []byte) error {
	target, old, err := replaced(p.to)
	if err != nil {
		return err
	}
	if in, err := os.Stat(file); err != nil || old != nil && !os.SameFile(in, old) {
		old = nil
	}
	return putFile(p.to, target, result, 0o600, old)
}

func (p *patching) apply(cmd *cobra.Command, file string) (*document.Stream, error) {
	s, err := readStream(cmd.Context(), file)
	if err != nil {
		return nil, err
	}
	patches, err := awaitInput(cmd.Context(), func() ([]*patch.Patch, error) { return patch.Arguments(p.patches...) }, p.patches...)
	if err != nil {
		return nil, err
	}
	for i, arg := range p.patches {
		if patches[i].Name() == "patch "+strconv.Itoa(i+1) && showsSecret(arg) {
			fmt.Fprintf(cmd.ErrOrStderr(), "note: patch %d has a secret, and everyone on this machine can see arguments; use @FILE\n", i+1)
		}
	}
	out, err := patch.Options{Talos: p.talos}.Apply(s, patches...)
	if err != nil || p.talos {
		return out, err
	}
	if err := checkText(s.Name()+" (patched)", out.Bytes()); err != nil {
		return nil, fmt.Errorf("the result is not valid, and nothing was written:\n%w", err)
	}
	return out, nil
}

// showsSecret reports whether a patch has what would be redacted.
func showsSecret(text string) bool {
	var in document.Report
	for _, doc := range document.Load(&in, []byte(text)) {
		root := doc.Content[0]
		if root.Kind != yaml.SequenceNode && hidden(nil, root) {
			return true
		}
		for _, op := range root.Content {
			path := strings.Split(document.Text(document.Field(op, "path")), "/")
			if v := document.Field(op, "value"); root.Kind == yaml.SequenceNode && v != nil && hidden(path, v) {
				return true
			}
		}
	}
	return false
}

// hidden reports whether something of a value would be redacted.
func hidden(path []string, n *yaml.Node) bool {
	clean, err := document.Copy(n)
	if err != nil {
		return false
	}
	redact.Value(path, clean)
	plain, err := document.Copy(n)
	return err == nil && !document.Equal(plain, clean)
}
