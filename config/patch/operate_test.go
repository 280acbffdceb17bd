package patch_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config/patch"
)

// copies is a patch that doubles the document so many times.
func copies(n int) string {
	var ops []string
	for i := range n {
		ops = append(ops, fmt.Sprintf(`{"op":"copy","from":"/machine","path":"/machine/m%d"}`, i))
	}
	return "[" + strings.Join(ops, ",") + "]"
}

func TestOperations(t *testing.T) {
	const config = "# head\nmachine:\n  # the name\n  network: {hostname: w1} # here\n  certSANs:\n    - a # first\n    - b\n    - c\n  files:\n    - path: /x\n      permissions: 0644\n"
	change := func(old, now string) string {
		if !strings.Contains(config, old) {
			t.Fatalf("%q is not there", old)
		}
		return strings.Replace(config, old, now, 1)
	}
	for _, tt := range []struct{ name, patch, want, talos string }{
		{"replace", `[{"op": "replace", "path": "/machine/network/hostname", "value": "w2"}]`, change("w1", "w2"), ""},
		{"in YAML", "- op: replace\n  path: /machine/network/hostname\n  value: w2\n", change("w1", "w2"), ""},
		{"add in front", `[{"op": "add", "path": "/machine/certSANs/0", "value": "z"}]`, change("    - a", "    - z\n    - a"), ""},
		{"remove between", `[{"op": "remove", "path": "/machine/certSANs/1"}]`, change("    - b\n", ""), ""},
		{"add a field", `[{"op": "add", "path": "/machine/kubelet", "value": {"image": "i", "n": [1, true, null, 1.5]}}]`, config + "  kubelet:\n    image: i\n    \"n\":\n      - 1\n      - true\n      - null\n      - 1.5\n", ""},
		{"lines", `[{"op": "replace", "path": "/machine/files/0/path", "value": "a\nb\n"}]`, change("path: /x", "path: |\n        a\n        b"), ""},
		{"a text like a number", `[{"op": "replace", "path": "/machine/network/hostname", "value": "0644"}]`, change("w1", "'0644'"), ""},
		{"a surrogate pair", "[\n\t{\"op\": \"replace\", \"path\": \"/machine/network\\/hostname\", \"value\": \"\\\\ud83d \\ud83d\\ude00 \\u00e9\"}\n]", change("w1", `"\\ud83d \U0001F600 é"`), ""},
		{"words that were truth values", `[{"op": "add", "path": "/machine/sysctls", "value": {"a": "yes", "b": "Off", "n": "true", "c": "yesterday"}}]`, config + "  sysctls:\n    a: \"yes\"\n    b: \"Off\"\n    \"n\": 'true'\n    c: yesterday\n", ""},
		{"a name that is a list", "- op: add\n  path: /machine/x\n  value:\n    ? [a]\n    : 1\n", "!patch:4: the name of a field is a list; write the name as text", ""},
		{"move", `[{"op": "move", "from": "/machine/certSANs/2", "path": "/machine/certSANs/0"}]`, change("    - a # first\n    - b\n    - c", "    - c\n    - a # first\n    - b"), ""},
		{"copy", `[{"op": "copy", "from": "/machine/network/hostname", "path": "/machine/token"}]`, config + "  token: w1\n", ""},
		{"test", `[{"op": "test", "path": "/machine/files/0/permissions", "value": 420}]`, config, ""},
		{"nothing", `[]`, config, ""},
		{"replace what is not there", "- op: replace\n  path: /machine/token\n  value: x\n", "!patch:1: [0]: replace /machine/token: there is nothing to replace; write op: add for what is not there yet", config + "  token: x\n"},
		{"add to what is not there", "- op: add\n  path: /machine/kubelet/image\n  value: x\n", "!patch:1: [0]: add /machine/kubelet/image: there is nothing to add it to; add what is above it first, or write a strategic merge patch", ""},
		{"which is not what fails for Talos", "- op: replace\n  path: /machine/token\n  value: x\n- op: remove\n  path: /machine/ca\n", "![0]: replace /machine/token: there is nothing to replace", "!patch:4: [1]: remove /machine/ca: there is nothing at this path"},
		{"remove what is not there", "- op: remove\n  path: /machine/token\n", "!remove /machine/token: there is nothing at this path; check the path", ""},
		{"no such entry", "- op: remove\n  path: /machine/certSANs/7\n", "!remove /machine/certSANs/7: the list has no such entry", ""},
		{"a failing test changes nothing", "- op: add\n  path: /machine/token\n  value: x\n- op: test\n  path: /machine/network/hostname\n  value: hunter2\n- op: remove\n  path: /machine\n", "!patch:4: [1]: test /machine/network/hostname: the value there is another one", ""},
		{"no document left", "- op: replace\n  path: ''\n  value: [1]\n", "!patch:1: would leave no document", ""},
		{"no operation", "- op: raplace\n  path: /a\n", "!patch:1: [0].op: raplace is no operation; did you mean replace?", ""},
		{"no value", "- op: add\n  path: /a\n", "!patch:1: [0].value: is missing; write what add needs: path, value", ""},
		{"no path", "- op: remove\n", "!patch:1: [0].path: is missing", ""},
		{"no pointer", "- op: remove\n  path: machine.network\n", "!patch:2: [0].path: is no JSON pointer; write it as /machine/network/hostname", ""},
		{"no mapping", "- machine\n", "!patch:1: [0]: is text, not an operation; write op, path and value", ""},
		{"one operation without a list", "op: add\npath: /a\nvalue: b\n", "!patch:1: is one operation of an RFC 6902 patch, which is a list of them; write - in front of op", ""},
		{"among documents", "- op: remove\n  path: /machine\n---\nmachine: {}\n", "!patch:4: has several documents, one of which is a list of operations", ""},
		{"copies that nest", "[" + strings.Repeat(`{"op":"copy","from":"/machine","path":"/machine/m"},`, 200) + `{"op":"test","path":"/machine/token","value":null}]`, "!patch:1: would leave no document; keep it a mapping that is not deeper than 100 levels", ""},
		{"copies that double", copies(40), "!copies more than a configuration can hold; copy less", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, patch.Options{}, config, tt.patch, tt.want)
			if tt.talos == "" {
				tt.talos = tt.want
			}
			check(t, patch.Options{Talos: true}, config, tt.patch, tt.talos)
		})
	}
	for _, o := range []patch.Options{{}, {Talos: true}} {
		check(t, o, "machine:\n  [a]: 1\n  {b: c}: 2\n", `[{"op": "add", "path": "/machine/z", "value": 1}]`, "!config:2: document v1alpha1 cannot be changed: the name of a field is a list, which JSON does not have; write the name as text, or the patch as strategic merge")
		// What the configuration has wrong is said of the configuration.
		for _, p := range []string{`[{"op": "add", "path": "/z", "value": 1}]`, "\n\nz: 1\n"} {
			check(t, o, "\na: &a\n  b: *a\n", p, "!config:2: document v1alpha1 cannot be changed: its aliases stand for more than 1000000 values; write out what is meant")
		}
	}
	check(t, patch.Options{}, "machine: {}\n---\n"+kmsg, "- op: remove\n  path: /machine\n", "!patch:1: an RFC 6902 patch is for one document, and the configuration has 2; write a strategic merge patch")
	check(t, patch.Options{Talos: true}, "machine: {nodeLabels: {a: no, on: 'yes'}}\n", `[{"op": "add", "path": "/machine/type", "value": "x"}]`, "machine: {nodeLabels: {a: false, 'true': 'yes'}, type: x}\n")
	check(t, patch.Options{}, "machine: {nodeLabels: {a: no, on: 'yes'}}\n", `[{"op": "add", "path": "/machine/type", "value": "x"}]`, "machine: {nodeLabels: {a: no, on: 'yes'}, type: x}\n")
}

