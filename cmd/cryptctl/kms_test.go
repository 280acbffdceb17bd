package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// freePort is the script command that finds an address where nobody listens.
func freePort(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 1, 1, "port VAR")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], l.Addr().String())
	ts.Check(l.Close())
}

// kmsNode is the script command that asks a key server as a node does: to seal a
// key into a file, or to open what is in it. It waits for the server. A "!" wants a
// denial.
func kmsNode(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, false, args, 3, 4, "[!] kmsnode seal|unseal URL FILE [CA]")
	o := kms.Options{Endpoints: []string{args[1]}, NodeUUID: nodeUUID, Budget: 30 * time.Second}
	if len(args) == 4 {
		o.Authorities = []byte(ts.ReadFile(args[3]))
	}
	p, err := kms.New(o)
	ts.Check(err)
	file := ts.MkAbs(args[2])
	switch args[0] {
	case "seal":
		pass, token, err := p.Enroll(context.Background(), keys.Request{})
		denied(ts, neg, err)
		if err == nil {
			ts.Check(os.WriteFile(file, append(token, "\n"+string(pass.Bytes())...), 0o600))
		}
	case "unseal":
		token, want, _ := strings.Cut(ts.ReadFile(args[2]), "\n")
		pass, err := p.Recover(context.Background(), keys.Request{}, json.RawMessage(token))
		denied(ts, neg, err)
		if err == nil && string(pass.Bytes()) != want {
			ts.Fatalf("another key")
		}
	}
}

func denied(ts *testscript.TestScript, want bool, err error) {
	if want && keys.Class(err) != keys.ErrDenied || !want && err != nil {
		ts.Fatalf("denied wanted: %v; %v", want, err)
	}
}

