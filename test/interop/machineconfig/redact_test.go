package machineconfig_test

import (
	"strings"
	"testing"

	"github.com/siderolabs/talos/pkg/machinery/config/configloader"
	"github.com/siderolabs/talos/pkg/machinery/config/generate"
	"github.com/siderolabs/talos/pkg/machinery/config/machine"
	"github.com/siderolabs/talos/pkg/machinery/constants"

	"github.com/cryptctl/cryptctl/config/document"
	"github.com/cryptctl/cryptctl/config/redact"
)

// secretsOf returns the values of a configuration that Talos redacts.
func secretsOf(t *testing.T, text string) (out []string) {
	t.Helper()
	c, err := configloader.NewFromBytes([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	hidden, err := encoded(c.RedactSecrets("HIDDEN").Documents())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := encoded(c.Documents())
	if err != nil {
		t.Fatal(err)
	}
	after := values(hidden)
	for path, value := range values(plain) {
		if after[path] != value {
			out = append(out, strings.TrimSpace(value))
		}
	}
	return out
}

// TestRedact: what Talos redacts, in a configuration of its own making and in
// drawn ones, is nowhere in what we redact.
func TestRedact(t *testing.T) {
	in, err := generate.NewInput("test", "https://cp.test:6443", constants.DefaultKubernetesVersion)
	if err != nil {
		t.Fatal(err)
	}
	c, err := in.Config(machine.TypeControlPlane)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{string(text), `apiVersion: v1alpha1
kind: WireguardConfig
name: wg0
privateKey: cHJpdmF0ZSBwcml2YXRlIHByaXZhdGUgcHJpdmF0ZT0=
peers:
  - presharedKey: cHJlc2hhcmVkIHByZXNoYXJlZCBwcmVzaGFyZWQgcHI=
---
apiVersion: v1alpha1
kind: SideroLinkConfig
apiUrl: https://api.test?jointoken=a-join-token
---
apiVersion: v1alpha1
kind: RegistryTLSConfig
name: r
ca: a-certificate-of-an-authority
clientIdentity: {cert: a-certificate, key: a-client-key}
---
apiVersion: v1alpha1
kind: RegistryAuthConfig
name: r
password: a-password
auth: an-auth-text
identityToken: an-identity-token
`}
	for seed := range uint64(500) {
		texts = append(texts, newGenerator(seed, 3).config())
	}
	found := 0
	for _, text := range texts {
		s, err := document.Read("config", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		clean, err := redact.Stream(s)
		if err != nil {
			t.Fatal(err)
		}
		left := values(string(clean.Bytes()))
		for _, secret := range secretsOf(t, text) {
			if len(secret) > 4 {
				found++
			}
			for path, value := range left {
				if len(secret) > 4 && strings.Contains(value, secret) {
					t.Errorf("%s is still %s", path, secret)
				}
			}
		}
	}
	if found < 250 {
		t.Errorf("%d secrets", found)
	}
	t.Logf("SUMMARY %6d secrets that Talos redacts are gone", found)
}
