package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestEveryFlagHasAScript: each command is run by a script, and each of its
// flags is used in one.
func TestEveryFlagHasAScript(t *testing.T) {
	t.Parallel()
	used := map[string]bool{}
	line := regexp.MustCompile(`(?m)^(?:\[.*\] )?(?:runs \d|! exec powerless cryptctl|exec powerless cryptctl) (.*)$`)
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		script, _, _ := strings.Cut(string(text), "\n-- ")
		for _, m := range line.FindAllStringSubmatch(script, -1) {
			words := strings.Fields(strings.ReplaceAll(m[1], "$cheap", cheap))
			cmd, rest, err := root().Find(words)
			if err != nil {
				continue
			}
			used[cmd.CommandPath()] = true
			for _, w := range rest {
				flag, _, _ := strings.Cut(w, "=")
				used[cmd.CommandPath()+" "+flag] = true
				for up := cmd.Parent(); up != nil; up = up.Parent() { // a flag that the group has for all
					if up.PersistentFlags().Lookup(strings.TrimPrefix(flag, "--")) != nil {
						used[up.CommandPath()+" "+flag] = true
					}
				}
			}
		}
	}
	walk(root(), func(cmd *cobra.Command) {
		if !used[cmd.CommandPath()] {
			t.Errorf("no script runs %s", cmd.CommandPath())
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if !used[cmd.CommandPath()+" --"+f.Name] {
				t.Errorf("no script uses %s --%s", cmd.CommandPath(), f.Name)
			}
		})
	})
}
