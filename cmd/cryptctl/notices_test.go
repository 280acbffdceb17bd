package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// linked is a module that the program links, with the texts of its licenses.
type linked struct {
	path, version string
	licenses      []string // their SPDX names
	texts         []string // sorted by the names of their files
}

// TestNotices: THIRD_PARTY_NOTICES has the modules that the program links, in their
// versions, and the texts that come with them; none is under a license that we do
// not know.
func TestNotices(t *testing.T) {
	t.Parallel()
	const path = "../../THIRD_PARTY_NOTICES"
	want := notices(linkedModules(t))
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(strings.Split(want, "\n"), strings.Split(string(got), "\n")); d != "" {
		t.Errorf("THIRD_PARTY_NOTICES is not that of what is linked; make notices writes it anew:\n%s", d)
	}
}

// linkedModules asks for the packages of the program as it is released. A text
// counts if it lies with one of them, or above it in its module.
func linkedModules(t *testing.T) []linked {
	t.Helper()
	const format = "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{end}}"
	folders := map[[3]string][]string{} // path, version and folder of a module: folders of packages
	for line := range strings.Lines(goSays(t, "list", "-deps", "-f", format, ".")) {
		if f := strings.Fields(line); len(f) == 4 {
			m := [3]string(f)
			folders[m] = append(folders[m], f[3])
		}
	}
	if len(folders) == 0 {
		t.Fatal("go list names no module")
	}
	var all []linked
	for m, packages := range folders {
		all = append(all, withTexts(t, linked{path: m[0], version: m[1]}, m[2], packages))
	}
	root := strings.TrimSpace(goSays(t, "env", "GOROOT"))
	all = append(all, withTexts(t, linked{path: "std", version: "(of the Go release that builds it)"}, root, []string{root}))
	slices.SortFunc(all, func(a, b linked) int { return strings.Compare(a.path, b.path) })
	return all
}

// goSays runs go for the system of the released program: others link other modules.
func goSays(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0", "GOFLAGS=")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", args[0], err, problem.String())
	}
	return string(out)
}

// withTexts reads a module's texts.
func withTexts(t *testing.T, m linked, root string, packages []string) linked {
	t.Helper()
	files := map[string]bool{}
	for _, dir := range packages {
		for ; strings.HasPrefix(dir, root); dir = filepath.Dir(dir) {
			found, err := filepath.Glob(filepath.Join(dir, "[CLN]*"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				files[f] = regexp.MustCompile(`^(LICEN[CS]E|COPYING|NOTICE)([.-].*)?$`).MatchString(filepath.Base(f)) && filepath.Ext(f) != ".go"
			}
		}
	}
	for _, f := range slices.Sorted(maps.Keys(files)) {
		if !files[f] {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		m.texts = append(m.texts, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")))
	}
	if m.licenses = named(strings.Join(m.texts, "\n")); len(m.licenses) == 0 {
		t.Errorf("%s %s: no license that is known here", m.path, m.version)
	}
	return m
}

// named returns the SPDX names of licenses by sentences that each of them has.
func named(text string) (names []string) {
	text = strings.Join(strings.Fields(text), " ")
	for name, sentence := range map[string]*regexp.Regexp{
		"Apache-2.0": regexp.MustCompile("Apache License"),
		"MPL-2.0":    regexp.MustCompile("Mozilla Public License"),
		"MIT":        regexp.MustCompile("Permission is hereby granted, free of charge|opensource.org/license/mit"),
	} {
		if sentence.MatchString(text) {
			names = append(names, name)
		}
	}
	if strings.Contains(text, "Redistribution and use in source and binary forms") {
		name := "BSD-2-Clause"
		if strings.Contains(text, "endorse or promote products") {
			name = "BSD-3-Clause"
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// notices is the file: the modules, then each text once, with whose it is.
func notices(modules []linked) string {
	var b strings.Builder
	b.WriteString(`What the program cryptctl links that is not of this project, and under which
licenses. Made by "make notices"; do not edit.

The source of each module, unchanged, is what "go mod download MODULE@VERSION"
fetches, and is linked at https://pkg.go.dev/MODULE@VERSION. That is where the
source code form of those under MPL-2.0 is found. "std" is Go's own library.

`)
	whose := map[string][]string{}
	for _, m := range modules {
		fmt.Fprintf(&b, "%s %s: %s\n", m.path, m.version, strings.Join(m.licenses, ", "))
		for _, text := range m.texts {
			whose[text] = append(whose[text], m.path)
		}
	}
	for _, m := range modules {
		for _, text := range m.texts {
			if whose[text] == nil {
				continue // was written with the first that has it
			}
			fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 79), strings.Join(whose[text], "\n"), text)
			whose[text] = nil
		}
	}
	return b.String()
}
