package kek

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/core/cryptofmt"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/cryptctl/cryptctl/secret"
)

// Keyset is a KEK in a local file. Its methods may be called from many
// goroutines, and several processes may use one file.
type Keyset struct {
	path string

	mu     sync.RWMutex
	seen   fs.FileInfo // the file that the rest was read from
	head   header
	master *secret.Bytes
	keys   *keyset.Handle
	aead   tink.AEAD
}

// Create makes a keyset file with one version. It refuses to replace a file.
func Create(ctx context.Context, path string, s Secret) (*Keyset, error) {
	head, master, err := s.begin(ctx)
	if err != nil {
		return nil, fmt.Errorf("keyset %s: %w", path, err)
	}
	keys, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		master.Wipe()
		return nil, fmt.Errorf("keyset %s: %w", path, err)
	}
	k := &Keyset{path: path, head: head, master: master}
	lock, err := lockFile(path)
	if err == nil {
		defer lock.Close()
		err = k.save(keys, true)
	}
	if err != nil {
		master.Wipe()
		return nil, err
	}
	return k, nil
}

// Open reads a keyset file, and removes what a change that was killed has left of it.
func Open(ctx context.Context, path string, s Secret) (*Keyset, error) {
	if err := tidy(path); err != nil {
		return nil, err
	}
	f, info, err := readFile(path)
	if err != nil {
		return nil, err
	}
	master, err := s.derive(ctx, f.header)
	if err != nil {
		return nil, fmt.Errorf("keyset %s: %w", path, err)
	}
	k := &Keyset{path: path, head: f.header, master: master}
	if err := k.take(f, info); err != nil {
		master.Wipe()
		return nil, err
	}
	return k, nil
}

func tidy(path string) error {
	if _, err := os.Lstat(path + leftOver); err != nil {
		return nil
	}
	lock, err := lockFile(path) // it may be of a change that is going on
	if err != nil {
		return err
	}
	defer lock.Close()
	return cleanUp(path)
}

// Close wipes the master key. Tink's copies of the keys go with the garbage.
func (k *Keyset) Close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.master.Wipe()
	k.keys, k.aead, k.seen = nil, nil, nil
}

// Wrap encrypts a key under the newest version.
func (k *Keyset) Wrap(_ context.Context, key *secret.Bytes, associated []byte) ([]byte, error) {
	if n := key.Len(); n < 1 || n > maxKey {
		return nil, fmt.Errorf("wrap: a key of %d bytes; 1 to %d", n, maxKey)
	}
	p, _, err := k.fresh()
	if err != nil {
		return nil, err
	}
	return p.Encrypt(key.Bytes(), associated)
}

// Unwrap decrypts a key that any of the versions wrapped.
func (k *Keyset) Unwrap(_ context.Context, wrapped, associated []byte) (*secret.Bytes, error) {
	version := keysetVersion(wrapped)
	if version == "" || len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("%w: not made by a keyset", ErrNotAuthentic)
	}
	p, versions, err := k.fresh()
	if err != nil {
		return nil, err
	}
	if !versions.enabled(version) {
		return nil, fmt.Errorf("keyset %s: version %s: %w", k.path, version, ErrVersion)
	}
	key, err := p.Decrypt(wrapped, associated)
	if err != nil {
		return nil, fmt.Errorf("keyset %s: version %s: %w", k.path, version, ErrNotAuthentic)
	}
	return secret.Take(key), nil
}

// fresh returns the keys, read anew if the file was replaced.
func (k *Keyset) fresh() (tink.AEAD, Versions, error) {
	info, err := os.Stat(k.path)
	if err != nil {
		return nil, nil, err
	}
	k.mu.RLock()
	if k.seen != nil && same(k.seen, info) {
		defer k.mu.RUnlock()
		return k.aead, versionsOf(k.keys), nil
	}
	k.mu.RUnlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.load(); err != nil {
		return nil, nil, err
	}
	return k.aead, versionsOf(k.keys), nil
}

// load reads the file again with the master key that is known. The caller holds
// the lock.
func (k *Keyset) load() error {
	if k.master.Len() == 0 {
		return fmt.Errorf("keyset %s: was closed", k.path)
	}
	f, info, err := readFile(k.path)
	if err != nil {
		return err
	}
	if f.header != k.head {
		return fmt.Errorf("keyset %s: its passphrase or key file was changed; restart to read it anew", k.path)
	}
	return k.take(f, info)
}

// take decrypts a file's keyset and makes it the one in use.
func (k *Keyset) take(f keysetFile, info fs.FileInfo) error {
	master, err := newMaster(k.master)
	if err != nil {
		return err
	}
	keys, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(f.Keyset)), master, f.associated())
	if err != nil {
		return fmt.Errorf("keyset %s: wrong passphrase or key file, or the keyset file was changed", k.path)
	}
	p, err := aead.New(keys)
	if err != nil {
		return fmt.Errorf("keyset %s: %w", k.path, err)
	}
	k.keys, k.aead, k.seen = keys, p, info
	return nil
}

// save encrypts keys under the master key and replaces the file by them.
func (k *Keyset) save(keys *keyset.Handle, create bool) error {
	master, err := newMaster(k.master)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	f := keysetFile{header: k.head}
	if err := keys.WriteWithAssociatedData(keyset.NewBinaryWriter(&out), master, f.associated()); err != nil {
		return fmt.Errorf("keyset %s: %w", k.path, err)
	}
	f.Keyset = out.Bytes()
	if err := f.write(k.path, create); err != nil {
		return fmt.Errorf("keyset %s: %w", k.path, err)
	}
	return k.load()
}

// keysetVersion reads Tink's prefix of a ciphertext: a 1 and the key's id.
func keysetVersion(wrapped []byte) string {
	if len(wrapped) <= cryptofmt.TinkPrefixSize || wrapped[0] != cryptofmt.TinkStartByte {
		return ""
	}
	return nameOf(binary.BigEndian.Uint32(wrapped[1:]))
}

func nameOf(id uint32) string { return fmt.Sprintf("k%08x", id) }

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

var errNoVersion = errors.New("there is no such version")
