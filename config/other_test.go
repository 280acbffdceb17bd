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

// TestTrustedRoots: authorities that files append to the system's, and those of
// documents; comments between them are left out, other files passed over.
func TestTrustedRoots(t *testing.T) {
	one, two, three := authority(t, "one"), authority(t, "two"), authority(t, "three")
	c := read(t, fmt.Sprintf(`machine:
  files:
    - content: |
        # ours
%s      permissions: 0644
      path: /etc/ssl/certs/ca-certificates
      op: append
    - {content: hello, path: /etc/motd, op: append}
    - {content: hello, path: /etc/ssl/certs/ca-certificates, op: overwrite}
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
