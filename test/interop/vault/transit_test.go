package vault_test

import (
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	thisNode  = "01234567-89ab-cdef-0123-456789abcdef v1"
	otherNode = "fedcba98-7654-3210-fedc-ba9876543210 v1"
)

// both runs a test with a key of either kind, at a Vault of its own.
func both(t *testing.T, test func(t *testing.T, s *server, o kek.TransitOptions)) {
	t.Helper()
	for _, key := range []string{plain, derived} {
		t.Run(key, func(t *testing.T) {
			s := start(t)
			test(t, s, s.options(key))
		})
	}
}

func wrap(t *testing.T, k *kek.Transit, key *secret.Bytes) []byte {
	t.Helper()
	wrapped, err := k.Wrap(t.Context(), key, []byte(thisNode))
	if err != nil {
		t.Fatal(err)
	}
	return wrapped
}

// opens is whether k gives key back.
func opens(t *testing.T, k *kek.Transit, wrapped []byte, key *secret.Bytes) {
	t.Helper()
	got, err := k.Unwrap(t.Context(), wrapped, []byte(thisNode))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Wipe()
	if !got.Equal(key) {
		t.Fatal("another key came back")
	}
}

// refuses is whether k refuses to unwrap, with an error that is want and says text.
func refuses(t *testing.T, k *kek.Transit, wrapped []byte, node string, want error, text string) {
	t.Helper()
	got, err := k.Unwrap(t.Context(), wrapped, []byte(node))
	got.Wipe()
	if !errors.Is(err, want) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v, want %v and %q", err, want, text)
	}
}

