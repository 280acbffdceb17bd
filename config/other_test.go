package config_test

import (
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/logging"
	"github.com/cryptctl/cryptctl/pki"
	"github.com/cryptctl/cryptctl/role"
)

// authority is the certificate of a new authority, as PEM.
func authority(t *testing.T, name string) string {
	t.Helper()
	_, p, err := pki.NewAuthority(name, 0)
	if err != nil {
		t.Fatal(err)
	}
	p.Wipe()
	return string(p.Cert)
}

// TestLogging: destinations of services and of the kernel, from both places.
func TestLogging(t *testing.T) {
	c := read(t, `machine:
  logging:
    destinations:
      - endpoint: "udp://127.0.0.1:12345/"
        format: "json_lines"
      - endpoint: tcp://[2001:db8::1]:5044
        format: json_lines
        extraTags: {server: s03-rack07, rack: 7}
---
apiVersion: v1alpha1
kind: KmsgLogConfig
name: remote-log
url: tcp://host:5044/
`)
	want := []logging.Destination{
		{Network: "udp", Address: "127.0.0.1:12345"},
		{Network: "tcp", Address: "[2001:db8::1]:5044", Tags: map[string]string{"server": "s03-rack07", "rack": "7"}},
		{Network: "tcp", Address: "host:5044", Kernel: true},
	}
	if d := cmp.Diff(want, c.Logging); d != "" {
		t.Error(d)
	}
}

// TestAccess: certificates are judged by their roles unless the file says, in so many
// words, that they are not.
func TestAccess(t *testing.T) {
	for text, want := range map[string]role.Access{
		"{}":                        role.ByRole,
		"{features: {}}":            role.ByRole,
		"{features: {rbac: }}":      role.ByRole,
		"{features: {rbac: true}}":  role.ByRole,
		"{features: {rbac: false}}": role.Unrestricted,
	} {
		if got := read(t, "machine: "+text+"\n").Access; got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	for _, text := range []string{"{features: {rbac: maybe}}", "{features: {rbac: [false]}}", "{features: [rbac]}"} {
		source := config.Source{Name: "f", Data: []byte("machine: " + text + "\n")}
		if _, err := config.Read(source); err == nil || !strings.Contains(err.Error(), "machine.features") {
			t.Errorf("%s: %v", text, err)
		}
		if c, err := config.ReadStored(source); err != nil || c.Access != role.ByRole || len(c.LeftOut) != 1 {
			t.Errorf("%s, stored: %+v, %v", text, c, err)
		}
	}
}

// TestTrustedRoots: authorities that files append to the system's, and those of
// documents; comments between them are left out, other files passed over.
func TestTrustedRoots(t *testing.T) {
	one, two, three := authority(t, "one"), authority(t, "two"), authority(t, "three")
	c := read(t, fmt.Sprintf(`machine:
  files:
    - content: |
        # ours
%s      permissions: 0644
      path: /etc/ssl//certs/./ca-certificates
      op: append
    - {content: hello, path: /etc/motd, op: append}
    - {content: hello, path: /etc/ssl/certs/ca-certificates.bak, op: overwrite}
---
apiVersion: v1alpha1
kind: TrustedRootsConfig
name: two-and-three
certificates: |
%s`, indent(one, 8), indent(two+"\n# and\n"+three, 2)))
	if d := cmp.Diff(one+two+three, string(c.TrustedRoots)); d != "" {
		t.Error(d)
	}
}

// TestOtherMistakes: what is wrong outside of encryption, where it is read.
func TestOtherMistakes(t *testing.T) {
	const destination = "machine:\n  logging:\n    destinations:\n      - "
	const kernel = "apiVersion: v1alpha1\nkind: KmsgLogConfig\n"
	const roots = "apiVersion: v1alpha1\nkind: TrustedRootsConfig\nname: x\n"
	const form = "write udp:// or tcp://, host and port, such as udp://127.0.0.1:12345"
	const bundle = "machine:\n  files:\n    - {path: /etc/ssl/certs//ca-certificates, "
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("hunter2")}))
	junk := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")}))
	for _, tt := range []mistake{
		{"another format", destination + "{endpoint: 'udp://a:1', format: msgpack}\n", "f:4: machine.logging.destinations[0].format: is not json_lines, the only format there is; write format: json_lines"},
		{"no format", destination + "endpoint: udp://a:1\n", "f:4: machine.logging.destinations[0].format: is not json_lines, the only format there is; write format: json_lines"},
		{"no endpoint", destination + "format: json_lines\n", "f:4: machine.logging.destinations[0].endpoint: is missing; write it as udp:// or tcp://, host and port"},
		{"endpoint of another kind", destination + "{endpoint: 'http://a:1', format: json_lines}\n", "f:4: machine.logging.destinations[0].endpoint: has a scheme that is neither tcp nor udp; " + form},
		{"unknown field", destination + "{endpoint: 'udp://a:1', format: json_lines, tags: {}}\n", "f:4: machine.logging.destinations[0].tags: unknown field; the fields here are endpoint, format, extraTags"},
		{"tags that are a list", destination + "{endpoint: 'udp://a:1', format: json_lines, extraTags: [a]}\n", "f:4: machine.logging.destinations[0].extraTags: is a list, not a mapping; write it as field: value"},
		{"misspelt", "machine:\n  logging:\n    destination: []\n", "f:3: machine.logging.destination: unknown field; did you mean destinations?"},
		{"kernel log without a port", kernel + "name: x\nurl: tcp://host/\n", "f:4: url: has no port from 1 to 65535; " + form},
		{"kernel log without a name", kernel + "url: tcp://host:1/\n", "f:1: name: is missing; name the document"},
		{"roots that are none", roots + "certificates: hello\n", "f:4: certificates: holds no certificate; write the certificates in PEM, as they were issued"},
		{"roots with a key", roots + "certificates: |\n" + indent(key, 2), "f:4: certificates: has a block that is no certificate; write the certificates in PEM, as they were issued"},
		{"roots that are damaged", roots + "certificates: |\n" + indent(junk, 2), "f:4: certificates: has a certificate that cannot be read; write the certificates in PEM, as they were issued"},
		{"roots that are cut off", roots + "certificates: |\n" + indent(authority(t, "x")[:100], 2), "f:4: certificates: has a block that is no PEM; write the certificates in PEM, as they were issued"},
		{"file that is cut off", "machine:\n  files:\n    - {op: append, path: /etc/ssl/certs/ca-certificates, content: '-----BEGIN'}\n", "f:3: machine.files[0].content: has a block that is no PEM; write the certificates in PEM, as they were issued"},
		{"bundle that is overwritten", bundle + "op: overwrite, content: x}\n", "f:3: machine.files[0].op: is not append, by which alone authorities are trusted; write op: append"},
		{"bundle that is created", bundle + "op: create, content: x}\n", "f:3: machine.files[0].op: is not append, by which alone authorities are trusted; write op: append"},
		{"bundle without op", bundle + "content: x}\n", "f:3: machine.files[0].op: is not append, by which alone authorities are trusted; write op: append"},
		{"misspelt logging", "machine:\n  loggings: {destinations: []}\n", "f:2: machine.loggings: unknown field; did you mean logging?"},
		{"too many tags", destination + "{endpoint: 'udp://a:1', format: json_lines, extraTags: {a: '" + strings.Repeat("x", 8192) + "'}}\n", "f:4: machine.logging.destinations[0].extraTags: the tags are 8201 bytes of each line, and at most 8192 can be; write fewer or shorter ones"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := config.Read(config.Source{Name: "f", Data: []byte(tt.text)})
			if c != nil || err == nil {
				t.Fatalf("Read gives %v, %v", c, err)
			}
			if d := cmp.Diff(strings.Split(tt.want, "\n"), strings.Split(err.Error(), "\n")); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
			checkErrors(t, err)
		})
	}
}

