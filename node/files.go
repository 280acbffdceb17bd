package node

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/luks"
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
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".new-*") // which only its owner may read
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
	return luks.SyncDir(dir)
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

// former returns the configurations whose keys headers may still have. One that
// cannot be read is passed over.
func (f files) former(read reader) (all []*machine) {
	paths, _ := filepath.Glob(filepath.Join(f.dir, formerDir, "*.yaml"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if m, err := read(path, text); err == nil {
			all = append(all, m)
		}
		clear(text)
	}
	return all
}

// keepFormer writes a configuration down as one whose keys headers may have.
func (f files) keepFormer(m *machine) error {
	if m == nil {
		return nil
	}
	sum := sha256.Sum256(m.text)
	return f.write(filepath.Join(formerDir, hex.EncodeToString(sum[:8])+".yaml"), m.text)
}

// dropFormer is for when all headers are in step.
func (f files) dropFormer() error {
	dir := filepath.Join(f.dir, formerDir)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := f.before("drop " + formerDir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return luks.SyncDir(filepath.Dir(dir))
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
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(f.dir, identityFile), err)
	}
	return all, nil
}

// record notes which volume a volume is; nil forgets it.
func (f files) record(name string, id *volume.Identity) error {
	all, err := f.identities()
	if err != nil {
		return err
	}
	if old := all[name]; old == id || old != nil && id != nil && *old == *id {
		return nil
	}
	if all[name] = id; id == nil {
		delete(all, name)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return f.write(identityFile, text)
}

// salt returns the salt of keys that are locked to STATE, which is made when it
// is needed first.
func (f files) salt() (*secret.Bytes, error) {
	path := filepath.Join(f.dir, saltFile)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return config.ReadSalt(path)
	}
	salt := secret.Random(32)
	var text bytes.Buffer
	text.WriteString("diskSalt:\n")
	for _, b := range salt.Bytes() {
		fmt.Fprintf(&text, "    - %d\n", b)
	}
	err := f.write(saltFile, text.Bytes())
	clear(text.Bytes())
	if err != nil {
		salt.Wipe()
		return nil, err
	}
	return salt, nil
}
