package patch_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config/patch"
	"github.com/cryptctl/cryptctl/config/redact"
)

// TestGuidesShown: of the guides' configurations nothing is hidden but what they say is
// a secret.
func TestGuidesShown(t *testing.T) {
	secret := regexp.MustCompile(`\b(passphrase|token|password|key|ca): '\[secret\]'`)
	hidden := 0
	for _, s := range seeds(t) {
		clean, err := redact.Stream(read(t, s[0]))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(clean.Bytes())) {
			n := strings.Count(line, "[secret]")
			if hidden += n; len(secret.FindAllString(line, -1)) != n {
				t.Errorf("hidden is %s", line)
			}
		}
	}
	if hidden < 9 {
		t.Errorf("%d secrets are hidden", hidden)
	}
}

// TestShownPaths: what is below a secret is in no message; check looks for hunter2.
func TestShownPaths(t *testing.T) {
	const config = state + "encryption: {keys: [{slot: 0, static: {passphrase: {hunter2: {a: 1}}}}]}\ntokens: [{a: [1]}]\ntoken: {hunter2: [1]}\nextra: {\"a.b\": {c: [1]}}\n"
	for _, tt := range []struct{ name, patch, want string }{
		{"below a passphrase", state + "encryption:\n  keys:\n    - static: {passphrase: {hunter2: [x]}}\n", "!patch:6: encryption.keys[0].static.passphrase: is a list, but the configuration has a mapping"},
		{"below a token", state + "token: {hunter2: {a: 1}}\n", "!patch:4: token: is a mapping, but the configuration has a list"},
		{"in a list", state + "tokens: {hunter2: {a: 1}}\n", "!patch:4: tokens: is a mapping, but the configuration has a list"},
		{"a dotted name", state + "extra: {a.b: {c: x}}\n", `!patch:4: extra["a.b"].c: is text, but the configuration has a list`},
		{"deletion", state + "token: {hunter2x: {$patch: delete}}\n", "!patch:4: token: there is nothing to delete in the configuration"},
		{"deletion of an entry", state + "tokens: [{hunter2: x, $patch: delete}]\n", "!patch:4: tokens: there is no entry with this field to delete in the configuration"},
		{"operation", "- {op: remove, path: /token/hunter2/7}\n", "!patch:1: [0]: remove /token: the list has no such entry"},
		{"operation below static", "- {op: remove, path: /encryption/keys/0/static/hunter2}\n", "!patch:1: [0]: remove /encryption/keys/0/static: there is nothing at this path"},
		{"operation with escapes", "- {op: remove, path: /a~1token~0/hunter2}\n", "!patch:1: [0]: remove /a~1token~0: there is nothing at this path"},
		{"operation elsewhere", "- {op: remove, path: /encryption/keys/3/nodeID}\n", "!patch:1: [0]: remove /encryption/keys/3/nodeID: "},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, patch.Options{}, config, tt.patch, tt.want) })
	}
}

// TestFlowNull: a configuration with an empty value in flow style can be patched.
func TestFlowNull(t *testing.T) {
	const config = "machine: {type: worker}\na: {x: 1, b: }\nc: {d}\n"
	const want = "machine: {type: worker}\na: {x: 2, b: null}\nc: {d: null, e: 3}\n"
	check(t, patch.Options{}, config, "a: {x: 2}\nc: {e: 3}\n", want)
	check(t, patch.Options{}, config, "- {op: replace, path: /a/x, value: 2}\n- {op: add, path: /c/e, value: 3}\n", want)
}
