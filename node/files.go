package node

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/internal/durable"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/volume"
)

// files are what the node keeps in STATE. Each is written whole or not at all:
//
//	config.yaml               the machine configuration, as in Talos
//	encryption-salt.yaml      for keys with lockToState, as in Talos
//	cryptctl/identities.json  which volume each volume is
//	cryptctl/former/*.yaml    configurations whose keys headers may still have
type files struct {
	dir    string
	before func(step string) error
}

const (
	configFile   = "config.yaml"
	saltFile     = "encryption-salt.yaml"
	identityFile = "cryptctl/identities.json"
	formerDir    = "cryptctl/former"
)

// write replaces a file, durably.
func (f files) write(name string, data []byte) error {
	if err := f.before(name); err != nil {
		return err
	}
	path := filepath.Join(f.dir, name)
	dir := filepath.Dir(path)
	for _, made := range []string{filepath.Dir(dir), dir} { // as deep as names go
		if err := makeDir(made); err != nil {
			return err
		}
	}
	tmp, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return durable.SyncDir(dir)
}

// makeDir makes a directory, durably, unless it is there.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(dir))
}

// reader parses a configuration; see [Node.read].
type reader func(name string, text []byte) (*machine, error)

// config returns the stored configuration, nil when there is none.
func (f files) config(read reader) (*machine, error) {
	text, err := os.ReadFile(filepath.Join(f.dir, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return read(filepath.Join(f.dir, configFile), text)
}

// former returns the configurations whose keys headers may still have, and
// why others cannot be read, which are passed over.
func (f files) former(read reader) (all []*machine, unread []error) {
	paths, _ := filepath.Glob(filepath.Join(f.dir, formerDir, "*.yaml"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		m, err := read(path, text)
		clear(text)
		if err != nil {
			unread = append(unread, err)
			continue
		}
		all = append(all, m)
	}
	return all, unread
}

// keepFormer writes a configuration down as one whose keys headers may have.
func (f files) keepFormer(m *machine) error {
	if m == nil {
		return nil
	}
	return f.write(formerName(m), m.text.Bytes())
}

// setAside keeps a stored configuration that cannot be read here among the former
// ones: it may have the only keys of a volume, and another version may read it.
func (f files) setAside() error {
	text, err := os.ReadFile(filepath.Join(f.dir, configFile))
	if err != nil {
		return err
	}
	defer clear(text)
	return f.write(formerText(text), text)
}

func formerName(m *machine) string { return formerText(m.text.Bytes()) }

func formerText(text []byte) string {
	sum := sha256.Sum256(text)
	return filepath.Join(formerDir, hex.EncodeToString(sum[:8])+".yaml")
}

// dropFormer is for when no header needs a configuration any more.
func (f files) dropFormer(m *machine) error {
	name := formerName(m)
	if err := f.before("drop " + name); err != nil {
		return err
	}
	path := filepath.Join(f.dir, name)
	if err := os.Remove(path); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(path))
}

func (f files) identities() (map[string]*volume.Identity, error) {
	all := map[string]*volume.Identity{}
	text, err := os.ReadFile(filepath.Join(f.dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err == nil && all == nil {
		err = errors.New("it holds null")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, identityFile), err)
	}
	return all, nil
}

// record notes which volume a volume is; nil that it is none: wiped, or plain.
func (f files) record(name string, id *volume.Identity) error {
	all, err := f.identities()
	if err != nil {
		return err
	}
	if old, seen := all[name]; seen && (old == id || old != nil && id != nil && *old == *id) {
		return nil
	}
	all[name] = id
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return f.write(identityFile, text)
}

// salt returns the salt of keys that are locked to STATE; nil when there is none,
// unless it is to be made.
func (f files) salt(make bool) (*secret.Bytes, error) {
	path := filepath.Join(f.dir, saltFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return config.ReadSalt(path)
	}
	if !make {
		return nil, nil
	}
	salt := secret.Random(keys.SaltSize)
	text := config.FormatSalt(salt)
	defer text.Wipe()
	if err := f.write(saltFile, text.Bytes()); err != nil {
		salt.Wipe()
		return nil, err
	}
	return salt, nil
}
