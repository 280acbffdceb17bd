package tpm

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestStorageKeys finds the key of each template again by its Name, whatever is
// recorded, uses a persistent one, and leaves a foreign persistent one alone.
func TestStorageKeys(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	l := &link{context.Background(), m}
	names := map[string]string{}
	for _, tmpl := range templates() {
		k, err := createPrimary(l, tmpl)
		if err != nil {
			t.Fatalf("%s: %v", tmpl.name, err)
		}
		k.flush()
		if other := names[string(k.name.Buffer)]; other != "" {
			t.Errorf("%s and %s are the same key", other, tmpl.name)
		}
		names[string(k.name.Buffer)] = tmpl.name
		for _, recorded := range []string{tmpl.name, "", templatePersistent, "of another program"} {
			found, err := findStorageKey(l, k.name.Buffer, recorded)
			if err != nil || found.template != tmpl.name || !bytes.Equal(found.name.Buffer, k.name.Buffer) {
				t.Errorf("%s, recorded as %q: found %q, %v", tmpl.name, recorded, found.template, err)
				continue
			}
			found.flush()
		}
	}
	keep(t, m, templates()[2])
	for name, want := range names {
		found, err := findStorageKey(l, []byte(name), want)
		if err != nil {
			t.Fatal(err)
		}
		if kept := found.handle == srkHandle; kept != (want == "systemd-ecc") {
			t.Errorf("%s: the persistent key was used: %v", want, kept)
		}
		found.flush()
	}
	if k, err := persistent(l); err != nil || names[string(k.name.Buffer)] != "systemd-ecc" {
		t.Errorf("the foreign persistent key is no longer there: %v", err)
	}
	if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
		t.Errorf("loaded are still %x", loaded)
	}
}

// keep makes a key persistent, as an operating system does it.
func keep(t *testing.T, m *tpmtest.Machine, tmpl template) {
	t.Helper()
	l := &link{context.Background(), m}
	k, err := createPrimary(l, tmpl)
	if err != nil {
		t.Fatal(err)
	}
	defer k.flush()
	_, err = tpm2.EvictControl{
		Auth:             tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		ObjectHandle:     tpm2.NamedHandle{Handle: k.handle, Name: k.name},
		PersistentHandle: tpm2.TPMIDHPersistent(srkHandle),
	}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
}

// TestOwnerPassword: where the owner hierarchy has a password, the persistent key
// is sealed under, and found again; without one the error says what to do.
func TestOwnerPassword(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	tpmtest.Extend(t, m, 7, "x")
	l := &link{context.Background(), m}
	lock := func() {
		_, err := tpm2.HierarchyChangeAuth{
			AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
			NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("owner")},
		}.Execute(m)
		if err != nil {
			t.Fatal(err)
		}
	}
	before, err := seal(l, testPlan(nil))
	if err != nil {
		t.Fatal(err)
	}
	keep(t, m, templates()[0])
	lock()
	if _, err := before.unseal(l, nil); err != nil {
		t.Errorf("a seal under a key that became persistent: %v", err)
	}
	after, err := seal(l, testPlan(nil))
	if err != nil || after.template != templatePersistent {
		t.Errorf("a seal under the persistent key, of template %q: %v", after.template, err)
	}
	other := tpmtest.Start(t)
	tpmtest.Extend(t, other, 7, "x")
	m, l = other, &link{context.Background(), other}
	lock()
	if _, err := seal(l, testPlan(nil)); ReasonOf(err) != Faulty || !strings.Contains(err.Error(), "owner hierarchy has a password") {
		t.Errorf("no key and no way to make one: %v", err)
	}
}

// TestIsStorage: only a key that protects other keys, and nothing else, may be
// what a session is salted to.
func TestIsStorage(t *testing.T) {
	t.Parallel()
	for _, tmpl := range templates() {
		if err := isStorage(tmpl.public); err != nil {
			t.Errorf("%s: %v", tmpl.name, err)
		}
	}
	for name, change := range map[string]func(*tpm2.TPMTPublic){
		"decrypts for anyone":    func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false },
		"does not decrypt":       func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = false },
		"signs":                  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = true },
		"may leave the TPM":      func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false },
		"may be moved":           func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false },
		"was made elsewhere":     func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false },
		"is no asymmetric key":   func(p *tpm2.TPMTPublic) { p.Type = tpm2.TPMAlgKeyedHash },
		"has Names of SHA-1":     func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 },
		"has Names of no digest": func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgNull },
	} {
		p := tpm2.ECCSRKTemplate
		change(&p)
		if isStorage(p) == nil {
			t.Errorf("a key that %s is taken", name)
		}
	}
}
