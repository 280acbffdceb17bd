package kek

import (
	"context"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// VersionInfo is one version of a keyset.
type VersionInfo struct {
	Name    string
	Current bool // it wraps
	Enabled bool // it unwraps
}

// Versions are those of a keyset, oldest first.
type Versions []VersionInfo

func (v Versions) enabled(name string) bool {
	for _, one := range v {
		if one.Name == name {
			return one.Enabled
		}
	}
	return false
}

func versionsOf(h *keyset.Handle) (out Versions) {
	for i := range h.Len() {
		e, err := h.Entry(i)
		if err != nil {
			continue
		}
		out = append(out, VersionInfo{nameOf(e.KeyID()), e.IsPrimary(), e.KeyStatus() == keyset.Enabled})
	}
	return out
}

// Versions lists the versions in the file.
func (k *Keyset) Versions() (Versions, error) {
	_, v, err := k.fresh()
	return v, err
}

// Current returns the version that wraps.
func (k *Keyset) Current(context.Context) (string, error) {
	_, v, err := k.fresh()
	for _, one := range v {
		if one.Current {
			return one.Name, err
		}
	}
	return "", err
}

// Rotate adds a version, which wraps from now on. Old ones still unwrap.
func (k *Keyset) Rotate(context.Context) (version string, err error) {
	err = k.change(func(m *keyset.Manager) error {
		id, err := m.Add(aead.AES256GCMKeyTemplate())
		if err != nil {
			return err
		}
		version = nameOf(id)
		return m.SetPrimary(id)
	})
	if err != nil {
		return "", err
	}
	return version, nil
}

// Disable makes a version unwrap no more, in every process that uses the file.
// It can be taken back by Enable. The current version cannot be disabled.
func (k *Keyset) Disable(version string) error {
	return k.changeOne(version, (*keyset.Manager).Disable)
}

// Enable takes back a Disable.
func (k *Keyset) Enable(version string) error {
	return k.changeOne(version, (*keyset.Manager).Enable)
}

// Destroy removes a version for good. What it wrapped is lost, so it must be
// disabled first, and then proven that nothing is: see keeper.RetireKEK.
func (k *Keyset) Destroy(version string) error {
	all, err := k.Versions()
	if err != nil {
		return err
	}
	if all.enabled(version) {
		return fmt.Errorf("keyset %s: version %s is in use; disable it first", k.path, version)
	}
	return k.changeOne(version, (*keyset.Manager).Delete)
}

func (k *Keyset) changeOne(version string, do func(*keyset.Manager, uint32) error) error {
	var id uint32
	if n, err := fmt.Sscanf(version, "k%08x", &id); n != 1 || err != nil || nameOf(id) != version {
		return fmt.Errorf("keyset %s: version %q: %w", k.path, version, errNoVersion)
	}
	return k.change(func(m *keyset.Manager) error {
		if err := do(m, id); err != nil {
			return fmt.Errorf("keyset %s: version %s: %w", k.path, version, err)
		}
		return nil
	})
}

// change edits the newest state of the file. The lock keeps two processes from
// losing each other's version.
func (k *Keyset) change(edit func(*keyset.Manager) error) error {
	lock, err := lockFile(k.path)
	if err != nil {
		return err
	}
	defer lock.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		return err
	}
	m := keyset.NewManagerFromHandle(k.keys)
	if err := edit(m); err != nil {
		return err
	}
	keys, err := m.Handle()
	if err != nil {
		return err
	}
	return k.save(keys, false)
}
