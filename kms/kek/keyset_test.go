package kek_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// cheap makes derivations that take no time.
var cheap = kdf.Target{Time: time.Millisecond, MaxMemoryKiB: 32, MaxCPUs: 1}

func passphrase(s string) kek.Secret {
	return kek.Secret{Passphrase: secret.Copy([]byte(s)), Target: cheap}
}

func keyFile(b byte) kek.Secret {
	return kek.Secret{KeyFile: secret.Copy(bytes.Repeat([]byte{b}, 32))}
}

func create(t testing.TB, path string, s kek.Secret) *kek.Keyset {
	t.Helper()
	k, err := kek.Create(t.Context(), path, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func open(t testing.TB, path string, s kek.Secret) *kek.Keyset {
	t.Helper()
	k, err := kek.Open(t.Context(), path, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// testWrapper is what every KEK must do.
func testWrapper(t *testing.T, w kek.Wrapper) {
	t.Helper()
	key := secret.Random(32)
	wrapped, err := w.Wrap(t.Context(), key, []byte("node a"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(wrapped, key.Bytes()) {
		t.Fatal("the key is in the clear")
	}
	if got, err := w.Unwrap(t.Context(), wrapped, []byte("node a")); err != nil || !got.Equal(key) {
		t.Fatalf("unwrap: %v", err)
	}
	if got, err := w.Unwrap(t.Context(), wrapped, []byte("node b")); !errors.Is(err, kek.ErrNotAuthentic) {
		t.Errorf("unwrap for another node: %v, %v", got, err)
	}
	changed := bytes.Clone(wrapped)
	changed[len(changed)-3] ^= 1
	if _, err := w.Unwrap(t.Context(), changed, []byte("node a")); !errors.Is(err, kek.ErrNotAuthentic) {
		t.Errorf("unwrap changed: %v", err)
	}
	for _, bad := range [][]byte{nil, {1}, []byte("vault:v0:x"), wrapped[:5], bytes.Repeat([]byte{1}, 1<<20)} {
		if got, err := w.Unwrap(t.Context(), bad, []byte("node a")); err == nil {
			t.Errorf("unwrap of %d bytes: %v", len(bad), got)
		}
	}
	for _, n := range []int{0, 1 << 20} {
		if _, err := w.Wrap(t.Context(), secret.New(n), nil); err == nil {
			t.Errorf("wrapped %d bytes", n)
		}
	}
}

// testRotation: old versions unwrap, the new one wraps.
func testRotation(t *testing.T, w interface {
	kek.Wrapper
	kek.Rotator
},
) {
	t.Helper()
	key := secret.Random(32)
	before, err := w.Wrap(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	old, err := w.Current(t.Context())
	if err != nil || kek.Version(before) != old || old == "" {
		t.Fatalf("current %q, wrapped by %q, %v", old, kek.Version(before), err)
	}
	version, err := w.Rotate(t.Context())
	if err != nil || version == old {
		t.Fatalf("rotated to %q: %v", version, err)
	}
	after, err := w.Wrap(t.Context(), key, nil)
	if err != nil || kek.Version(after) != version {
		t.Fatalf("wrapped by %q, want %q: %v", kek.Version(after), version, err)
	}
	for _, one := range [][]byte{before, after} {
		if got, err := w.Unwrap(t.Context(), one, nil); err != nil || !got.Equal(key) {
			t.Errorf("%s: %v", kek.Version(one), err)
		}
	}
}

func TestKeyset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	for name, s := range map[string]kek.Secret{"passphrase": passphrase("correct horse"), "key file": keyFile(3)} {
		t.Run(name, func(t *testing.T) {
			path := path + name
			k := create(t, path, s)
			testWrapper(t, k)
			testRotation(t, k)
			wrapped, err := k.Wrap(t.Context(), secret.Copy([]byte("key")), nil)
			if err != nil {
				t.Fatal(err)
			}
			again := open(t, path, s)
			if got, err := again.Unwrap(t.Context(), wrapped, nil); err != nil || string(got.Bytes()) != "key" {
				t.Errorf("after a restart: %v", err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if left, _ := filepath.Glob(path + ".new-*"); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			k.Close()
			if _, err := k.Wrap(t.Context(), secret.New(32), nil); err == nil {
				t.Error("wraps after Close")
			}
		})
	}
}

func TestKeysetIsNotReplacedByCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	create(t, path, keyFile(1))
	before, _ := os.ReadFile(path)
	if _, err := kek.Create(t.Context(), path, keyFile(2)); !errors.Is(err, os.ErrExist) {
		t.Errorf("create over it: %v", err)
	}
	if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
		t.Error("it was changed")
	}
}

func TestWrongSecret(t *testing.T) {
	dir := t.TempDir()
	pass, file := filepath.Join(dir, "pass"), filepath.Join(dir, "file")
	create(t, pass, passphrase("correct horse"))
	create(t, file, keyFile(1))
	for _, tt := range []struct {
		name, path string
		s          kek.Secret
		want       string
	}{
		{"wrong passphrase", pass, passphrase("wrong mule"), "wrong passphrase"},
		{"wrong key file", file, keyFile(2), "wrong passphrase or key file"},
		{"key file for a passphrase", pass, keyFile(1), "under a passphrase"},
		{"passphrase for a key file", file, passphrase("correct horse"), "under a key file"},
		{"short key file", file, kek.Secret{KeyFile: secret.New(31)}, "at least 32"},
		{"neither", file, kek.Secret{}, "one of them"},
		{"both", file, kek.Secret{KeyFile: secret.New(32), Passphrase: secret.New(3)}, "one of them"},
	} {
		_, err := kek.Open(t.Context(), tt.path, tt.s)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) || strings.Contains(err.Error(), "mule") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestEveryByteOfTheFile changes each byte: the file is refused or, where JSON
// has two spellings of the same, still opens the same key.
func TestEveryByteOfTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	k := create(t, path, keyFile(1))
	wrapped, err := k.Wrap(t.Context(), secret.Copy([]byte("key")), nil)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x20 // another letter case, or a space that is none
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := kek.Open(t.Context(), path, keyFile(1))
		if err != nil {
			refused++
			continue
		}
		if got, err := again.Unwrap(t.Context(), wrapped, nil); err != nil || string(got.Bytes()) != "key" {
			t.Fatalf("byte %d: opens and has another key: %v", i, err)
		}
		again.Close()
	}
	if refused < len(good)/2 {
		t.Errorf("%d of %d changes were refused", refused, len(good))
	}
}

func TestVersionsOfTwoProcesses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	one := create(t, path, keyFile(1))
	two := open(t, path, keyFile(1))
	key := secret.Random(32)
	wrapped, err := two.Wrap(t.Context(), key, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := kek.Version(wrapped)
	if err := one.Disable(old); err == nil {
		t.Fatal("the current version was disabled")
	}
	version, err := one.Rotate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if now, err := two.Wrap(t.Context(), key, nil); err != nil || kek.Version(now) != version {
		t.Errorf("the other process still wraps with %q: %v", kek.Version(now), err)
	}
	if err := one.Destroy(old); err == nil || !strings.Contains(err.Error(), "disable") {
		t.Errorf("destroyed while in use: %v", err)
	}
	if err := one.Disable(old); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Unwrap(t.Context(), wrapped, nil); !errors.Is(err, kek.ErrVersion) {
		t.Errorf("disabled elsewhere: %v", err)
	}
	if err := two.Enable(old); err != nil {
		t.Fatal(err)
	}
	if got, err := one.Unwrap(t.Context(), wrapped, nil); err != nil || !got.Equal(key) {
		t.Errorf("enabled again: %v", err)
	}
	if err := errors.Join(one.Disable(old), one.Destroy(old)); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Unwrap(t.Context(), wrapped, nil); !errors.Is(err, kek.ErrVersion) {
		t.Errorf("destroyed elsewhere: %v", err)
	}
	for _, bad := range []string{"", "k", "kzzzzzzzz", "k00000001", old + "x"} {
		if err := one.Enable(bad); err == nil {
			t.Errorf("enabled %q", bad)
		}
	}
}

func TestRotationsAtOnceAreAllKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek.json")
	create(t, path, keyFile(1))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			k := open(t, path, keyFile(1))
			for range 3 {
				if _, err := k.Rotate(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if v, err := open(t, path, keyFile(1)).Versions(); err != nil || len(v) != 13 {
		t.Errorf("%d versions, %v", len(v), err)
	}
}

func FuzzKeysetFile(f *testing.F) {
	dir := f.TempDir()
	for i, s := range []kek.Secret{keyFile(7), passphrase("x")} {
		path := filepath.Join(dir, string(rune('a'+i)))
		create(f, path, s)
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"format":"cryptctl-kek-keyset","version":1,"kdf":"argon2id","time":4294967295,"memory_kib":4294967295,"cpus":1,"salt":"AAAA"}`))
	path := filepath.Join(dir, "fuzzed")
	f.Fuzz(func(t *testing.T, text []byte) {
		var spent struct{ Time, Memory_kib uint32 }
		if json.Unmarshal(text, &spent) == nil && (spent.Time > 8 || spent.Memory_kib > 1024) && spent.Time < 1000 && spent.Memory_kib < 1<<27 {
			t.Skip("allowed, and slow")
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if k, err := kek.Open(t.Context(), path, keyFile(9)); err == nil {
			k.Close()
			t.Fatal("a key file that was never used opens it")
		}
	})
}
