package config_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/config"
)

// aliasBomb is a document that would have 9^24 entries if aliases were expanded,
// with the innermost and the outermost where an encryption block reads lists.
func aliasBomb() string {
	var b strings.Builder
	b.WriteString("machine:\n  a: &a [x, x, x, x, x, x, x, x, x]\n")
	for c := 'b'; c < 'z'; c++ {
		fmt.Fprintf(&b, "  %c: &%c [%s*%c]\n", c, c, strings.Repeat(fmt.Sprintf("*%c, ", c-1), 8), c-1)
	}
	b.WriteString("  systemDiskEncryption: {state: {keys: *y, options: *a}}\n")
	return b.String()
}

// TestHostile has inputs that cost far more than their size when read naively.
// The time allowed is generous for the race detector, and still a thousandth of
// what the naive reading takes.
func TestHostile(t *testing.T) {
	const most = 10 << 20
	big := "x: &x {" + strings.Repeat("a: 1, ", 50_000) + "}\n"
	long := "x: &x " + strings.Repeat("hunter2", 1<<20) + "\n"
	tests := []struct {
		name string
		text string
		want string // in the error
	}{
		{"alias bomb", aliasBomb(), "f:26: machine.systemDiskEncryption.state.keys[0]: is a list, not a mapping"},
		{"deep flow lists", strings.Repeat("[", 400_000), "f:1: nests deeper than 100 levels; a machine configuration is flatter"},
		{"deep flow mappings", strings.Repeat("{a: ", 90_000), "f:1: nests deeper than 100 levels"},
		{"deep block lists", strings.Repeat("- ", 200_000), "f:1: nests deeper than 100 levels"},
		{"one level too deep", strings.Repeat("[", 101) + strings.Repeat("]", 101), "f:1: nests deeper than 100 levels"},
		{"one byte too large", strings.Repeat("#", most+1), "f: is larger than 10240 KiB; check that this is the right file"},
		{"millions of entries", "[" + strings.Repeat("a,", most/2-1) + "]", "f: has more than 250000 commas"},
		{"many mistakes", strings.Repeat("{a: 1, a: 2, a: 3}\n---\n", 500), "\nf: more than 1000 mistakes; mend those above first"},
		{"large mapping in each key", big + head + "  provider: luks2\n  keys: [" + strings.Repeat("*x, ", 32) + "]\n", "\nf: more than 1000 mistakes; mend those above first"},
		{"large passphrase in each key", long + head + "  provider: luks2\n  keys: [" + strings.Repeat("{static: {passphrase: *x}}, ", 32) + "]\n", "keys[31].static.passphrase: is longer than 64 KiB; use a shorter passphrase"},
		{"alias to itself", "machine:\n  systemDiskEncryption: &s {state: *s, ephemeral: &e {keys: [*e]}}\n", "f:2: machine.systemDiskEncryption.state.state: unknown field"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			start := time.Now()
			_, err := config.Read(config.Source{Name: "f", Data: []byte(tt.text)})
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("took %v", took)
			}
			var all config.Errors
			if !errors.As(err, &all) || !strings.Contains("\n"+err.Error(), tt.want) {
				t.Fatalf("error %.300v, want %s", err, tt.want)
			}
			if len(all) > 1001 {
				t.Errorf("%d mistakes kept", len(all))
			}
			checkErrors(t, err)
		})
	}
}

// TestLargest: what is within the limits is read.
func TestLargest(t *testing.T) {
	text := head + "  provider: luks2\n  keys:\n" + manyKeys(32) + "---\n" + strings.Repeat("[", 100) + strings.Repeat("]", 100)
	if _, err := config.Read(config.Source{Name: "f", Data: []byte(text)}); err == nil || err.Error() != "f:40: is a list, not a mapping; write it as field: value" {
		t.Errorf("depth 100 gives %v", err)
	}
	text = head + "  provider: luks2\n  keys:\n" + manyKeys(32)
	text += "#" + strings.Repeat("x", 10<<20-len(text)-1)
	if c := read(t, text); len(c.Volumes[0].Keys) != 32 {
		t.Errorf("%d keys", len(c.Volumes[0].Keys))
	}
	text = keys + "    - static: {passphrase: " + strings.Repeat("p", 64<<10) + "}\n"
	if c := read(t, text); c.Volumes[0].Keys[0].Static.Passphrase.Len() != 64<<10 {
		t.Error("a passphrase of 64 KiB is cut")
	}
}
