package machineconfig_test

import (
	"errors"
	"strings"
	"testing"

	ours "github.com/cryptctl/cryptctl/config"
)

// TestReader: the reader takes nothing that Talos loads for a slip of a name or
// for encryption in a wrong place, of the configurations and of the patched ones.
func TestReader(t *testing.T) {
	read := 0
	for seed := range uint64(cases / 6) {
		config, patches := drawStrategic(seed)
		texts := []string{config}
		if o := theirs(config, patches...); o.err == nil {
			texts = append(texts, o.text)
		}
		for _, text := range texts {
			c, err := ours.Read(ours.Source{Name: "f", Data: []byte(text)})
			if err == nil {
				read++
				c.Wipe()
			}
			var all ours.Errors
			errors.As(err, &all)
			for _, e := range all {
				if strings.Contains(e.Problem, "unknown field") || strings.Contains(e.Problem, "unknown kind") || strings.Contains(e.Problem, "is not read here") {
					t.Fatalf("seed %d: %v\n%s", seed, e, text)
				}
			}
		}
	}
	if read < cases/12 {
		t.Errorf("only %d are read", read)
	}
	t.Logf("SUMMARY %6d read", read)
}
