package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPicture: the picture in docs/architecture.md is drawn from the table below
// it, which TestImports holds to the imports.
func TestPicture(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```mermaid\n.*?```\n")
	want := "```mermaid\n" + picture(allowed(t)) + "```\n"
	got := block.FindAllString(string(text), -1)
	if len(got) != 1 {
		t.Fatalf("%s has %d pictures", tableFile, len(got))
	}
	if *update {
		if err := os.WriteFile(tableFile, block.ReplaceAllLiteral(text, []byte(want)), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(got[0], "\n")); d != "" {
		t.Errorf("%s: the picture is not that of its table; make picture draws it anew:\n%s", tableFile, d)
	}
}

// picture draws the packages of a table, those of a folder in a box, without the
// commands and what is there for tests. An arrow to what a package also reaches by
// way of another one is left out.
func picture(may map[string][]string) string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	for _, name := range slices.Sorted(maps.Keys(may)) {
		if !drawn(name, may) || strings.Contains(name, "/") {
			continue
		}
		var inside []string
		for _, other := range slices.Sorted(maps.Keys(may)) {
			if drawn(other, may) && strings.HasPrefix(other, name+"/") {
				inside = append(inside, other)
			}
		}
		if inside == nil {
			fmt.Fprintf(&b, "    %s\n", boxOf(name))
			continue
		}
		fmt.Fprintf(&b, "    subgraph in_%s[%q]\n", name, name+"/")
		for _, other := range append([]string{name}, inside...) {
			fmt.Fprintf(&b, "        %s\n", boxOf(other))
		}
		b.WriteString("    end\n")
	}
	for _, name := range slices.Sorted(maps.Keys(may)) {
		if to := arrowsOf(name, may); drawn(name, may) && len(to) > 0 {
			fmt.Fprintf(&b, "    %s --> %s\n", idOf(name), strings.Join(to, " & "))
		}
	}
	return b.String()
}

// drawn leaves out the commands, what is there for tests, and what has no folder of
// its own to stand in.
func drawn(name string, may map[string][]string) bool {
	top, _, below := strings.Cut(name, "/")
	_, held := may[top]
	return (!below || held) && !strings.HasSuffix(name, "test") && top != "deploy" && !slices.Contains(may[name], everything)
}

// arrowsOf returns what only the package's own arrow leads to.
func arrowsOf(name string, may map[string][]string) (to []string) {
	for _, other := range slices.Sorted(slices.Values(may[name])) {
		if !slices.ContainsFunc(may[name], func(via string) bool { return via != other && reaches(via, other, may) }) {
			to = append(to, idOf(other))
		}
	}
	return to
}

func reaches(from, to string, may map[string][]string) bool {
	return slices.ContainsFunc(may[from], func(next string) bool { return next == to || reaches(next, to, may) })
}

func boxOf(name string) string { return fmt.Sprintf("%s[%q]", idOf(name), name) }

// idOf is a name without what the picture's language reads as something else.
func idOf(name string) string { return strings.ReplaceAll(name, "/", "_") }
