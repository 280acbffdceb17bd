package redact_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	if n := strings.Count(got, "[secret]"); n != 25 {
		t.Errorf("%d secrets are marked, want 25:\n%s", n, got)
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

func TestText(t *testing.T) {
	for text, want := range map[string]string{
		"plain":                             "plain",
		"a=b":                               "a=b",
		"https://h/p?q=1":                   "https://h/p?q=1",
		"https://u:p@h/p":                   "https://u:[secret]@h/p",
		"https://u@h/p":                     "https://u@h/p",
		"x TOKEN=abc y=z":                   "x TOKEN=[secret] y=z",
		"talos.config=u?token=ab":           "talos.config=u?token=[secret]",
		"-----BEGIN EC PRIVATE KEY-----\nx": "[secret]",
		"-----BEGIN CERTIFICATE-----\nx":    "-----BEGIN CERTIFICATE-----\nx",
	} {
		if got := redact.Text(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
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
