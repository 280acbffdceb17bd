package kek

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/kek/kektest"
	"github.com/cryptctl/cryptctl/secret"
)

// FuzzTransitVersion holds the version of a ciphertext against the expression for it.
func FuzzTransitVersion(f *testing.F) {
	want := regexp.MustCompile(`^vault:v([1-9][0-9]{0,8}):.`)
	for _, s := range []string{
		"vault:v1:AAAA", "vault:v12:x", "vault:v123456789:x", "vault:v1234567890:x", "vault:v01:x", "vault:v0:x",
		"vault:v:x", "vault:v1:", "vault:v1", "vault:v1:\nx", "vault:v1:\xff", "Vault:v1:x", "vault:v1 :x", "vault:v-1:x", "", "\x01abcd",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, wrapped []byte) {
		version := ""
		if m := want.FindSubmatch(wrapped); m != nil {
			version = "v" + string(m[1])
		}
		if got := transitVersion(wrapped); got != version {
			t.Errorf("%q: %q, want %q", wrapped, got, version)
		}
	})
}

func TestVersionCostsNothing(t *testing.T) {
	wrapped := []byte("vault:v1:AAAAAAAAAAAAAAAA")
	if n := testing.AllocsPerRun(100, func() { Version(wrapped) }); n > 1 {
		t.Errorf("%v allocations", n)
	}
}

// TestLostRotation: a rotation whose answer is lost is not done twice.
func TestLostRotation(t *testing.T) {
	at, rotations := (&kektest.Transit{}).Start(t), 0
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/rotate") {
			rotations++
		}
		panic(http.ErrAbortHandler)
	}))
	defer s.Close()
	k, err := NewTransit(TransitOptions{Address: s.URL, Mount: kektest.Mount, Key: kektest.Key, TokenFile: at.TokenFile, CAFile: at.CAFile})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Rotate(t.Context()); !errors.Is(err, ErrDown) || rotations != 1 {
		t.Errorf("%d rotations, %v", rotations, err)
	}
}

// TestKilledChange leaves the copy of a change that was killed before its rename. It
// holds a version that is destroyed later, so it does not stay.
func TestKilledChange(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	with := func() Secret { return Secret{KeyFile: secret.Copy(make([]byte, 32))} }
	k, err := Create(t.Context(), path, with())
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	left := func(after string, do func() error) {
		t.Helper()
		if err := os.WriteFile(path+leftOver, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Fatal(after, err)
		}
		names, err := filepath.Glob(path + ".*")
		if _, gone := os.Lstat(path + leftOver); err != nil || !errors.Is(gone, fs.ErrNotExist) || len(names) != 1 {
			t.Errorf("after %s: %v, %v", after, names, err)
		}
	}
	left("a change", func() error { _, err := k.Rotate(t.Context()); return err })
	left("an open", func() error {
		other, err := Open(t.Context(), path, with())
		if err == nil {
			other.Close()
		}
		return err
	})
	v, err := k.Versions()
	if err != nil {
		t.Fatal(err)
	}
	left("a retirement", func() error { return errors.Join(k.Disable(v[0].Name), k.Destroy(v[0].Name)) })
}
