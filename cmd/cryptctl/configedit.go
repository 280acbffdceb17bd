package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/secret"
)

// editing is what the flags of config edit say.
type editing struct {
	apply  bool
	mode   string
	client *node.Client
}

func configEditCommand() *cobra.Command {
	var e editing
	cmd := &cobra.Command{
		Use:   "edit FILE",
		Short: "Edit a machine configuration, and save it only when it is valid",
		Long: `Opens a copy of the file in the editor that TALOS_EDITOR names, else EDITOR, else
vi, and checks what was saved as config validate does. The editor can be a command
with all that the shell knows; the path of the copy follows it. The file is replaced
in one step, with its mode and owner, and the differences are shown without secrets.

  unchanged or empty   nothing is written or applied
  not valid            the editor opens again, with the mistakes on top as comments,
                       which are taken out again; saved once more without a change,
                       it ends with the mistakes, and nothing is written
  FILE was changed     by someone else meanwhile: it is left alone, and what was
                       edited is kept where the message says

The copy has secrets. It is in a directory that only its owner can enter, in
XDG_RUNTIME_DIR or /dev/shm where there is one (memory) that no other user could
replace, else beside FILE, and goes with all that the editor leaves there, also when
a signal ends the command.

With --apply what was saved is brought to the running node, as apply does. FILE is
what is edited then too: the node daemon shows nobody what it has.`,
		Args: args("FILE"),
	}
	cmd.Flags().BoolVar(&e.apply, "apply", false, "bring it to the running node when it was changed")
	modeFlag(cmd, &e.mode)
	e.client = daemon(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		if !e.apply && (cmd.Flags().Changed("mode") || cmd.Flags().Changed("socket")) {
			return usageError("--mode and --socket are for --apply")
		}
		return e.run(cmd, given[0])
	}
	return cmd
}

func (e *editing) run(cmd *cobra.Command, path string) error {
	if path == "-" {
		return usageError("a file is edited, not stdin; see cryptctl config patch")
	}
	_, old, err := readSource(cmd.Context(), path)
	if err != nil {
		return err
	}
	defer old.Wipe()
	now, err := editFile(path, old)
	if err != nil {
		return err
	}
	if now == nil {
		fmt.Fprintf(cmd.OutOrStdout(), "%s was not changed\n", path)
		return nil
	}
	defer now.Wipe()
	writeEdited(cmd, path, old, now)
	if !e.apply {
		return nil
	}
	// The key that interrupts was the editor's.
	a, err := e.client.Apply(context.WithoutCancel(cmd.Context()), now.Bytes(), node.Mode(e.mode))
	if err != nil {
		err = fmt.Errorf("%w\n%s is saved; when the node is ready for it: cryptctl apply --file %s", err, path, path)
	}
	return writeApplied(cmd, a, err, false)
}

// editFile has a file edited, and returns what it has now, nil when it was not
// changed.
func editFile(path string, old *secret.Bytes) (now *secret.Bytes, err error) {
	e, err := newEditor(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.close()) }()
	now, err = editUntilValid(e, path, old)
	switch {
	case err != nil && e.keep:
		return nil, fmt.Errorf("%w\n%s was not changed; what was edited is kept in %s", err, path, e.path)
	case err != nil:
		return nil, fmt.Errorf("%w\n%s was not changed", err, path)
	case now == nil:
		return nil, nil
	}
	if err := saveEdited(path, old, now); err != nil {
		now.Wipe()
		e.keep = true
		return nil, fmt.Errorf("%w\nwhat was edited is kept in %s", err, e.path)
	}
	return now, nil
}

// editUntilValid returns what was saved in the editor, nil when that is nothing
// new.
func editUntilValid(e *editor, path string, old *secret.Bytes) (*secret.Bytes, error) {
	var refused *secret.Bytes // the last text that was not valid
	defer func() { refused.Wipe() }()
	text, header := old, ""
	for {
		now, err := e.edit(text, header)
		if err != nil {
			return nil, err
		}
		if now.Equal(old) || isEmpty(now) {
			now.Wipe()
			return nil, nil
		}
		problem := checkText(path, now.Bytes())
		if problem == nil {
			return now, nil
		}
		if refused != nil && now.Equal(refused) {
			now.Wipe()
			return nil, problem
		}
		refused.Wipe()
		refused, text, header = now, now, mistakesHeader(problem)
	}
}

// isEmpty reports whether a text has no document.
func isEmpty(text *secret.Bytes) bool {
	s, err := document.Read("", bytes.Clone(text.Bytes()))
	return err == nil && len(s.Documents()) == 0
}

// mistakesHeader says as comments what is wrong with a text, with its lines as
// they are below the header.
func mistakesHeader(problem error) string {
	const most = 20
	var all config.Errors
	errors.As(problem, &all)
	more := len(all) - most
	lines := []string{"This configuration is not valid, and was not saved:"}
	for i, e := range all[:min(len(all), most)] {
		moved := *e
		if moved.File = "line"; moved.Line > 0 {
			moved.Line += min(len(all), most+1) + 2
		}
		lines = append(lines, "  "+strings.Replace(moved.Error(), "line:", "line ", 1))
		if i == most-1 && more > 0 {
			lines = append(lines, fmt.Sprintf("  and %d more", more))
		}
	}
	lines = append(lines, "Lines like these are taken out again. Save it without a change to give up.")
	return "# cryptctl: " + strings.Join(lines, "\n# cryptctl: ") + "\n"
}

// withoutHeader takes the lines of the header out again that are still on top.
func withoutHeader(text []byte, header string) []byte {
	lines := strings.Split(header, "\n")
	for {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		line = bytes.TrimRight(line, " \t\r")
		if len(line) == 0 || !slices.Contains(lines, string(line)) {
			return text
		}
		text = rest
	}
}

// saveEdited replaces the file, if it still is what was edited.
func saveEdited(path string, old, now *secret.Bytes) error {
	_, there, err := readSource(context.Background(), path) // the key that interrupts was the editor's
	if err != nil {
		return err
	}
	defer there.Wipe()
	if !there.Equal(old) {
		return fmt.Errorf("%s was changed by someone else while it was edited, and is left as it is", path)
	}
	mode := fs.FileMode(0o600)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	return replaceFile(path, now.Bytes(), mode)
}

// writeEdited says that a file was changed, and how. It is saved then, so that
// differences that cannot be shown are no failure.
func writeEdited(cmd *cobra.Command, path string, old, now *secret.Bytes) {
	fmt.Fprintf(cmd.OutOrStdout(), "%s was changed\n", path)
	before, err := document.Read(path, bytes.Clone(old.Bytes()))
	if err != nil {
		return // it was not valid, so that nothing can be compared
	}
	rows, err := editRows(path, before, now)
	if err == nil {
		err = writeChanges(cmd.OutOrStdout(), rows)
	}
	if err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "note: the differences are not shown: %v\n", err)
	}
}

func editRows(path string, before *document.Stream, now *secret.Bytes) ([]changeRow, error) {
	after, err := document.Read(path, bytes.Clone(now.Bytes()))
	if err != nil {
		return nil, err
	}
	return changeRows(before, after, false)
}
