package provide_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
)

// TestKeys: what each kind of key gives for slot 0 of STATE.
func TestKeys(t *testing.T) {
	t.Parallel()
	const uuid = "6f7a8b9c-0d1e-4f2a-8b3c-4d5e6f7a8b9c"
	machine := provide.Machine{UUID: uuid, NoSalt: "open STATE first"}
	salt := secret.Copy([]byte(strings.Repeat("s", keys.SaltSize)))
	salted := provide.Machine{UUID: uuid, Salt: salt}
	static := &config.Static{Passphrase: secret.Copy([]byte("pass"))}
	for _, test := range []struct {
		name    string
		machine provide.Machine
		key     config.Key
		want    string // the passphrase, or a part of the error
		sealed  bool
	}{
		{"static", machine, config.Key{Static: static}, "pass", false},
		{"nodeID", machine, config.Key{NodeID: &config.NodeID{}}, uuid + "STATE", false},
		{"kms", machine, config.Key{KMS: &config.KMS{Endpoint: "grpc://127.0.0.1:1"}}, "the token", true},
		{"kms without a UUID", provide.Machine{}, config.Key{KMS: &config.KMS{Endpoint: "https://k"}}, "no UUID", true},
		{"tpm", machine, config.Key{TPM: &config.TPM{PCRs: []int{7}}}, "none of a TPM's", true},
		{"none", machine, config.Key{}, "not known here", false},
		{"locked, no salt", machine, config.Key{Static: static, LockToState: true}, "open STATE first", false},
		{"locked", salted, config.Key{Static: static, LockToState: true}, "pass" + strings.Repeat("s", keys.SaltSize), false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			k := test.machine.Keys([]config.Key{test.key})[0]
			if sealed := len(k.Tokens) > 0; sealed != test.sealed || k.Random != test.sealed {
				t.Errorf("tokens %v, random %v", k.Tokens, k.Random)
			}
			p, err := k.Provider.Recover(t.Context(), keys.Request{Volume: "STATE"}, nil)
			if err != nil {
				if !strings.Contains(err.Error(), test.want) {
					t.Errorf("error %v, want %q", err, test.want)
				}
				if errors.Is(err, keys.ErrMalformed) {
					return // it was the token that could not be used
				}
				if !errors.Is(err, keys.ErrUnavailable) {
					t.Errorf("error %v of another class", err)
				}
				if _, _, again := k.Provider.Enroll(t.Context(), keys.Request{Volume: "STATE"}); again == nil || again.Error() != err.Error() {
					t.Errorf("Enroll: %v", again)
				}
				return
			}
			defer p.Wipe()
			if string(p.Bytes()) != test.want {
				t.Errorf("passphrase %q, want %q", p.Bytes(), test.want)
			}
		})
	}
}