// TestListComments: an entry of a list that stays keeps its comments, whatever is
// in front of it and behind it.
func TestListComments(t *testing.T) {
	const (
		recovery = "        # recovery, never remove\n        - slot: 0\n          static:\n            passphrase: p # in the safe\n"
		server   = "        # server\n        - slot: 1 # one\n          kms: {endpoint: e}\n"
		keys     = "machine:\n  disk:\n    encryption:\n      keys:\n"
		tpm      = "        - slot: 2\n          tpm: {}\n"
		path     = "path: /machine/disk/encryption/keys/"
		add      = "- {op: add, " + path + "0, value: {slot: 2, tpm: {}}}\n"
	)
	for _, tt := range []struct{ name, patch, want string }{
		{"remove and add in front", "- {op: remove, " + path + "1}\n" + add, keys + tpm + recovery},
		{"remove the first and add", "- {op: remove, " + path + "0}\n- {op: add, " + path + "-, value: {slot: 2, tpm: {}}}\n", keys + server + tpm},
		{"the same with its fields in another order", "- {op: remove, " + path + "1}\n" + add + "- {op: replace, " + path + "1, value: {static: {passphrase: p}, slot: 0}}\n", keys + tpm + recovery},
		{"change where it is", "- {op: replace, " + path + "0/static/passphrase, value: q}\n- {op: replace, " + path + "1/slot, value: 3}\n", keys + strings.Replace(recovery, ": p", ": q", 1) + strings.Replace(server, "slot: 1", "slot: 3", 1)},
		{"change one and add behind", "- {op: replace, " + path + "0/static/passphrase, value: q}\n- {op: add, " + path + "-, value: {slot: 2, tpm: {}}}\n", keys + strings.Replace(recovery, ": p", ": q", 1) + server + tpm},
		{"add on both sides", add + "- {op: add, " + path + "-, value: {slot: 2, tpm: {}}}\n", keys + tpm + recovery + server + tpm},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, patch.Options{}, keys+recovery+server, tt.patch, tt.want) })
	}
	const nets = "cluster:\n  network:\n    podSubnets:\n      - 10.244.0.0/16 # old site\n      - 10.10.0.0/16 # production\n"
	want := "cluster:\n  network:\n    podSubnets:\n      - 10.10.0.0/16 # production\n      - 10.20.0.0/16\n"
	check(t, patch.Options{}, nets, "- {op: replace, path: /cluster/network/podSubnets, value: [10.10.0.0/16, 10.20.0.0/16]}\n", want)
	check(t, patch.Options{}, "l:\n  - [] # a\n  - {} # b\n", "- {op: replace, path: /l, value: [{}, x]}\n", "l:\n  - {} # b\n  - x\n")
	check(t, patch.Options{}, nets, "cluster: {network: {podSubnets: [10.10.0.0/16, 10.20.0.0/16]}}\n", want)
}
