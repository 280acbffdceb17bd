package kek_test

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
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/secret"
)

const token = "s.the-token-of-the-test"

// fakeTransit imitates the five paths of the transit engine that are used. It is
// written from the API's documentation; no Vault was asked.
type fakeTransit struct {
	derived bool // the key was made with derived=true
	deaf    bool // a server that does not know associated_data

	mu       sync.Mutex
	versions [][]byte
	min      int
	status   int // if set, the answer to everything
	body     string
	calls    int
}

func (f *fakeTransit) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	fail := func(status int, text string) {
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}})
	}
	switch {
	case f.status != 0:
		if f.status/100 == 3 {
			w.Header().Set("Location", "https://192.0.2.1/")
		}
		w.WriteHeader(f.status)
		w.Write([]byte(f.body))
		return
	case r.Header.Get("X-Vault-Token") != token:
		fail(403, "permission denied")
		return
	}
	var in struct {
		Plaintext, Associated_data, Context []byte
		Ciphertext                          string
	}
	if r.Method == http.MethodPost {
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			fail(400, err.Error())
			return
		}
	}
	bound := in.Associated_data
	if f.derived {
		bound = in.Context
	}
	if f.deaf {
		bound = nil
	}
	data := map[string]any{}
	switch r.URL.Path {
	case "/v1/kms/transit/encrypt/nodes":
		data["ciphertext"] = f.seal(in.Plaintext, bound)
	case "/v1/kms/transit/decrypt/nodes", "/v1/kms/transit/rewrap/nodes":
		plain, err := f.open(in.Ciphertext, bound)
		if err != nil {
			fail(400, err.Error())
			return
		}
		if strings.Contains(r.URL.Path, "rewrap") {
			data["ciphertext"] = f.seal(plain, bound)
		} else {
			data["plaintext"] = plain
		}
	case "/v1/kms/transit/keys/nodes/rotate":
		f.rotate()
		w.WriteHeader(http.StatusNoContent)
		return
	case "/v1/kms/transit/keys/nodes":
		data["latest_version"] = len(f.versions)
	default:
		fail(404, "no handler for route "+r.URL.Path)
		return
	}
	json.NewEncoder(w).Encode(map[string]any{"request_id": "x", "data": data})
}

func (f *fakeTransit) rotate() {
	key := make([]byte, 32)
	rand.Read(key)
	f.versions = append(f.versions, key)
}