func TestWrap(t *testing.T) {
	both(t, func(t *testing.T, s *server, o kek.TransitOptions) {
		k := client(t, o)
		if err := k.Check(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{1, 32, 4096} {
			key := secret.Random(n)
			wrapped := wrap(t, k, key)
			opens(t, k, wrapped, key)
			if v := kek.Version(wrapped); v != "v1" {
				t.Errorf("wrapped by version %q", v)
			}
			refuses(t, k, wrapped, otherNode, kek.ErrNotAuthentic, "")
			damaged := []byte(string(wrapped))
			if i := len(damaged) - 6; damaged[i] == 'A' {
				damaged[i] = 'B'
			} else {
				damaged[i] = 'A'
			}
			refuses(t, k, damaged, thisNode, kek.ErrNotAuthentic, "")
		}
		for _, other := range []string{"vault:v1:AAAA", "vault:v1:====", "vault:v1:" + strings.Repeat("A", 80)} {
			refuses(t, k, []byte(other), thisNode, kek.ErrNotAuthentic, "")
		}
	})
}

func TestRotation(t *testing.T) {
	both(t, func(t *testing.T, s *server, o kek.TransitOptions) {
		k, key := client(t, o), secret.Random(32)
		wrapped := wrap(t, k, key)
		if v, err := k.Current(t.Context()); v != "v1" || err != nil {
			t.Fatal(v, err)
		}
		if v, err := k.Rotate(t.Context()); v != "v2" || err != nil {
			t.Fatal(v, err)
		}
		opens(t, k, wrapped, key)
		if again := wrap(t, k, key); kek.Version(again) != "v2" {
			t.Errorf("it wraps with %s", kek.Version(again))
		}
		renewed, ok, err := k.Rewrap(t.Context(), wrapped, []byte(thisNode))
		if err != nil || ok != o.Derived {
			t.Fatal(ok, err)
		}
		if !ok {
			renewed = wrap(t, k, key)
		} else if _, _, err := k.Rewrap(t.Context(), wrapped, []byte(otherNode)); !errors.Is(err, kek.ErrNotAuthentic) {
			t.Errorf("rewrapped for another node: %v", err)
		}
		s.must(http.MethodPost, mount+"/keys/"+o.Key+"/config", map[string]any{"min_decryption_version": 2}, nil)
		refuses(t, k, wrapped, thisNode, kek.ErrVersion, "")
		opens(t, k, renewed, key)
		s.must(http.MethodPost, mount+"/keys/"+o.Key+"/config", map[string]any{"min_encryption_version": 2}, nil)
		s.must(http.MethodPost, mount+"/keys/"+o.Key+"/trim", map[string]any{"min_available_version": 2}, nil)
		refuses(t, k, wrapped, thisNode, kek.ErrVersion, "")
		opens(t, k, renewed, key)
		refuses(t, k, []byte("vault:v9:"+strings.Repeat("A", 80)), thisNode, kek.ErrVersion, "")
	})
}

// TestDenied: whatever is wrong with rights or with the key is the operator's, and
// is never taken for a damaged wrapping.
func TestDenied(t *testing.T) {
	both(t, func(t *testing.T, s *server, o kek.TransitOptions) {
		key := secret.Random(32)
		wrapped := wrap(t, client(t, o), key)
		with := func(change func(*kek.TransitOptions)) *kek.Transit {
			o := o
			change(&o)
			return client(t, o)
		}
		looks := with(func(o *kek.TransitOptions) { o.TokenFile = s.token(look) })
		refuses(t, looks, wrapped, thisNode, kek.ErrDenied, "permission denied")
		if _, err := looks.Wrap(t.Context(), key, []byte(thisNode)); !errors.Is(err, kek.ErrDenied) {
			t.Errorf("wrap: %v", err)
		}
		uses := with(func(o *kek.TransitOptions) { o.TokenFile = s.token(use) })
		opens(t, uses, wrapped, key)
		if _, err := uses.Current(t.Context()); !errors.Is(err, kek.ErrDenied) {
			t.Errorf("current: %v", err)
		}
		if _, err := uses.Rotate(t.Context()); !errors.Is(err, kek.ErrDenied) {
			t.Errorf("rotate: %v", err)
		}
		nobody := with(func(o *kek.TransitOptions) { o.TokenFile = s.nobody() })
		refuses(t, nobody, wrapped, thisNode, kek.ErrDenied, "")

		missing := with(func(o *kek.TransitOptions) { o.Key = "no-such-key" })
		refuses(t, missing, wrapped, thisNode, kek.ErrDenied, "")
		if _, err := missing.Wrap(t.Context(), key, []byte(thisNode)); !errors.Is(err, kek.ErrDenied) {
			t.Errorf("wrap by a key that is not there: %v", err)
		}
		if _, err := missing.Current(t.Context()); !errors.Is(err, kek.ErrDenied) {
			t.Errorf("current of a key that is not there: %v", err)
		}
		refuses(t, with(func(o *kek.TransitOptions) { o.Mount = "elsewhere" }), wrapped, thisNode, kek.ErrDenied, "")
		rooted := with(func(o *kek.TransitOptions) { o.Mount, o.TokenFile = "elsewhere", s.rootFile() })
		refuses(t, rooted, wrapped, thisNode, kek.ErrDenied, "")

		s.revoke(o.TokenFile)
		refuses(t, client(t, o), wrapped, thisNode, kek.ErrDenied, "")
	})
}

// TestOtherKind: a configuration that does not say what the key is, or says what
// it is not, wraps nothing.
func TestOtherKind(t *testing.T) {
	s := start(t)
	for _, key := range []string{plain, derived} {
		o := s.options(key)
		wrapped := wrap(t, client(t, o), secret.Random(32))
		o.Derived = !o.Derived
		k := client(t, o)
		if _, err := k.Wrap(t.Context(), secret.Random(32), []byte(thisNode)); err == nil {
			t.Errorf("key %s: it wraps", key)
		}
		got, err := k.Unwrap(t.Context(), wrapped, []byte(thisNode))
		got.Wipe()
		if err == nil {
			t.Errorf("key %s: it unwraps", key)
		}
		if key == derived && errors.Is(err, kek.ErrNotAuthentic) {
			t.Errorf("key %s: the wrapping is blamed: %v", key, err)
		}
	}
}

func TestSealed(t *testing.T) {
	both(t, func(t *testing.T, s *server, o kek.TransitOptions) {
		k, key := client(t, o), secret.Random(32)
		wrapped := wrap(t, k, key)
		s.seal()
		refuses(t, k, wrapped, thisNode, kek.ErrSealed, "sealed")
		if err := k.Probe(t.Context()); !errors.Is(err, kek.ErrSealed) {
			t.Errorf("probe: %v", err)
		}
		if err := client(t, o).Check(t.Context()); !errors.Is(err, kek.ErrSealed) {
			t.Errorf("check: %v", err)
		}
		if _, err := k.Current(t.Context()); !errors.Is(err, kek.ErrSealed) {
			t.Errorf("current: %v", err)
		}
		s.open()
		opens(t, k, wrapped, key)
	})
}

// TestRestarted: a Vault that is gone, comes back sealed, and is unsealed. One that
// was never initialized is as good as sealed.
func TestRestarted(t *testing.T) {
	s := start(t)
	o := s.options(plain)
	k, key := client(t, o), secret.Random(32)
	wrapped := wrap(t, k, key)
	s.down()
	refuses(t, k, wrapped, thisNode, kek.ErrDown, "")
	s.up()
	refuses(t, k, wrapped, thisNode, kek.ErrSealed, "")
	s.open()
	opens(t, k, wrapped, key)

	s.down()
	s.storage = emptyStorage(t)
	s.up()
	refuses(t, k, wrapped, thisNode, kek.ErrSealed, "")
}

// TestNamespace: the community edition has none, and ignores that one is asked for.
func TestNamespace(t *testing.T) {
	s := start(t)
	o, key := s.options(plain), secret.Random(32)
	wrapped := wrap(t, client(t, o), key)
	o.Namespace = "team-a"
	opens(t, client(t, o), wrapped, key)
}

// TestTokenIsRenewed: an agent replaces the file.
func TestTokenIsRenewed(t *testing.T) {
	s := start(t)
	o := s.options(plain)
	k, key := client(t, o), secret.Random(32)
	wrapped := wrap(t, k, key)
	good, err := os.ReadFile(o.TokenFile)
	if err != nil {
		t.Fatal(err)
	}
	s.write(o.TokenFile, "hvs.nobody-has-this")
	refuses(t, k, wrapped, thisNode, kek.ErrDenied, "")
	s.write(o.TokenFile, string(good))
	opens(t, k, wrapped, key)
}
