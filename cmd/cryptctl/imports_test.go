package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/cryptctl/cryptctl"

// rooms says which packages of the project a package may import; "*" is all but
// the commands, which nobody imports. docs/architecture.md gives the reasons. A
// package that is not here does not exist yet: decide what it may know first.
func rooms() map[string][]string {
	return map[string][]string{
		"secret":               nil,
		"probe/marker":         nil,
		"probe":                {"probe/marker"},
		"disk":                 nil,
		"luks/kdf":             {"secret"},
		"luks":                 {"luks/kdf", "probe/marker", "secret"},
		"luks/lukstest":        nil,
		"luks1":                {"luks", "luks/kdf", "secret"},
		"meta":                 {"secret"},
		"keys":                 {"luks", "luks/kdf", "secret"},
		"keys/keystest":        {"keys", "secret"},
		"config":               {"config/document", "logging", "secret"},
		"logging":              nil,
		"config/document":      {"secret"},
		"config/patch":         {"config/document"},
		"config/redact":        {"config/document", "secret"},
		"config/diff":          {"config/document", "config/redact", "secret"},
		"provide":              {"config", "keys", "kms", "secret", "tpm", "tpm/eventlog", "tpm/secureboot"},
		"mapping":              {"luks", "luks/kdf", "luks1", "secret"},
		"volume/volumetest":    {"luks", "mapping", "volume"},
		"volume":               {"disk", "keys", "luks", "mapping", "probe", "secret"},
		"node":                 {"config", "disk", "keys", "luks", "mapping", "meta", "provide", "secret", "tpm", "volume"},
		"examples/noded":       {"config", "kms", "logging", "luks/kdf", "node", "volume"},
		"tpm/pcr":              nil,
		"tpm/eventlog":         {"tpm/pcr"},
		"tpm/pcrsig":           {"tpm/pcr"},
		"tpm/uki":              {"tpm/pcr", "tpm/pcrsig"},
		"tpm/secureboot":       nil,
		"tpm":                  {"keys", "luks/kdf", "secret", "tpm/eventlog", "tpm/pcr", "tpm/pcrsig", "tpm/token"},
		"tpm/token":            nil,
		"tpm/tpmtest":          nil,
		"tpm/doctor":           {"tpm", "tpm/eventlog", "tpm/pcr", "tpm/pcrsig", "tpm/secureboot"},
		"role":                 nil,
		"pki":                  {"role", "secret"},
		"kms/wire":             nil,
		"kms":                  {"keys", "kms/wire", "secret"},
		"kms/blob":             {"secret"},
		"kms/policy":           nil,
		"kms/internal/durable": nil,
		"kms/audit":            {"kms/internal/durable"},
		"kms/kek":              {"luks/kdf", "secret"},
		"kms/kek/kektest":      nil,
		"kms/store":            nil,
		"kms/store/bolt":       {"kms/internal/durable", "kms/store"},
		"kms/store/etcd":       {"kms/store"},
		"kms/keeper":           {"kms/audit", "kms/blob", "kms/kek", "kms/policy", "kms/store", "secret"},

		"kms/server":          {"kms/audit", "kms/blob", "kms/keeper", "kms/kek", "kms/policy", "kms/wire", "pki", "role", "secret"},
		"kms/store/storetest": {"kms/store"},

		"deploy":  nil,
		"test/vm": nil,

		"test/vm/machine": {"test/vm/wire", "tpm/pcr", "tpm/uki"},
		"test/vm/wire":    {"mapping"},
		"test/vm/guest":   {"keys", "luks", "luks/kdf", "mapping", "secret", "test/vm/wire", "tpm", "tpm/pcrsig", "tpm/token"},
		"bench":           {"*"},
		"cmd/cryptctl":    {"*"},
	}
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

// TestImports holds the import graph to the list.
func TestImports(t *testing.T) {
	t.Parallel()
	allowed, seen := rooms(), map[string]bool{}
	for _, p := range goList(t) {
		name := room(p.ImportPath)
		may, known := allowed[name]
		if seen[name] = true; !known {
			t.Errorf("package %s is not in the list of rooms: say there, and in docs/architecture.md, what it may import", name)
			continue
		}
		for _, path := range p.Imports {
			other := room(path)
			switch {
			case other == "":
			case strings.HasPrefix(other, "cmd/"):
				t.Errorf("%s imports the command %s", name, other)
			case !slices.Contains(may, other) && !slices.Contains(may, "*"):
				t.Errorf("%s imports %s, which it must not know", name, other)
			}
		}
		if name != "luks" && name != "keys" {
			continue
		}
		for _, path := range p.Deps {
			for _, prefix := range foreign() {
				if strings.HasPrefix(path, prefix) {
					t.Errorf("whoever links %s gets %s", name, path)
				}
			}
		}
	}
	for name := range allowed {
		if !seen[name] {
			t.Errorf("there is no package %s", name)
		}
	}
}

// room is a package's path inside the project, "" for those of others.
func room(path string) string {
	name, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return ""
	}
	return name
}
