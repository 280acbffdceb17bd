// Package kektest imitates the transit engine of Vault and OpenBao, for tests of
// those who wrap keys with it.
//
// It is a fake of the five paths of the HTTP API that are used, with errors in
// Vault's words: test/interop/vault holds its answers to those of a real one. It
// shows how we speak, not that a Vault understands, which is shown there. Tests on
// it have Fake in their names.
package kektest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// What the fake has: a token, where the engine is mounted, and a key.
const (
	Token = "s.the-token-of-the-test"
	Mount = "kms/transit"
	Key   = "nodes"
)

// Transit is the engine with one key. The zero value is ready to start. Its methods
// may be called from many goroutines.
type Transit struct {
	Derived bool // the key was made with derived=true
	Deaf    bool // a server that does not know associated_data

	mu       sync.Mutex
	versions [][]byte
	min      int
	status   int // if set, the answer to everything
	body     string
	calls    int
}

// Served is a fake that was started. TokenFile holds Token, CAFile the certificate
// to trust.
type Served struct {
	*httptest.Server
	TokenFile, CAFile string
}

// Start gives the key its first version, and serves over TLS until the test ends.
func (f *Transit) Start(t testing.TB) Served {
	t.Helper()
	f.Rotate()
	s := httptest.NewTLSServer(f)
	t.Cleanup(s.Close)
	dir := t.TempDir()
	at := Served{s, filepath.Join(dir, "token"), filepath.Join(dir, "ca.pem")}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for path, text := range map[string][]byte{at.CAFile: text, at.TokenFile: []byte(Token + "\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return at
}

// Answers makes everything be answered with a status and a body; with 0, as it
// should be.
func (f *Transit) Answers(status int, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.body = status, body
}

// Rotate adds a version to the key.
func (f *Transit) Rotate() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rotate()
}

// Retire makes versions below min unusable.
func (f *Transit) Retire(min int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.min = min
}

// Calls returns how often it was asked.
func (f *Transit) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// request is the body of a call.
type request struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
	Associated []byte `json:"associated_data"`
	Context    []byte `json:"context"`
}

// ServeHTTP implements http.Handler.
func (f *Transit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	if f.status != 0 {
		if f.status/100 == 3 {
			w.Header().Set("Location", "https://192.0.2.1/")
		}
		w.WriteHeader(f.status)
		io.WriteString(w, f.body)
		return
	}
	var in request
	status, answer := 0, any(nil)
	if r.Header.Get("X-Vault-Token") != Token {
		status, answer = refuse(403, "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n")
	} else if err := json.NewDecoder(r.Body).Decode(&in); err != nil && r.Method == http.MethodPost {
		status, answer = refuse(400, err.Error())
	} else {
		status, answer = f.do(r.URL.Path, in)
	}
	w.WriteHeader(status)
	if answer != nil {
		json.NewEncoder(w).Encode(answer)
	}
}

func refuse(status int, text string) (int, any) {
	return status, map[string]any{"errors": []string{text}}
}

// absent answers for another key or mount.
func absent(path string) (int, any) {
	op, mounted := strings.CutPrefix(path, "/v1/"+Mount+"/")
	switch {
	case !mounted:
		return refuse(404, "no handler for route "+strconv.Quote(strings.TrimPrefix(path, "/v1/"))+". route entry not found.")
	case strings.HasPrefix(op, "encrypt/"): // the token may not make keys
		return refuse(403, "1 error occurred:\n\t* permission denied\n\n")
	case strings.HasPrefix(op, "decrypt/"), strings.HasPrefix(op, "rewrap/"):
		return refuse(400, "encryption key not found")
	}
	return 404, map[string]any{"errors": []string{}}
}

// do answers one call.
func (f *Transit) do(path string, in request) (int, any) {
	bound := in.Associated
	if f.Derived {
		bound = in.Context
	}
	if f.Deaf {
		bound = nil
	}
	data := map[string]any{}
	switch op := strings.TrimPrefix(path, "/v1/"+Mount+"/"); op {
	case "encrypt/" + Key:
		data["ciphertext"] = f.seal(in.Plaintext, bound)
	case "decrypt/" + Key, "rewrap/" + Key:
		plain, err := f.open(in.Ciphertext, bound)
		if err != nil {
			return refuse(400, err.Error())
		}
		if strings.HasPrefix(op, "rewrap/") {
			data["ciphertext"] = f.seal(plain, bound)
		} else {
			data["plaintext"] = plain
		}
	case "keys/" + Key + "/rotate":
		f.rotate()
		data["latest_version"] = len(f.versions)
	case "keys/" + Key:
		data["latest_version"] = len(f.versions)
	default:
		return absent(path)
	}
	return http.StatusOK, map[string]any{"request_id": "x", "data": data}
}

func (f *Transit) rotate() {
	key := make([]byte, 32)
	rand.Read(key)
	f.versions = append(f.versions, key)
}

func (f *Transit) aead(version int, bound []byte) (cipher.AEAD, []byte) {
	key := f.versions[version-1]
	if f.Derived {
		sum := sha256.Sum256(append(bytes.Clone(key), bound...))
		key, bound = sum[:], nil
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return a, bound
}

func (f *Transit) seal(plain, bound []byte) string {
	a, bound := f.aead(len(f.versions), bound)
	return fmt.Sprintf("vault:v%d:%s", len(f.versions), base64.StdEncoding.EncodeToString(a.Seal(nil, nil, plain, bound)))
}

func (f *Transit) open(text string, bound []byte) ([]byte, error) {
	var version int
	var rest string
	if n, _ := fmt.Sscanf(text, "vault:v%d:%s", &version, &rest); n != 2 {
		return nil, errors.New("invalid ciphertext: no prefix")
	}
	if version > len(f.versions) {
		return nil, errors.New("invalid ciphertext: version is too new")
	}
	if version < f.min {
		return nil, errors.New("ciphertext or signature version is disallowed by policy (too old)")
	}
	raw, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return nil, errors.New("invalid ciphertext: could not decode base64")
	}
	a, bound := f.aead(version, bound)
	plain, err := a.Open(nil, nil, raw, bound)
	if err != nil {
		return nil, errors.New("cipher: message authentication failed")
	}
	return plain, nil
}
