package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// walk calls f for every command, those that hold others included.
func walk(cmd *cobra.Command, f func(*cobra.Command)) {
	for _, sub := range cmd.Commands() {
		f(sub)
		walk(sub, f)
	}
}

// TestHelp: every command says what it does, and every flag what it is for.
func TestHelp(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	walk(root(), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		names[path] = true
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: short help %q", path, cmd.Short)
		}
		if cmd.Args == nil {
			t.Errorf("%s does not check its arguments", path)
		}
		var help strings.Builder
		fresh, rest, err := root().Find(strings.Fields(path)[1:])
		if err != nil || len(rest) > 0 {
			t.Fatalf("%s is not found: %v", path, err)
		}
		fresh.Root().SetOut(&help)
		fresh.Root().SetArgs(append(strings.Fields(path)[1:], "--help"))
		if err := fresh.Root().Execute(); err != nil {
			t.Errorf("%s --help: %v", path, err)
		}
		if !strings.Contains(help.String(), "Usage:") || !strings.Contains(help.String(), cmd.Short) && cmd.Long == "" {
			t.Errorf("%s --help gives %q", path, help.String())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 140 {
				t.Errorf("%s: line of %d characters in the long help", path, len(line))
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s has no help", path, f.Name)
			}
			// Arguments are seen by everyone on the machine; those of a bool flag say
			// nothing but true and false.
			if f.Value.Type() == "bool" {
				return
			}
			names := strings.HasSuffix(f.Name, "-file") // and does not hold one
			if !names && (strings.Contains(f.Name, "pass") || strings.Contains(f.Name, "secret")) {
				t.Errorf("%s: --%s takes a secret as an argument", path, f.Name)
			}
		})
	})
	if len(names) < 20 {
		t.Errorf("only %d commands were looked at", len(names))
	}
}

// TestJSONFlag: what shows something shows it to programs, too.
func TestJSONFlag(t *testing.T) {
	t.Parallel()
	with := "inspect, check, plan, format, sync, open, key list, key test, token list, config validate, config diff, disk create, disk list, header restore, header repair, meta list, meta repair, boot, status, apply, reset, tpm status, tpm doctor, tpm pcrs, tpm explain, tpm predict, kms node list, kms node show, kms key status, kms policy show, kms policy test, kms audit verify, kms audit tail, kms backup verify, kms restore, pki show"
	walk(root(), func(cmd *cobra.Command) {
		path := strings.TrimPrefix(cmd.CommandPath(), "cryptctl ")
		want := strings.Contains(", "+with+",", ", "+path+",")
		if has := cmd.Flags().Lookup("json") != nil; has != want {
			t.Errorf("%s has --json: %v", path, has)
		}
	})
}

// TestReadme: the README's table of commands names all that there are, and none
// that there is not; its table of exit codes is that of the help.
func TestReadme(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	named := commandsIn(string(text))
	all := map[string]bool{"completion": true} // cobra's own
	walk(root(), func(cmd *cobra.Command) {
		if !cmd.HasSubCommands() || strings.Contains(cmd.Use, " ") { // kms backup FILE has one, and does something itself
			all[strings.TrimPrefix(cmd.CommandPath(), "cryptctl ")] = true
		}
	})
	for name := range all {
		if !named[name] {
			t.Errorf("README.md does not name the command %q", name)
		}
	}
	for name := range named {
		if !all[name] {
			t.Errorf("README.md names %q, which is no command", name)
		}
	}
	for code := exitOK; code <= exitNotEmpty; code++ {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| \S`, code)).Match(text) || !strings.Contains(exitCodes, fmt.Sprintf("\n  %d  ", code)) {
			t.Errorf("exit code %d is not in README.md, or not in the help", code)
		}
	}
}

// commandsIn reads the table that begins with "| command |". In one row
// "`key list`, `add`" the group is written once.
func commandsIn(readme string) map[string]bool {
	_, table, _ := strings.Cut(readme, "\n| command |")
	table, _, _ = strings.Cut(table, "\n\n")
	named := map[string]bool{}
	word := regexp.MustCompile("`([a-z]+)( [a-z]+)?( [a-z]+)?( --[a-z]+)?`")
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || !strings.HasPrefix(line, "|") {
			continue
		}
		group := ""
		for _, m := range word.FindAllStringSubmatch(cells[1], -1) {
			switch {
			case m[3] != "":
				group = m[1] + m[2]
				named[group+m[3]] = true
			case m[2] != "":
				group = m[1]
				named[m[1]+m[2]] = true
			case group != "":
				named[group+" "+m[1]] = true
			default:
				named[m[1]] = true
			}
		}
	}
	return named
}
