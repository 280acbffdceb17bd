package main

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cryptctl/cryptctl"

// update has the tests write the texts that are made, instead of comparing them.
var update = flag.Bool("update", false, "write the picture, or the notices, anew")

// tableFile is where docs/architecture.md says what each package is and which others
// of the project it may import. A package that is not there does not exist yet:
// decide what it may know first.
const tableFile = "../../docs/architecture.md"

// everything is what a row says of a package that may import all but the commands,
// which nobody imports.
const everything = "all"

// allowed reads the table: a package's path, then what it may import.
func allowed(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(tableFile)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9/]+)` \\|.*\\|([^|]*)\\|$").FindAllStringSubmatch(string(text), -1) {
		name, may := row[1], strings.FieldsFunc(row[2], func(r rune) bool { return strings.ContainsRune(" ,`", r) })
		if _, twice := rows[name]; twice {
			t.Errorf("%s has package %s twice", tableFile, name)
		}
		rows[name] = may
	}
	return rows
}

// foreign are modules that a program must not get which links luks or keys only.
func foreign() []string {
	return []string{
		"google.golang.org/grpc", "google.golang.org/protobuf", "github.com/google/go-tpm", "github.com/spf13/cobra",
		"github.com/spf13/pflag", "go.yaml.in/yaml", "gopkg.in/yaml", "github.com/siderolabs/", "github.com/anatol/",
	}
}

// goPackage is what go list says of a package. Imports are those of its program
// text, not of its tests; Deps are all it leads to.
type goPackage struct {
	ImportPath string
	Imports    []string
	Deps       []string
}

func goList(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps", module+"/...")
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, problem.String())
	}
	var packages []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// TestImports holds the import graph to the table, both ways: what a package
// imports is there, and nothing else is.
func TestImports(t *testing.T) {
	t.Parallel()
	may, seen := allowed(t), map[string]bool{}
	for _, p := range goList(t) {
		name := packageOf(p.ImportPath)
		row, known := may[name]
		if seen[name] = true; !known {
			t.Errorf("package %s is not in the table of %s: say there what it is, and what it may import", name, tableFile)
			continue
		}
		heldTo(t, name, p.Imports, row)
		if name == "luks" || name == "keys" {
			lean(t, p)
		}
	}
	for name := range may {
		if _, err := os.Stat(filepath.Join("../..", name, "go.mod")); !seen[name] && err != nil { // not a module of its own
			t.Errorf("%s has a package %s, which is not there", tableFile, name)
		}
	}
}

// heldTo compares a package's imports with its row.
func heldTo(t *testing.T, name string, imports, row []string) {
	t.Helper()
	all := slices.Equal(row, []string{everything})
	for _, path := range imports {
		other := packageOf(path)
		switch {
		case other == "":
		case strings.HasPrefix(other, "cmd/"):
			t.Errorf("%s imports the command %s", name, other)
		case !slices.Contains(row, other) && !all:
			t.Errorf("%s imports %s, which it must not know", name, other)
		}
	}
	for _, other := range row {
		if !slices.Contains(imports, module+"/"+other) && !all {
			t.Errorf("%s lets %s import %s, which it does not: strike it out", tableFile, name, other)
		}
	}
}

// lean says which modules a package brings along that it must not.
func lean(t *testing.T, p goPackage) {
	t.Helper()
	for _, path := range p.Deps {
		for _, prefix := range foreign() {
			if strings.HasPrefix(path, prefix) {
				t.Errorf("whoever links %s gets %s", packageOf(p.ImportPath), path)
			}
		}
	}
}

// packageOf is a package's path inside the project, "" for those of others.
func packageOf(path string) string {
	name, found := strings.CutPrefix(path, module+"/")
	if !found {
		return ""
	}
	return name
}
