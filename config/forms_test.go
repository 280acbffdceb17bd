package config_test

import (
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config"
)

// TestForms: what all documents are refused for is refused here too, where it counts.
func TestForms(t *testing.T) {
	t.Parallel()
	const hidden = "apiVersion: v1alpha1\rkind: VolumeConfig\rname: STATE\rencryption: {provider: luks2, keys: [{static: {passphrase: evil}}]}\n"
	const ends = "f:1: has a line end that is not LF or CR LF; end the line with LF, or write the character as an escape in double quotes"
	for _, tt := range []mistake{
		{"a document behind a comment", "machine: {} # note\r---\r" + hidden, ends},
		{"behind another line end", "machine: {} # note\u2028---\n", ends},
		{"two main documents", "machine: {}\n---\ncluster: {}\n", "f:3: document v1alpha1 is there twice, first on line 1; keep one of them, or merge the two"},
		{"an unknown document twice", "kind: X\napiVersion: v1\n---\napiVersion: v1\nkind: X\n", "f:4: document v1/X is there twice, first on line 1; keep one of them, or merge the two"},
		{"no version", "kind: VolumeConfig\nname: STATE\n", "f:1: apiVersion: is missing; write apiVersion: v1alpha1"},
		{"empty kind", "kind: ''\nmachine: {}\n", "f:1: kind: is empty; write the document's kind, such as VolumeConfig; the main document has none"},
		{"and all other mistakes", "kind: X\n---\n" + keys + "    - slot: 4\n---\n- a\n", "f:1: apiVersion: is missing; write apiVersion: v1alpha1\nf:9: encryption.keys[0]: the key has no kind; add one of static, nodeID, kms, tpm\nf:11: is a list, not a mapping; write it as field: value"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Read(config.Source{Name: "f", Data: []byte(tt.text)})
			if c != nil || err == nil || err.Error() != tt.want {
				t.Errorf("error\n%v\nwant\n%s", err, tt.want)
			}
		})
	}
}

// TestShown: a configuration that was shown has lost its secrets, and is refused
// wherever one was.
func TestShown(t *testing.T) {
	t.Parallel()
	const fix = ", which is shown in the place of a secret; use the configuration that was shown, or config show --show-secrets"
	for text, want := range map[string]string{
		keys + "    - slot: 0\n      static: {passphrase: '[secret]'}\n":                  "f:8: encryption.keys[0].static.passphrase: is [secret]" + fix,
		"machine:\n  token: '[secret]'\n":                                                 "f:2: machine.token: is [secret]" + fix,
		"machine:\n  ca: {crt: a, key: \"[secret]\"}\n":                                   "f:2: machine.ca.key: is [secret]" + fix,
		"machine:\n  env: {http_proxy: 'http://u:[secret]@h'}\n":                          "f:2: machine.env.http_proxy: has [secret]" + fix,
		"kind: X\napiVersion: v1\nenvironment: [A=b, 'TOKEN=[secret]']\n":                 "f:3: environment[1]: has [secret]" + fix,
		"kind: X\napiVersion: v1\ntoken:\n- hunter2: '[secret]'\n":                        "f:4: token: is [secret]" + fix,
		"machine:\n  files: [{content: 'write [secret] here, and x = [secret]'}]\n":       "",
		"machine:\n  type: worker\n  certSANs: [secret]\n  network: {hostname: secret}\n": "",
	} {
		_, err := config.Read(config.Source{Name: "f", Data: []byte(text)})
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%s\nerror %v\nwant  %s", text, err, want)
		}
	}
}

// TestTagNames: the names of tags are free, and go to a terminal.
func TestTagNames(t *testing.T) {
	t.Parallel()
	const text = "machine: {logging: {destinations: [{endpoint: 'tcp://h:1', format: json_lines, extraTags: {\"a\\e[31m\\nx\": [1]}}]}}\n"
	_, err := config.Read(config.Source{Name: "f", Data: []byte(text)})
	const want = `f:1: machine.logging.destinations[0].extraTags["a\x1b[31m\nx"]: is a list, not text; write the text in quotes`
	if err == nil || err.Error() != want || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("error %v\nwant  %s", err, want)
	}
}
