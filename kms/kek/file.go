package kek

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	format      = "cryptctl-kek-keyset"
	maxFile     = 1 << 20
	masterSize  = 32
	saltSize    = 32
	minKeyFile  = 32 // bytes: 256 random bits
	hkdfKind    = "hkdf-sha256"
	hkdfPurpose = "cryptctl kek keyset master key v1"
)

// keysetFile is the file. Its header is authenticated with the keyset.
type keysetFile struct {
	header
	Keyset []byte `json:"keyset"` // Tink's EncryptedKeyset, binary
}

// header says how the master key is derived. It is comparable on purpose: the
// salt is text.
type header struct {
	Format    string `json:"format"`
	Version   int    `json:"version"`
	KDF       string `json:"kdf"` // "argon2id" of a passphrase, "hkdf-sha256" of a key file
	Time      uint32 `json:"time,omitempty"`
	MemoryKiB uint32 `json:"memory_kib,omitempty"`
	CPUs      uint32 `json:"cpus,omitempty"`
	Salt      string `json:"salt"` // base64
}

// associated binds the keyset to its header.
func (h header) associated() []byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings and numbers
	}
	return text
}

// Secret is what a keyset file is encrypted under: a passphrase, or the contents
// of a key file. Set one of them.
type Secret struct {
	Passphrase *secret.Bytes
	// KeyFile must be random and at least 32 bytes: it is not stretched.
	KeyFile *secret.Bytes
	// Target is what trying one passphrase shall cost a new file; see kdf.Target.
	Target kdf.Target
}

// begin makes the header of a new file, and its master key.
func (s Secret) begin(ctx context.Context) (header, *secret.Bytes, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	h := header{Format: format, Version: 1, KDF: hkdfKind, Salt: base64.StdEncoding.EncodeToString(salt)}
	if s.Passphrase.Len() > 0 {
		s.Target.Kind = kdf.Argon2id
		cost, err := kdf.Calibrate(ctx, s.Target)
		if err != nil {
			return header{}, nil, err
		}
		h.KDF, h.Time, h.MemoryKiB, h.CPUs = string(cost.Kind), cost.Time, cost.MemoryKiB, cost.CPUs
	}
	master, err := s.derive(ctx, h)
	return h, master, err
}

// derive returns the master key of a file with the header h, which is not to be
// trusted: kdf holds it against its limits.
func (s Secret) derive(ctx context.Context, h header) (*secret.Bytes, error) {
	salt, err := base64.StdEncoding.DecodeString(h.Salt)
	if err != nil || len(salt) != saltSize {
		return nil, errors.New("its salt is damaged")
	}
	switch {
	case (s.Passphrase.Len() > 0) == (s.KeyFile.Len() > 0):
		return nil, errors.New("give a passphrase or a key file, one of them and not empty")
	case h.KDF == string(kdf.Argon2id) && s.Passphrase.Len() > 0:
		p := kdf.Params{Salt: salt, Cost: kdf.Cost{Kind: kdf.Argon2id, Time: h.Time, MemoryKiB: h.MemoryKiB, CPUs: h.CPUs}}
		return p.Derive(ctx, s.Passphrase, masterSize, kdf.Limits{})
	case h.KDF == hkdfKind && s.KeyFile.Len() >= minKeyFile:
		key, err := hkdf.Key(sha256.New, s.KeyFile.Bytes(), salt, hkdfPurpose, masterSize)
		if err != nil {
			return nil, err
		}
		return secret.Take(key), nil
	case h.KDF == hkdfKind && s.KeyFile.Len() > 0:
		return nil, fmt.Errorf("a key file of %d bytes; at least %d, random", s.KeyFile.Len(), minKeyFile)
	case h.KDF == hkdfKind:
		return nil, errors.New("it is encrypted under a key file, and a passphrase was given")
	case h.KDF == string(kdf.Argon2id):
		return nil, errors.New("it is encrypted under a passphrase, and a key file was given")
	}
	return nil, fmt.Errorf("key derivation %.40q is not known", h.KDF)
}

func newMaster(key *secret.Bytes) (*subtle.AESGCM, error) {
	if key.Len() != masterSize {
		return nil, errors.New("keyset: was closed")
	}
	return subtle.NewAESGCM(bytes.Clone(key.Bytes())) // it keeps the slice
}

// parseFile reads the file's JSON, strictly: what is not understood would not be
// authenticated either.
func parseFile(text []byte) (keysetFile, error) {
	var f keysetFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return keysetFile{}, fmt.Errorf("not a keyset file: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return keysetFile{}, errors.New("not a keyset file: more follows its object")
	}
	if f.Format != format {
		return keysetFile{}, fmt.Errorf("not a keyset file: format %.40q", f.Format)
	}
	if f.Version != 1 {
		return keysetFile{}, fmt.Errorf("version %d of the format, known is 1; it needs a newer program", f.Version)
	}
	return f, nil
}

func readFile(path string) (keysetFile, fs.FileInfo, error) {
	in, err := os.Open(path)
	if err != nil {
		return keysetFile{}, nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return keysetFile{}, nil, err
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return keysetFile{}, nil, fmt.Errorf("keyset %s: %w", path, err)
	}
	f, err := parseFile(text)
	if err != nil {
		return keysetFile{}, nil, fmt.Errorf("keyset %s: %w", path, err)
	}
	return f, info, nil
}

const leftOver = ".new" // the copy of a change, until it is renamed; the lock's owner's

// cleanUp removes the copy of a change that was killed: it opens under the same
// passphrase, and keeps a version that is destroyed later.
func cleanUp(path string) error {
	err := os.Remove(path + leftOver)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lockFile keeps others from changing the file, until what it returns is closed. The
// lock is a file of its own that is never replaced.
func lockFile(path string) (*os.File, error) {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		lock.Close()
		return nil, fmt.Errorf("keyset %s: lock: %w", path, err)
	}
	return lock, nil
}

// write makes the file, or replaces it in one step. The caller has the lock.
func (f keysetFile) write(path string, create bool) error {
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	if err := cleanUp(path); err != nil {
		return err
	}
	tmp, err := os.OpenFile(path+leftOver, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // fails when it was renamed
	_, err = tmp.Write(append(text, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if create { // a link, unlike a rename, replaces nothing
		err = os.Link(tmp.Name(), path)
	} else {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}
