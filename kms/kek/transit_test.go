package kek_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/kek/kektest"
	"github.com/cryptctl/cryptctl/secret"
)

// start serves the fake over TLS and returns options that fit.
func start(t testing.TB, f *kektest.Transit) (*httptest.Server, kek.TransitOptions) {
	t.Helper()
	at := f.Start(t)
	return at.Server, kek.TransitOptions{Address: at.URL, Mount: kektest.Mount, Key: kektest.Key, TokenFile: at.TokenFile, CAFile: at.CAFile, Derived: f.Derived}
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
		f := &kektest.Transit{Derived: derived}
		_, o := start(t, f)
		k := transit(t, o)
		testWrapper(t, k)
		testRotation(t, k)
		wrapped, err := k.Wrap(t.Context(), secret.Copy([]byte("key")), []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		f.Rotate()
		renewed, ok, err := k.Rewrap(t.Context(), wrapped, []byte("a"))
		if ok != derived || err != nil {
			t.Fatalf("derived %v: rewrap %v, %v", derived, ok, err)
		}
		if ok {
			if got, err := k.Unwrap(t.Context(), renewed, []byte("a")); err != nil || string(got.Bytes()) != "key" || kek.Version(renewed) != "v3" {
				t.Errorf("renewed to %s: %v", kek.Version(renewed), err)
			}
		}
		f.Retire(3)
		if _, err := k.Unwrap(t.Context(), wrapped, []byte("a")); !errors.Is(err, kek.ErrVersion) {
			t.Errorf("a version that is too old: %v", err)
		}
	}
}

// TestTransitFakeDoesNotBind: a server that ignores associated data, or the
// context of a key that is not derived, is found before anything is wrapped.
func TestTransitFakeDoesNotBind(t *testing.T) {
	for _, o := range []struct{ derived bool }{{false}, {true}} {
		f := &kektest.Transit{Deaf: true, Derived: o.derived}
		_, opts := start(t, f)
		if _, err := transit(t, opts).Wrap(t.Context(), secret.New(32), []byte("a")); err == nil || !strings.Contains(err.Error(), "ignored") {
			t.Errorf("derived %v: %v", o.derived, err)
		}
	}
}

func TestTransitFakeFails(t *testing.T) {
	f := &kektest.Transit{}
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
			f.Answers(tt.status, tt.body)
			defer f.Answers(0, "")
			_, err := good.Unwrap(t.Context(), wrapped, nil)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("%v", err)
			}
			if s := err.Error(); strings.Contains(s, leak) || strings.Contains(s, kektest.Token) || len(s) > 500 {
				t.Errorf("%v", err)
			}
		})
	}
	if got, err := good.Unwrap(t.Context(), wrapped, nil); err != nil || !got.Equal(key) {
		t.Fatalf("it does not heal: %v", err)
	}
	if err := good.Probe(t.Context()); err != nil {
		t.Error(err)
	}
	f.Answers(503, "")
	if err := good.Probe(t.Context()); !errors.Is(err, kek.ErrSealed) {
		t.Errorf("a probe of a sealed server: %v", err)
	}
	f.Answers(0, "")

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
	os.WriteFile(o.TokenFile, []byte(kektest.Token), 0o600)
	server.Close()
	if _, err := good.Unwrap(t.Context(), wrapped, nil); !errors.Is(err, kek.ErrDown) || strings.Contains(err.Error(), kektest.Token) {
		t.Errorf("down: %v", err)
	}
}

func TestTransitFakeHangs(t *testing.T) {
	free := make(chan struct{})
	s := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-free }))
	defer s.Close()
	defer close(free)
	_, o := start(t, &kektest.Transit{})
	o.Address, o.Timeout = s.URL, 50*time.Millisecond
	if _, err := transit(t, o).Unwrap(t.Context(), []byte("vault:v1:AAAA"), nil); !errors.Is(err, kek.ErrDown) {
		t.Errorf("hangs: %v", err)
	}
}

// TestTransitFakeWithoutItsCA has a server whose certificate nobody vouches for.
func TestTransitFakeWithoutItsCA(t *testing.T) {
	f := &kektest.Transit{}
	_, o := start(t, f)
	o.CAFile = ""
	if _, err := transit(t, o).Unwrap(t.Context(), []byte("vault:v1:AAAA"), nil); !errors.Is(err, kek.ErrUntrusted) || errors.Is(err, kek.ErrDown) {
		t.Errorf("%v", err)
	}
	if f.Calls() != 0 {
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
	fake := &kektest.Transit{}
	_, o := start(f, fake)
	k := transit(f, o)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			t.Skip()
		}
		fake.Answers(status, body)
		got, err := k.Unwrap(t.Context(), []byte("vault:v1:AAAA"), nil)
		if (err == nil) != (got.Len() > 0) || err == nil && status != 200 {
			t.Fatalf("%d bytes, %v", got.Len(), err)
		}
		got.Wipe()
	})
}