// TestManyDestinations: destinations are counted over all documents.
func TestManyDestinations(t *testing.T) {
	text := "machine: {logging: {destinations: [{endpoint: 'udp://a:1', format: json_lines}]}}\n"
	for i := range logging.MaxDestinations - 1 {
		text += fmt.Sprintf("---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: n%d\nurl: udp://a:%d\n", i, i+1)
	}
	if c := read(t, text); len(c.Logging) != logging.MaxDestinations {
		t.Errorf("%d destinations", len(c.Logging))
	}
	text += "---\napiVersion: v1alpha1\nkind: KmsgLogConfig\nname: more\nurl: udp://a:99\n"
	_, err := config.Read(config.Source{Name: "f", Data: []byte(text)})
	want := "f:81: url: there are more than 16 destinations of logs, those of the kernel's messages included; write fewer"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestStored: of a configuration that was in force, what has nothing to do with
// encryption is left out where it is wrong, and said; what has is a mistake.
func TestStored(t *testing.T) {
	good := authority(t, "good")
	bad := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("junk")}))
	other := string(pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: []byte("junk")}))
	text := `machine:
  logging:
    destinations:
      - {endpoint: 'udp://a:1', format: msgpack}
      - {endpoint: 'udp://a:2', format: json_lines}
      - {endpoint: 'http://a:2', format: json_lines}
  loggings: {}
  files:
    - {path: /etc/ssl/certs/ca-certificates, op: overwrite, content: x}
---
apiVersion: v1alpha1
kind: KmsgLogConfig
name: log
url: tls://host:1
---
apiVersion: v1alpha1
kind: TrustedRootsConfig
name: roots
certificates: |
` + indent(bad+good+other, 2) + `---
apiVersion: v1alpha1
kind: VolumeConfig
name: EPHEMERAL
encryption:
  provider: luks2
  keys:
    - slot: 0
      static: {passphrase: x}
`
	if _, err := config.Read(config.Source{Name: "f", Data: []byte(text)}); err == nil {
		t.Error("Read takes it")
	}
	c, err := config.ReadStored(config.Source{Name: "f", Data: []byte(text)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Wipe()
	if d := cmp.Diff([]logging.Destination{{Network: "udp", Address: "a:2"}}, c.Logging); d != "" || len(c.Volumes) != 1 || string(c.TrustedRoots) != good {
		t.Errorf("%s%d volumes, trusted roots %s", d, len(c.Volumes), c.TrustedRoots)
	}
	want := []string{
		"machine.logging.destinations[0].format", "machine.logging.destinations[2].endpoint", "machine.loggings",
		"machine.files[0].op", "url", "certificates",
	}
	var got []string
	for _, e := range c.LeftOut {
		got = append(got, e.Field)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	checkErrors(t, c.LeftOut)
	broken := strings.Replace(text, "static: {passphrase: x}", "static: {passphrase: x, more: y}", 1)
	if _, err := config.ReadStored(config.Source{Name: "f", Data: []byte(broken)}); err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("a mistake in encryption: %v", err)
	}
}