// TestKMSConfig: what kms init writes says the defaults, and mistakes are named.
func TestKMSConfig(t *testing.T) {
	t.Parallel()
	c, err := parseKMSConfig(nil)
	if err != nil || c.Nodes.Listen != ":4050" || c.Policy.Enrol != policy.AllowList || c.Drain != 20*time.Second || c.Store.File != "nodes.db" || *c.KEK.Keyset != "kek.json" || *c.KEK.KeyFile != "kek.key" {
		t.Errorf("%+v, %v", c, err)
	}
	for text, want := range map[string]string{
		"nodes: {certificates: sometimes}":                   "nodes.certificates",
		"nodes: {certificates_for: [me]}":                    "nodes.certificates_for[0]",
		"nodes: {lissten: here}":                             "lissten",
		"policy: {networks: [192.0.2.1/24]}":                 "host bits",
		"policy: {enrol: everyone}":                          "enrol",
		"policy: {burst: 3}":                                 "burst",
		"store: ''":                                          "store: is empty",
		"drain: -1s":                                         "drain",
		"logging: {destinations: [{endpoint: 'udp://a:1'}]}": "logging.destinations[0].format",
		"logging: {destinations: [" + strings.Repeat("{endpoint: 'udp://a:1', format: json_lines}, ", 17) + "]}": "logging.destinations: there are more than 16",
		"logging: {destinations: [{endpoint: 'a:1', format: json_lines}]}":                                       "logging.destinations[0].endpoint: has a scheme",
		"logging: {destinations: [{endpoint: 'udp://a:1', format: json_lines, extraTags: {'': x}}]}":             "logging.destinations[0].extratags",
		"drain: soon":                                    "line 1",
		"store: a.db\n---\nstore: b.db\n":                "more than one document",
		"nodes: {listen: a}\nnodes: {listen: b}":         "nodes",
		"operators: {listen: [x], on_nodes_listener: 7}": "line 1",

		"store: {}":               "store: is empty",
		"store: [nodes.db]":       "line 1: store: want the name of a file",
		"store: {file: nodes.db}": "file",
		"store: {etcd: {}}":       "store.etcd.endpoints: there is none",
		"store: {etcd: {endpoint: 'https://e:2379'}}":                     "endpoint",
		"store: {etcd: {endpoints: ['etcd-1:2379']}}":                     "store.etcd.endpoints[0]: must look like https://",
		"store: {etcd: {endpoints: ['https://e:2379']}}":                  "store.etcd: certificate and key are needed",
		"store: {etcd: {endpoints: ['http://e:2379'], key: k}}":           "store.etcd: certificate, key and authorities are not used over http://",
		"store: {etcd: {endpoints: ['http://e:2379', 'https://f:2379']}}": "store.etcd.endpoints: some are https and some http",
		"store: {etcd: {endpoints: ['http://e:2379'], prefix: /kms}}":     "store.etcd.prefix: \"/kms\" must end with a slash",
		"store: {etcd: {endpoints: ['http://e:2379'], timeout: -1s}}":     "store.etcd.timeout: -1s",
		"kek: {keyset: ''}":                          "kek.keyset: is empty",
		"kek: {key_file: ''}":                        "kek.key_file: is empty",
		"kek: {passphrase_file: ''}":                 "kek.passphrase_file: is empty",
		"kek: {passphrase: sesame}":                  "kek.passphrase: a passphrase does not belong here",
		"kek: {passphrase: ask, passphrase_file: p}": "passphrase_file and passphrase both say",
		"kek: {key_file: k, passphrase: ask}":        "key_file and passphrase both say",
		"kek: {keyset: k, transit: {address: 'https://v', key: k, token_file: t}}":    "kek: transit and a keyset exclude each other",
		"kek: {transit: {address: 'http://v', key: k, token_file: t}}":                "kek.transit.address: must look like https://",
		"kek: {transit: {address: 'https://me:sesame@v', key: k, token_file: t}}":     "kek.transit.address: must look like https://",
		"kek: {transit: {address: 'https://v', token_file: t}}":                       "kek.transit.key: is missing",
		"kek: {transit: {address: 'https://v', key: k}}":                              "kek.transit.token_file: is missing",
		"kek: {transit: {address: 'https://v', key: k, token: s.sesame}}":             "token",
		"kek: {transit: {address: 'https://v', key: k, token_file: t, timeout: -1s}}": "kek.transit.timeout",
	} {
		_, err := parseKMSConfig([]byte(text))
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if strings.Contains(err.Error(), spell) {
			t.Errorf("a secret is shown: %v", err)
		}
	}
	for text, want := range map[string]kmsKEK{
		"kek: {passphrase: ask}":                                        {Keyset: new("kek.json"), Passphrase: new("ask")},
		"kek: {passphrase_file: p}":                                     {Keyset: new("kek.json"), PassphraseFile: new("p")},
		"kek: {keyset: other.json}":                                     {Keyset: new("other.json"), KeyFile: new("kek.key")},
		"kek: {transit: {address: 'https://v', key: k, token_file: t}}": {Transit: &kmsTransit{Address: "https://v", Key: "k", TokenFile: "t"}},
	} {
		c, err := parseKMSConfig([]byte(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, c.KEK); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	if !bytes.Contains([]byte(kmsConfigText), []byte("# ")) || strings.Contains(kmsConfigText, "\t") {
		t.Error("the configuration has no comments, or tabs")
	}
}

// TestKMSConfigComments: what stands commented out in kms.yaml is right once the
// comment signs are gone, and its paths are relative to the file.
func TestKMSConfigComments(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ part, other string }{{"kek", "transit"}, {"store", "etcd"}} {
		begin := "# " + test.part + ":\n"
		_, rest, found := strings.Cut(kmsConfigText, begin)
		var text strings.Builder
		text.WriteString(test.part + ":\n")
		for line := range strings.Lines(rest) {
			inner, ok := strings.CutPrefix(line, "#   ")
			if !ok {
				break
			}
			text.WriteString("  " + inner)
		}
		path := filepath.Join(t.TempDir(), "kms.yaml")
		if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := readKMSConfig(path)
		if err != nil || !found || !strings.Contains(text.String(), test.other+":") {
			t.Errorf("%s: %v\n%s", test.part, err, text.String())
			continue
		}
		for _, p := range append(c.KEK.paths(), c.Store.paths()...) {
			if p != nil && filepath.Dir(*p) != filepath.Dir(path) {
				t.Errorf("%s is elsewhere: %s", test.other, *p)
			}
		}
	}
}
