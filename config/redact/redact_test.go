package redact_test

import (
	"encoding/base64"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/redact"
)

func redacted(t *testing.T, text string) string {
	t.Helper()
	s, err := document.Read("f", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	out, err := redact.Stream(s)
	if err != nil {
		t.Fatal(err)
	}
	if string(s.Bytes()) != text {
		t.Error("the configuration changed")
	}
	return string(out.Bytes())
}

// TestStream: every secret below contains "hunter"; nothing else does.
func TestStream(t *testing.T) {
	const text = `# token: hunter0
machine:
  type: worker # hunter1
  token: hunter2
  ca:
    crt: Y3J0
    key: hunter3
  systemDiskEncryption:
    state:
      keys:
        - slot: 0
          static:
            passphrase: hunter4
        - slot: 1
          static: {hunter5: null}
        - slot: 2
          static: hunter6
  registries:
    config:
      harbor:
        auth: {username: admin, password: hunter7, auth: hunter8, identityToken: hunter9}
        tls: {ca: hunter10, clientIdentity: {crt: c, key: hunter11}}
  files:
    - path: /a
      content: |
        -----BEGIN PRIVATE KEY-----
        hunter12
        -----END PRIVATE KEY-----
  env:
    http_proxy: http://user:hunter13@proxy:3128
  network:
    interfaces:
      - interface: wg0
        wireguard: {privateKey: hunter14}
        vip: {ip: 10.0.0.1, hcloud: {apiToken: hunter15}}
cluster:
  id: public
  secret: hunter16
  aescbcEncryptionSecret: hunter17
  serviceAccount: {key: hunter18}
  etcd: {ca: {crt: c, key: hunter19}}
---
# hunter20
---
apiVersion: v1alpha1
kind: ExtensionServiceConfig
name: nut
environment: [LEVEL=1, DB_PASSWORD=hunter21]
---
apiVersion: v1alpha1
kind: SideroLinkConfig
apiUrl: https://api.test?jointoken=hunter22&x=1
---
apiVersion: example.com/v1
kind: Surprise
password2: &b hunter23
nested: {clientSecret: {data: [hunter24, 7]}, password: *b, other: *b
} # hunter25
`
	got := redacted(t, text)
	if strings.Contains(got, "hunter") {
		t.Errorf("a secret is left:\n%s", got)
	}
	for _, kept := range []string{"type: worker", "crt: Y3J0", "slot: 2", "username: admin", "http://user:[secret]@proxy:3128", "ip: 10.0.0.1", "id: public", "LEVEL=1", "DB_PASSWORD=[secret]", "?jointoken=[secret]&x=1", "name: nut"} {
		if !strings.Contains(got, kept) {
			t.Errorf("%s is gone:\n%s", kept, got)
		}
	}
	if n := strings.Count(got, "[secret]"); n != 24 {
		t.Errorf("%d secrets are marked, want 24:\n%s", n, got)
	}
}

// TestForms has what becomes of a passphrase without quotes, and names of secrets of
// all kinds.
func TestForms(t *testing.T) {
	for text, want := range map[string]string{
		// What YAML makes of a text.
		"passphrase: !hunter2":                    "passphrase: '[secret]'",
		"token: !hunter2 [x]":                     "token: '[secret]'",
		"token: !!hunter2 {}":                     "token: '[secret]'",
		"token: !!null hunter2":                   "token: '[secret]'",
		"token: !!bool hunter2":                   "token: '[secret]'",
		"token: !<hunter2> ''":                    "token: '[secret]'",
		"token: &hunter2":                         "token:",
		"token: [hunter2]":                        "token: '[secret]'",
		"token: {hunter2: null, hunter3: x}":      "token: '[secret]'",
		"passphrase:\n  correct hunter2: battery": "passphrase: '[secret]'",
		"passphrase: {? [hunter2] : x}":           "passphrase: '[secret]'",
		"token: {a: 1, <<: {hunter2: 3}}":         "token: '[secret]'",
		"static: {hunter2: a, hunter3: b}":        "static: '[secret]'",
		"static: {passphrase: a, hunter2: b}":     "static: '[secret]'",
		"static: {passphrase: {hunter2: b}}":      "static: {passphrase: '[secret]'}",
		"static: [hunter2]":                       "static: '[secret]'",
		"auth: [hunter2]":                         "auth: '[secret]'",
		"password: true":                          "password: '[secret]'",
		"a: !hunter2":                             "a: ''",
		"a: !!null hunter2":                       "a: null",
		"a: !hunter2 b":                           "a: b",
		"a: !hunter2 {b: !hunter2 [c]}":           "a: {b: [c]}",
		"!hunter2 a: b":                           "a: b",
		"? {token: hunter2}\n: b":                 "? {token: '[secret]'}\n: b",
		"mirrors: {'http://u:hunter2@h': 1, 'http://u:hunter3@h': 2}": "mirrors: {'http://u:[secret]@h': 1, '[secret] 1': 2}",
		// Aliases and second places, however short with an alias.
		"sysctls: {q: &p hunter}\nstatic: {passphrase: *p}": "sysctls: {q: '[secret]'}\nstatic: {passphrase: '[secret]'}",
		"password: &p hunt\nq: *p\nr: hunted":               "password: '[secret]'\nq: '[secret]'\nr: hunted",
		"password: &p !hunter2\nq: *p":                      "password: '[secret]'\nq: '[secret]'",
		"password: &p 1\nq: *p\nslot: 1":                    "password: '[secret]'\nq: '[secret]'\nslot: 1",
		"password: &p hunter2\nq: {*p : 1, a: 2}":           "password: '[secret]'\nq: {'[secret]': '[secret]', a: 2}",
		"password: &p {hunter: null}\nq: *p":                "password: '[secret]'\nq: {'[secret]': null}",
		"password: hunter2\nq: [x hunter, hunter2]":         "password: '[secret]'\nq: [x hunter, '[secret]']",
		"password: password\na: {password: b}":              "password: '[secret]'\na: {password: '[secret]'}",
		// Names.
		"env: {API_KEY: hunter2, DB_PASS: hunter3}":                                                        "env: {API_KEY: '[secret]', DB_PASS: '[secret]'}",
		"environment: [TS_AUTHKEY=hunter2, A=b]":                                                           "environment: ['TS_AUTHKEY=[secret]', A=b]",
		"env: [{name: DB_PASSWORD, value: hunter2}, {value: hunter3, name: API_KEY}, {name: A, value: b}]": "env: [{name: DB_PASSWORD, value: '[secret]'}, {value: '[secret]', name: API_KEY}, {name: A, value: b}]",
		"extraManifestHeaders: {Cookie: hunter2}":                                                          "extraManifestHeaders: {Cookie: '[secret]'}",
		"kubelet: {extraArgs: {basic-auth: hunter2}}":                                                      "kubelet: {extraArgs: {basic-auth: '[secret]'}}",
		"extraManifestHeaders: {Authorization: Bearer hunter2}":                                            "extraManifestHeaders: {Authorization: '[secret]'}",
		"wifi: {psk: hunter2, pin: 1234}":                                                                  "wifi: {psk: '[secret]', pin: '[secret]'}",
		"crt: LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCmh1bnRlcjIK":                                        "crt: '[secret]'",
		// What is none.
		"tpm: {pin: true, checkSecurebootStatusOnEnroll: true, signingKey: pem, options: {pcrs: [7]}}":      "same",
		"crt: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCg==":                                                     "same",
		"keys: [{slot: 0, nodeID: {}}, {slot: 1, kms: {endpoint: 'https://kms.test:443', certificate: c}}]": "same",
		"peers: [{publicKey: abc, allowedIPs: [10.0.0.0/8]}]":                                               "same",
		"bond: {adUserPortKey: 7}\nuniqueToken: true":                                                       "same",
		"kubelet: {credentialProviderConfig: {kind: X, providers: [{matchImages: [a]}]}}":                   "same",
		"apiServer: {authorizationConfig: [{type: Node, name: a}], extraArgs: {authorization-mode: RBAC}}":  "same",
		"auth: {username: puller}\nca: {crt: c}":                                                            "same",
		"secret: {}\ntoken: []\npassword:\npasswd: ~\nsecrets: ''":                                          "same",
		"extraKernelArgs: [iommu.passthrough=1, console=ttyS0]":                                             "same",
	} {
		if want == "same" {
			want = text
		}
		if got := redacted(t, text+"\n"); got != want+"\n" {
			t.Errorf("%s\nis shown as\n%swant\n%s", text, got, want)
		}
	}
}

func TestKeepsTheRest(t *testing.T) {
	const text = "machine:\n    files:\n        - path: /a\n          permissions: 0644\n    empty: ''\n    token: \"\"\n    secret: null\n"
	if d := cmp.Diff(text, redacted(t, text)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := redacted(t, ""); got != "" {
		t.Errorf("nothing becomes %q", got)
	}
}

// TestTextSecrets: every secret has "hunter" in it.
func TestTextSecrets(t *testing.T) {
	for text, want := range map[string]string{
		"DB_PASSWORD=correct hunter":                                 "DB_PASSWORD=[secret]",
		`PASSWORD="a hunter"`:                                        "PASSWORD=[secret]",
		" TOKEN=a hunter":                                            " TOKEN=[secret]",
		"--password=a hunter":                                        "--password=[secret]",
		"PASSWORD=a\nhunter=2":                                       "PASSWORD=[secret]",
		`x PASSWORD="a \" hunter" y`:                                 "x PASSWORD=[secret] y",
		"x PASSWORD='a hunter' y":                                    "x PASSWORD=[secret] y",
		`x PASSWORD="a hunter`:                                       "x PASSWORD=[secret]",
		"x PASSWORD=a&hunter y":                                      "x PASSWORD=[secret] y",
		"API_KEY=hunter":                                             "API_KEY=[secret]",
		"PASSWORD=":                                                  "PASSWORD=",
		"http://user:p@hunter@proxy":                                 "http://user:[secret]@proxy",
		"http://user:pa/hunter@proxy":                                "http://user:[secret]@proxy",
		"http://user:pa?hunter#hunter@h/x":                           "http://user:[secret]@h/x",
		"a http://u:hunter@h, http://u:hunter@i b":                   "a http://u:[secret]@h, http://u:[secret]@i b",
		"http://h:1/x,http://u:hunter@i":                             "http://h:1/x,http://u:[secret]@i",
		"http://:hunter@h":                                           "http://:[secret]@h",
		"https://h:443/a/@scope/b":                                   "https://h:443/a/@scope/b",
		"https://[::1]:443/a/@scope/b":                               "https://[::1]:443/a/@scope/b",
		"https://h/p?q=1:2@x":                                        "https://h/p?q=1:2@x",
		"reg:5000/i@sha256:ab":                                       "reg:5000/i@sha256:ab",
		"https://h?token=hunter#f":                                   "https://h?token=[secret]#f",
		"-----BEGIN PGP PRIVATE KEY BLOCK-----\nhunter":              "[secret]",
		"data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQpodW50ZXI=": "[secret]",
		"LS0tLS1CRUdJTi LS0tLS1CRUdJTiBQUklWQVRFIEtFWS0tLS0tCg":      "[secret]",
		"LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0K":                       "LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0K",
		"iommu.passthrough=1 bypass=2":                               "iommu.passthrough=1 bypass=2",
	} {
		if got := redact.Text(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
		if got := redact.Text(want); got != want {
			t.Errorf("%q becomes %q the second time", want, got)
		}
	}
}

// TestShown: what Text makes of a secret is known to be one that was shown.
func TestShown(t *testing.T) {
	for text, want := range map[string]bool{
		"[secret]": true, "A_TOKEN=[secret]": true, "http://u:[secret]@h": true, "x API_KEY=[secret] y": true,
		"http://[secret]@h": true, "s=[secret] TOKEN=[secret]": true,
		"sedargs s=[secret]": false, "jq .x=[secret]": false, "ssh://[secret]@h": false, "=[secret]": false,
		"": false, "a [secret] place": false, "[secret]s": false, "secret": false,
	} {
		if got := redact.Shown(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// TestValue: a value of a patch stands at a path.
func TestValue(t *testing.T) {
	for _, tt := range []struct {
		path []string
		text string
		want string
	}{
		{nil, "{machine: {env: {API_KEY: x}}}", "{machine: {env: {API_KEY: '[secret]'}}}"},
		{[]string{"", "machine", "env", "API_KEY"}, "x", "'[secret]'"},
		{[]string{"", "machine", "token", "x"}, "y", "'[secret]'"},
		{[]string{"static"}, "{passphrase: x}", "{passphrase: '[secret]'}"},
		{[]string{"static", "hunter2"}, "x", "'[secret]'"},
		{[]string{"auth"}, "x", "'[secret]'"},
		{[]string{"auth"}, "{username: x}", "{username: x}"},
		{[]string{"machine", "type"}, "x", "x"},
	} {
		s, err := document.Read("f", []byte("v: "+tt.text+"\n"))
		if err != nil {
			t.Fatal(err)
		}
		n, err := document.Copy(document.Field(s.Documents()[0].Root(), "v"))
		if err != nil {
			t.Fatal(err)
		}
		if redact.Value(tt.path, n); document.OneLine(n) != tt.want {
			t.Errorf("%s at %v is shown as %s, want %s", tt.text, tt.path, document.OneLine(n), tt.want)
		}
	}
}

// TestRoots: of two versions of a document each hides the secrets of the other.
func TestRoots(t *testing.T) {
	var roots []*yaml.Node
	for _, text := range []string{"a: hunter3\npassword: &p hunter2\nb: *p\n", "a: hunter2\npassword: hunter3\nb: x\n"} {
		s, err := document.Read("f", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		root, err := document.Copy(s.Documents()[0].Root())
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, root)
	}
	redact.Roots(roots...)
	for i, want := range []string{"{a: '[secret]', password: '[secret]', b: '[secret]'}", "{a: '[secret]', password: '[secret]', b: x}"} {
		if got := document.OneLine(roots[i]); got != want {
			t.Errorf("version %d is shown as %s, want %s", i, got, want)
		}
	}
}

// TestFast: texts that are looked at closely cost no more than others.
func TestFast(t *testing.T) {
	scalar := func(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: text} }
	list := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	fields := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	for i := range 100_000 {
		list.Content = append(list.Content, scalar("A_NAME=http://u:p@h:"+strconv.Itoa(i)))
		fields.Content = append(fields.Content, scalar("aFieldWithPin"+strconv.Itoa(i)), scalar("x"))
	}
	for name, n := range map[string]*yaml.Node{
		"entries": list, "fields": fields,
		"settings": scalar(strings.Repeat("a=", 5<<20)), "names": scalar(strings.Repeat("a", 10<<20) + "="), "passwords": scalar(strings.Repeat("x token=y ", 1<<20)),
		"URLs": scalar(strings.Repeat("://h", 2<<20) + "@"), "passwords of URLs": scalar(strings.Repeat("a://b:c@d ", 1<<20)), "keys": scalar(strings.Repeat("LS0tLS1CRUdJTi", 1<<19)),
		"quotes": scalar(strings.Repeat(`x token="\`, 1<<20)), "hosts": scalar(strings.Repeat("://h:1/", 1<<20) + "@"),
	} {
		start := time.Now()
		redact.Roots(&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{scalar("a"), n}})
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s take %v", name, took)
		} else {
			t.Logf("%s take %v", name, took)
		}
	}
}

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                             "plain",
		"a=b":                               "a=b",
		"https://h/p?q=1":                   "https://h/p?q=1",
		"https://u:p@h/p":                   "https://u:[secret]@h/p",
		"https://u@h/p":                     "https://[secret]@h/p",
		"see HTTP://ghp_x@h:1/p?a":          "see HTTP://[secret]@h:1/p?a",
		"https://h/p@v1":                    "https://h/p@v1",
		"ssh://git@h/p":                     "ssh://git@h/p",
		"x TOKEN=abc y=z":                   "x TOKEN=[secret] y=z",
		`x TOKEN="abc"de y=z`:               "x TOKEN=[secret] y=z",
		"DB_PWD=a":                          "DB_PWD=[secret]",
		"PWD=/a":                            "PWD=/a",
		"OLDPWD=/a":                         "OLDPWD=/a",
		"talos.config=u?token=ab":           "talos.config=u?token=[secret]",
		"-----BEGIN EC PRIVATE KEY-----\nx": "[secret]",
		"-----BEGIN CERTIFICATE-----\nx":    "-----BEGIN CERTIFICATE-----\nx",
	} {
		if got := redact.Text(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// TestBundle: a private key behind a certificate, wherever its header comes to lie in
// base64, in lines or not.
func TestBundle(t *testing.T) {
	for pad := range 6 {
		certificate := "-----BEGIN CERTIFICATE-----\n" + strings.Repeat("M", 8+pad) + "\n-----END CERTIFICATE-----\n"
		for kind, hidden := range map[string]bool{"PRIVATE KEY": true, "EC PRIVATE KEY": true, "PGP PRIVATE KEY BLOCK": true, "PUBLIC KEY": false} {
			text := base64.StdEncoding.EncodeToString([]byte(certificate + "-----BEGIN " + kind + "-----\nMC4C\n"))
			for _, text := range []string{text, text[:30] + "\n" + text[30:80] + "\n" + text[80:]} {
				if got := redact.Text(text) == "[secret]"; got != hidden {
					t.Errorf("%s after %d bytes: hidden %v", kind, pad, got)
				}
			}
		}
	}
}

func TestBomb(t *testing.T) {
	s, err := document.Read("f", []byte("a: &a {b: *a}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := redact.Stream(s); err == nil || out != nil {
		t.Errorf("what has no end becomes %v, %v", out, err)
	}
}

// FuzzText writes a secret into the places where it is known to be one. It starts with
// a letter: a port in front of a slash is no password.
func FuzzText(f *testing.F) {
	for _, text := range []string{"@", "a @", "'@", "a@@", "a/@", "a://@:1/@", "\"@\\\" @", "=@", "TOKEN=@", "@\n@"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		const planted = "pLaNtEd"
		text = "p" + strings.ReplaceAll(text, "@", planted+"@")
		all := []string{"DB_PASSWORD=" + text, " --api-key=" + text}
		if !strings.ContainsAny(text, " \t\r\n\v\f") {
			all = append(all, "x http://user:"+text+"@host/ y", "x TOKEN="+text+" y")
		}
		if !strings.ContainsAny(text, `"\`) {
			all = append(all, `export A_TOKEN="`+text+`" x`)
		}
		for _, s := range all {
			if got := redact.Text(s); strings.Contains(got, planted) {
				t.Errorf("%q is shown as %q", s, got)
			} else if again := redact.Text(got); again != got {
				t.Errorf("%q is shown as %q, and that as %q", s, got, again)
			}
		}
	})
}
