package document_test

import (
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config/document"
)

// TestSecretName has the names of Talos' fields, of its extensions' settings, of
// Kubernetes and of our own fields.
func TestSecretName(t *testing.T) {
	const secrets = `passphrase password passwd PASSWORD2 DB_PASS dbPass DB_PASS_1 pass token apiToken identityToken jointoken
		secret aescbcEncryptionSecret secretboxEncryptionSecret clientSecret key privateKey private_key PRIVATE-KEY presharedKey apiKey api_key API_KEY API_KEYS
		x-api-key encryptionKey ENCRYPTION_KEY accessKey AWS_SECRET_ACCESS_KEY TS_AUTHKEY AUTH_KEY SIGNING_KEY psk WIFI_PSK psk_2 pin PIN TPM_PIN
		credentials db-credential tlsPrivateKey`
	const others = `crt cert certificate certificates ca static auth publicKey WG_PUBLIC_KEY pubkey signingKey topologyKey adUserPortKey keys keySize keyless
		slot kms endpoint tpm nodeID passthrough iommu.passthrough allowDownPeerBypass compass passive pinned spinning pinger
		sshAuthorizedKeys credentialProviderConfig authorizationConfig authorization-mode apidCheckExtKeyUsage lockToState
		checkSecurebootStatusOnEnroll monkeys hostname name id type username value`
	for _, name := range strings.Fields(secrets) {
		if !document.SecretName(name) {
			t.Errorf("%s is no secret", name)
		}
	}
	for _, name := range append(strings.Fields(others), "", "-", "é") {
		if document.SecretName(name) {
			t.Errorf("%q is a secret", name)
		}
	}
}

func TestShownPath(t *testing.T) {
	long := strings.Repeat("a", 65)
	for _, tt := range []struct {
		path []string
		want string
	}{
		{nil, ""},
		{[]string{"machine", "sysctls", "vm.max"}, `machine.sysctls["vm.max"]`},
		{[]string{"machine", "files", "[3]", "path"}, "machine.files[3].path"},
		{[]string{"a", "x\x1b[31m\ny"}, `a["x\x1b[31m\ny"]`},
		{[]string{"a", "x\x1b\ny"}, `a."x\x1b\ny"`},
		{[]string{"[x\x1b", ""}, `["[x\x1b"][""]`},
		{[]string{long}, long[:64] + "..."},
		{[]string{long + "."}, `["` + long[:64] + `"...]`},
		{[]string{"machine", "token", "hunter2"}, "machine.token"},
		{[]string{"tokens", "[0]", "hunter2"}, "tokens"},
		{[]string{"keys", "[0]", "static", "hunter2"}, "keys[0].static"},
		{[]string{"keys", "[0]", "static", "[0]", "hunter2"}, "keys[0].static"},
		{[]string{"keys", "[0]", "static", "passphrase"}, "keys[0].static.passphrase"},
		{[]string{"keys", "[0]", "static", "passphrase", "hunter2"}, "keys[0].static.passphrase"},
		{[]string{"auth", "username"}, "auth.username"},
		{[]string{"auth", "[0]", "hunter2"}, "auth"},
		{[]string{"ca", "key", "hunter2"}, "ca.key"},
	} {
		if got := document.ShownPath(tt.path); got != tt.want {
			t.Errorf("%q is shown as %s, want %s", tt.path, got, tt.want)
		}
	}
}

// TestShownID: what a document says it is goes to a terminal.
func TestShownID(t *testing.T) {
	id := document.ID{APIVersion: "v\x1b[1m", Kind: "a\nb", Name: "c\rd"}
	if got, want := id.String(), `"v\x1b[1m"/"a\nb"/"c\rd"`; got != want {
		t.Errorf("shown as %s, want %s", got, want)
	}
	_, err := document.Read("f", []byte(strings.Repeat("---\nkind: \"a\\e[31m\\nX\"\napiVersion: \"v\\e\"\n", 2)))
	if want := `f:5: document "v\x1b"/"a\x1b[31m\nX" is there twice, first on line 2; keep one of them, or merge the two`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// TestRepeated: below a secret the name of a field that is there twice is not shown.
func TestRepeated(t *testing.T) {
	for text, want := range map[string]string{
		"machine: {token: {hunter2: 1, hunter2: 2}}\n":                  "f:1: machine.token: a field in it is there twice, first on line 1; keep one of them",
		"keys: [{static: {passphrase: {hunter2: 1, hunter2: 2}}}]\n":    "f:1: keys[0].static.passphrase: a field in it is there twice, first on line 1; keep one of them",
		"keys: [{static: {passphrase: {a: {hunter2: 1, hunter2: 2}}}}]": "f:1: keys[0].static.passphrase: a field in it is there twice, first on line 1; keep one of them",
		"a.b: {\"c\\n\": 1, \"c\\n\": 2}\n":                             `f:1: ["a.b"]."c\n": the field is there twice, first on line 1; keep one of them`,
	} {
		if _, err := document.Read("f", []byte(text)); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", text, err, want)
		}
	}
}

// TestDocuments: those with a good form come with the mistakes of the others.
func TestDocuments(t *testing.T) {
	in := &document.Report{Name: "f"}
	var got []string
	for _, d := range document.Documents(in, []byte("a: 1\n---\n- b\n---\nkind: X\n---\nkind: Y\napiVersion: v1\n---\na: 'b\n---\nkind: ''\n---\nc: 1\n---\nkind: Z\napiVersion: v1\na: {b: 1, b: 2}\n")) {
		got = append(got, d.ID().String())
	}
	if want := "v1alpha1 v1/Y v1/Z"; strings.Join(got, " ") != want {
		t.Errorf("documents %v, want %s", got, want)
	}
	const want = `f:3: is a list, not a mapping; write it as field: value
f:5: apiVersion: is missing; write apiVersion: v1alpha1
f:11: found unexpected end of stream; mend the YAML on this line or the one above
f:12: kind: is empty; write the document's kind, such as VolumeConfig; the main document has none
f:14: document v1alpha1 is there twice, first on line 1; keep one of them, or merge the two
f:18: a.b: the field is there twice, first on line 18; keep one of them`
	if err := in.Err(); err == nil || err.Error() != want {
		t.Errorf("mistakes\n%v\nwant\n%s", err, want)
	}
}

// TestFlowNull: an empty value in flow style is written as null, and comes back.
func TestFlowNull(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"a: {x: 1, b: }\n", "a: {x: 1, b: null}\n"},
		{"a: {b}\n", "a: {b: null}\n"},
		{"a: [{b: , c: ~}]\n", "a: [{b: null, c: ~}]\n"},
		{"a: {b: &n , c: *n}\n", "a: {b: null, c: null}\n"},
		{"a:\nb: {c: {d: }}\n", "a:\nb: {c: {d: null}}\n"},
	} {
		s := read(t, tt.text)
		d, err := document.New(s.Documents()[0].Root())
		if err != nil {
			t.Fatal(err)
		}
		if got := string(new(document.Stream).With(d).Bytes()); got != tt.want {
			t.Errorf("%q is written as %q, want %q", tt.text, got, tt.want)
		}
		if got, want := document.OneLine(s.Documents()[0].Root()), "''"; strings.Contains(got, want) {
			t.Errorf("%q in one line is %s", tt.text, got)
		}
	}
	if got := document.OneLine(read(t, "a: {b: , c: }\n").Documents()[0].Root()); got != "{a: {b: null, c: null}}" {
		t.Errorf("in one line: %s", got)
	}
}