func (f *fakeTransit) aead(version int, bound []byte) (cipher.AEAD, []byte) {
	key := f.versions[version-1]
	if f.derived {
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

func (f *fakeTransit) seal(plain, bound []byte) string {
	a, bound := f.aead(len(f.versions), bound)
	return fmt.Sprintf("vault:v%d:%s", len(f.versions), base64.StdEncoding.EncodeToString(a.Seal(nil, nil, plain, bound)))
}

func (f *fakeTransit) open(text string, bound []byte) ([]byte, error) {
	var version int
	var rest string
	if n, _ := fmt.Sscanf(text, "vault:v%d:%s", &version, &rest); n != 2 || version > len(f.versions) {
		return nil, errors.New("invalid ciphertext: no prefix")
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

func (f *fakeTransit) answers(status int, body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status, f.body = status, body
}

// start serves the fake over TLS and returns options that fit.
func start(t testing.TB, f *fakeTransit) (*httptest.Server, kek.TransitOptions) {
	t.Helper()
	f.rotate()
	s := httptest.NewTLSServer(f)
	t.Cleanup(s.Close)
	dir := t.TempDir()
	ca, tokens := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "token")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	for path, text := range map[string][]byte{ca: text, tokens: []byte(token + "\n")} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, kek.TransitOptions{Address: s.URL, Mount: "kms/transit", Key: "nodes", TokenFile: tokens, CAFile: ca, Derived: f.derived}
}

func transit(t testing.TB, o kek.TransitOptions) *kek.Transit {
	t.Helper()
	k, err := kek.NewTransit(o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTransitFake(t *testing.T) {
	for _, derived := range []bool{false, true} {
		f := &fakeTransit{derived: derived}
		_, o := start(t, f)
		k := transit(t, o)
		testWrapper(t, k)
		testRotation(t, k)
		wrapped, err := k.Wrap(t.Context(), secret.Copy([]byte("key")), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.rotate()
		f.mu.Unlock()
		renewed, ok, err := k.Rewrap(t.Context(), wrapped, []byte("a"))
		if ok != derived || err != nil {
			t.Fatalf("derived %v: rewrap %v, %v", derived, ok, err)
		}
		if ok {
			if got, err := k.Unwrap(t.Context(), renewed, []byte("a")); err != nil || string(got.Bytes()) != "key" || kek.Version(renewed) != "v3" {
				t.Errorf("renewed to %s: %v", kek.Version(renewed), err)
			}
		}
		f.mu.Lock()
		f.min = 3
		f.mu.Unlock()
		if _, err := k.Unwrap(t.Context(), wrapped, []byte("a")); !errors.Is(err, kek.ErrVersion) {
			t.Errorf("a version that is too old: %v", err)
		}
	}
}

// TestTransitFakeDoesNotBind: a server that ignores associated data, or the
// context of a key that is not derived, is found before anything is wrapped.
func TestTransitFakeDoesNotBind(t *testing.T) {
	for _, o := range []struct{ derived bool }{{false}, {true}} {
		f := &fakeTransit{deaf: true, derived: o.derived}
		_, opts := start(t, f)
		if _, err := transit(t, opts).Wrap(t.Context(), secret.New(32), []byte("a")); err == nil || !strings.Contains(err.Error(), "ignored") {
			t.Errorf("derived %v: %v", o.derived, err)
		}
	}
}

func TestTransitFakeFails(t *testing.T) {
	f := &fakeTransit{}
	server, o := start(t, f)
	good := transit(t, o)
	key := secret.Copy([]byte("a key that no error shows"))
	wrapped, err := good.Wrap(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	leak := base64.StdEncoding.EncodeToString(key.Bytes())
	for _, tt := range []struct {
		name   string
		status int
		body   string
		want   error
		text   string
	}{
		{"sealed", 503, `{"errors":["Vault is sealed"]}`, kek.ErrSealed, "Vault is sealed"},
		{"not initialized", 501, ``, kek.ErrSealed, ""},
		{"standby", 429, ``, kek.ErrDown, ""},
		{"performance standby", 473, ``, kek.ErrDown, ""},
		{"broken", 500, `{"errors":["1 error occurred"]}`, kek.ErrDown, "1 error occurred"},
		{"redirect", 307, ``, kek.ErrDown, "active one"},
		{"denied", 403, `{"errors":["permission denied"]}`, kek.ErrDenied, "permission denied"},
		{"gone", 404, `{"errors":[]}`, kek.ErrDenied, "no such"},
		{"not JSON", 200, `plaintext ` + leak, nil, "not the JSON"},
		{"empty", 200, `{"data":{}}`, nil, "0 bytes"},
		{"other types", 200, `{"data":{"plaintext":{"x":"` + leak + `"}}}`, nil, "not the JSON"},
		{"endless", 200, strings.Repeat(" ", 100<<10), nil, "more than"},
		{"a page", 502, "<html>" + strings.Repeat("x", 5000), kek.ErrDown, "502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f.answers(tt.status, tt.body)
			defer f.answers(0, "")
			_, err := good.Unwrap(t.Context(), wrapped, nil)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("%v", err)
			}
			if s := err.Error(); strings.Contains(s, leak) || strings.Contains(s, token) || len(s) > 500 {
				t.Errorf("%v", err)
			}
		})
	}
	if got, err := good.Unwrap(t.Context(), wrapped, nil); err != nil || !got.Equal(key) {
		t.Fatalf("it does not heal: %v", err)
	}

	other := o
	other.Key = "no such key"
	if _, err := transit(t, other).Wrap(t.Context(), key, nil); !errors.Is(err, kek.ErrDenied) {
		t.Errorf("no such key: %v", err)
	}
	if err := os.WriteFile(o.TokenFile, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := good.Unwrap(t.Context(), wrapped, nil); !errors.Is(err, kek.ErrDenied) {
		t.Errorf("wrong token: %v", err)
	}
	for _, bad := range []string{"", "two words", "nul\x00"} {
		os.WriteFile(o.TokenFile, []byte(bad), 0o600)
		if _, err := good.Unwrap(t.Context(), wrapped, nil); err == nil || !strings.Contains(err.Error(), o.TokenFile) {
			t.Errorf("token file %q: %v", bad, err)
		}
	}
	os.WriteFile(o.TokenFile, []byte(token), 0o600)
	server.Close()
	if _, err := good.Unwrap(t.Context(), wrapped, nil); !errors.Is(err, kek.ErrDown) || strings.Contains(err.Error(), token) {
		t.Errorf("down: %v", err)
	}
}

func TestTransitFakeHangs(t *testing.T) {
	free := make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	defer s.Close()
	defer close(free)
	_, o := start(t, &fakeTransit{})
	o.Address, o.Timeout = s.URL, 50*time.Millisecond
	if _, err := transit(t, o).Unwrap(t.Context(), []byte("vault:v1:AAAA"), nil); !errors.Is(err, kek.ErrDown) {
		t.Errorf("hangs: %v", err)
	}
}

// TestTransitFakeWithoutItsCA has a server whose certificate nobody vouches for.
func TestTransitFakeWithoutItsCA(t *testing.T) {
	f := &fakeTransit{}
	_, o := start(t, f)
	o.CAFile = ""
	if _, err := transit(t, o).Unwrap(t.Context(), []byte("vault:v1:AAAA"), nil); !errors.Is(err, kek.ErrDown) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%v", err)
	}
	if f.calls != 0 {
		t.Error("it was asked")
	}
}

func TestTransitOptions(t *testing.T) {
	for _, o := range []kek.TransitOptions{
		{},
		{Address: "http://vault:8200", Key: "k", TokenFile: "t"},
		{Address: "vault:8200", Key: "k", TokenFile: "t"},
		{Address: "https://user:pass@vault:8200", Key: "k", TokenFile: "t"},
		{Address: "https://vault:8200", TokenFile: "t"},
		{Address: "https://vault:8200", Key: "k"},
		{Address: "https://vault:8200", Key: "k", TokenFile: "t", CAFile: "/does/not/exist"},
		{Address: "https://vault:8200", Key: "k", TokenFile: "t", CAFile: "transit_test.go"},
	} {
		if _, err := kek.NewTransit(o); err == nil {
			t.Errorf("%+v is taken", o)
		}
	}
}

func FuzzTransitFakeAnswer(f *testing.F) {
	for _, s := range []string{`{"data":{"plaintext":"AAAA"}}`, `{"data":{"ciphertext":"vault:v1:AAAA"}}`, `{"errors":["x"]}`, `[`, ``} {
		f.Add(200, s)
		f.Add(400, s)
	}
	fake := &fakeTransit{}
	_, o := start(f, fake)
	k := transit(f, o)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			t.Skip()
		}
		fake.answers(status, body)
		got, err := k.Unwrap(t.Context(), []byte("vault:v1:AAAA"), nil)
		if (err == nil) != (got.Len() > 0) || err == nil && status != 200 {
			t.Fatalf("%d bytes, %v", got.Len(), err)
		}
		got.Wipe()
	})
}
