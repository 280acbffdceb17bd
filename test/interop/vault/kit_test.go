package vault_test

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/helper/testhelpers/corehelpers"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"

	"github.com/cryptctl/cryptctl/kms/kek"
)

// Where the engine is, the key without and the key with derivation.
const (
	mount   = "kms/transit"
	plain   = "nodes"
	derived = "derived"
)

// server is a Vault, and what its operator holds.
type server struct {
	t       *testing.T
	storage physical.Backend
	core    *vault.Core
	http    *httptest.Server
	address string
	unseal  string
	root    string
	caFile  string
}

// start initializes a Vault, unseals it, and makes the engine and its two keys.
func start(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, address: "127.0.0.1:0", storage: emptyStorage(t)}
	s.up()
	t.Cleanup(s.down)
	var init struct {
		Keys []string `json:"keys_base64"`
		Root string   `json:"root_token"`
	}
	s.must(http.MethodPut, "sys/init", map[string]any{"secret_shares": 1, "secret_threshold": 1}, &init)
	s.unseal, s.root = init.Keys[0], init.Root
	s.open()
	s.must(http.MethodPost, "sys/mounts/"+mount, map[string]any{"type": "transit"}, nil)
	s.must(http.MethodPost, mount+"/keys/"+plain, map[string]any{}, nil)
	s.must(http.MethodPost, mount+"/keys/"+derived, map[string]any{"derived": true}, nil)
	return s
}

// up starts the process's part of it: after the first time, sealed as every Vault
// that was restarted, at the same address.
func (s *server) up() {
	s.t.Helper()
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:        s.storage,
		LogicalBackends: map[string]logical.Factory{"transit": transit.Factory},
		BuiltinRegistry: corehelpers.NewMockBuiltinRegistry(),
		DisableMlock:    true,
		Logger:          hclog.NewNullLogger(),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("tcp", s.address)
	if err != nil {
		s.t.Fatal(err)
	}
	s.core, s.address = core, l.Addr().String()
	s.http = &httptest.Server{Listener: l, Config: &http.Server{
		Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}),
	}}
	s.http.StartTLS()
	s.caFile = filepath.Join(s.t.TempDir(), "ca.pem")
	s.write(s.caFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})))
}

// down stops it; it may be called again.
func (s *server) down() {
	if s.http == nil {
		return
	}
	s.http.CloseClientConnections()
	s.http.Close()
	if err := s.core.Shutdown(); err != nil {
		s.t.Error(err)
	}
	s.http = nil
}

// open unseals it.
func (s *server) open() {
	s.t.Helper()
	var status struct {
		Sealed bool `json:"sealed"`
	}
	s.must(http.MethodPut, "sys/unseal", map[string]any{"key": s.unseal}, &status)
	if status.Sealed {
		s.t.Fatal("still sealed")
	}
}

func (s *server) seal() {
	s.t.Helper()
	s.must(http.MethodPut, "sys/seal", map[string]any{}, nil)
}

// must is a call of the operator that has to go well.
func (s *server) must(method, path string, in, out any) {
	s.t.Helper()
	text, err := json.Marshal(in)
	if err != nil {
		s.t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, s.http.URL+"/v1/"+path, bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.root)
	resp, err := s.http.Client().Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		s.t.Fatalf("%s %s: %s: %s %v", method, path, resp.Status, body, err)
	}
	if out == nil {
		return
	}
	if err := json.Unmarshal(body, out); err != nil {
		s.t.Fatal(err)
	}
}

// The rights of the key server: to use a key, to look at it, and to rotate it.
const (
	use    = "use"
	look   = "look"
	rotate = "rotate"
)

// rules are the policy for a right, to be read with the engine's mount.
func rules(right string) string {
	allow := func(path, capability string) string {
		return fmt.Sprintf("path %q { capabilities = [%q] }\n", mount+"/"+path, capability)
	}
	switch right {
	case use:
		return allow("encrypt/+", "update") + allow("decrypt/+", "update") + allow("rewrap/+", "update")
	case look:
		return allow("keys/+", "read")
	}
	return allow("keys/+/rotate", "update")
}

// token makes a token with rights to all keys, and returns its file.
func (s *server) token(rights ...string) string {
	s.t.Helper()
	name, text := "may-"+strings.Join(rights, "-"), ""
	for _, r := range rights {
		text += rules(r)
	}
	s.must(http.MethodPut, "sys/policies/acl/"+name, map[string]any{"policy": text}, nil)
	var made struct {
		Auth struct {
			Token string `json:"client_token"`
		} `json:"auth"`
	}
	s.must(http.MethodPost, "auth/token/create", map[string]any{"policies": []string{name}, "ttl": "1h"}, &made)
	path := filepath.Join(s.t.TempDir(), "token")
	s.write(path, made.Auth.Token+"\n")
	return path
}

func (s *server) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// options are those of a key server with all rights.
func (s *server) options(key string) kek.TransitOptions {
	s.t.Helper()
	return kek.TransitOptions{
		Address: s.http.URL, Mount: mount, Key: key, Derived: key == derived,
		TokenFile: s.token(use, look, rotate), CAFile: s.caFile,
	}
}

func client(t *testing.T, o kek.TransitOptions) *kek.Transit {
	t.Helper()
	k, err := kek.NewTransit(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// nobody is the file of a token that Vault never made.
func (s *server) nobody() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "token")
	s.write(path, "hvs.nobody-has-this")
	return path
}

// rootFile is the file of the token that may everything.
func (s *server) rootFile() string {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "token")
	s.write(path, s.root)
	return path
}

// revoke takes back the token of a file.
func (s *server) revoke(path string) {
	s.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.must(http.MethodPost, "auth/token/revoke", map[string]any{"token": strings.TrimSpace(string(text))}, nil)
}

func emptyStorage(t *testing.T) physical.Backend {
	t.Helper()
	b, err := inmem.NewInmem(nil, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	return b
}
