package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/cryptctl/cryptctl/kms/kek"
)

// kmsKeyFile is what opens the keyset unless something else is said.
const kmsKeyFile = "key_file: kek.key"

// kmsKEK is what wraps the nodes' keys: a keyset, or Transit. A nil field was not
// given.
type kmsKEK struct {
	Keyset         *string     `yaml:"keyset"`
	KeyFile        *string     `yaml:"key_file"`
	Passphrase     *string     `yaml:"passphrase"`
	PassphraseFile *string     `yaml:"passphrase_file"`
	Transit        *kmsTransit `yaml:"transit"`
}

// kmsTransit is a key of Vault or OpenBao.
type kmsTransit struct {
	Address     string        `yaml:"address"`
	Mount       string        `yaml:"mount"`
	Namespace   string        `yaml:"namespace"`
	Key         string        `yaml:"key"`
	TokenFile   string        `yaml:"token_file"`
	Authorities string        `yaml:"authorities"`
	Derived     bool          `yaml:"derived"`
	Timeout     time.Duration `yaml:"timeout"`
}

// fill takes what was not given from usual.
func (k *kmsKEK) fill(usual kmsKEK) {
	if k.Transit != nil {
		return
	}
	if k.Keyset == nil {
		k.Keyset = usual.Keyset
	}
	if len(k.sources()) == 0 {
		k.KeyFile = usual.KeyFile
	}
}

// sources are the fields that say what opens the keyset.
func (k *kmsKEK) sources() (names []string) {
	for _, f := range []struct {
		name  string
		value *string
	}{{"key_file", k.KeyFile}, {"passphrase_file", k.PassphraseFile}, {"passphrase", k.Passphrase}} {
		if f.value != nil {
			names = append(names, f.name)
		}
	}
	return names
}

func (k *kmsKEK) check() error {
	sources := k.sources()
	switch {
	case k.Transit != nil && (k.Keyset != nil || len(sources) > 0):
		return errors.New("kek: transit and a keyset exclude each other: the key is in Vault or in a file; keep one of them")
	case k.Transit != nil:
		return k.Transit.check()
	case len(sources) > 1:
		return fmt.Errorf("kek: %s and %s both say what opens the keyset; keep one of them", sources[0], sources[1])
	case *k.Keyset == "":
		return emptyField("kek.keyset")
	case k.KeyFile != nil && *k.KeyFile == "":
		return emptyField("kek.key_file")
	case k.PassphraseFile != nil && *k.PassphraseFile == "":
		return errors.New("kek.passphrase_file: is empty; give the name of a file that holds the passphrase")
	case k.Passphrase != nil && *k.Passphrase != "ask": // what it is is not quoted
		return errors.New("kek.passphrase: a passphrase does not belong here, where it is copied and backed up; write ask, to be asked for it, or passphrase_file")
	}
	return nil
}

func (t *kmsTransit) check() error {
	u, err := url.Parse(t.Address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" || u.User != nil: // it is not quoted: a password may be in it
		return errors.New("kek.transit.address: must look like https://vault.example:8200, https and without a user")
	case t.Key == "":
		return errors.New("kek.transit.key: is missing; give the name of the key in the transit engine")
	case t.TokenFile == "":
		return errors.New("kek.transit.token_file: is missing; give a file that holds a token, which may be renewed while the server runs")
	case t.Timeout < 0:
		return fmt.Errorf("kek.transit.timeout: %s; a duration such as 5s", t.Timeout)
	}
	return nil
}

func (k *kmsKEK) paths() []*string {
	if t := k.Transit; t != nil {
		return []*string{&t.TokenFile, &t.Authorities}
	}
	return []*string{k.Keyset, k.KeyFile, k.PassphraseFile}
}

// wrapper is what a key server needs of a key-encryption key.
type wrapper interface {
	kek.Wrapper
	kek.Rotator
}

// open opens the keyset, or says how Transit is asked: it need not be there. name
// is what operators call the kind.
func (k *kmsKEK) open(ctx context.Context) (w wrapper, name string, free func(), err error) {
	if t := k.Transit; t != nil {
		w, err := kek.NewTransit(kek.TransitOptions{
			Address: t.Address, Mount: t.Mount, Namespace: t.Namespace, Key: t.Key,
			TokenFile: t.TokenFile, CAFile: t.Authorities, Derived: t.Derived, Timeout: t.Timeout,
		})
		if err != nil {
			return nil, "", nil, err
		}
		return w, "vault", func() {}, nil
	}
	s, err := k.secret(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	defer s.wipe()
	set, err := kek.Open(ctx, *k.Keyset, s.Secret)
	if errors.Is(err, os.ErrNotExist) {
		return nil, "", nil, fmt.Errorf("%w; put it back from its backup: without it no node's key in the store can be unwrapped, and a new one opens none of them", err)
	}
	if err != nil {
		return nil, "", nil, err
	}
	return set, "file", set.Close, nil
}

// keysetSecret is what opens a keyset.
type keysetSecret struct{ kek.Secret }

func (s keysetSecret) wipe() {
	s.Passphrase.Wipe()
	s.KeyFile.Wipe()
}

func (k *kmsKEK) secret(ctx context.Context) (s keysetSecret, err error) {
	switch {
	case k.KeyFile != nil:
		if s.KeyFile, err = readKey(ctx, *k.KeyFile); err != nil {
			err = fmt.Errorf("%w; it opens the keyset %s: put it back from where it was kept apart from that (kek.key_file)", err, *k.Keyset)
		}
	case k.PassphraseFile != nil:
		if s.Passphrase, err = readKey(ctx, *k.PassphraseFile); err != nil {
			err = fmt.Errorf("%w; it opens the keyset %s (kek.passphrase_file)", err, *k.Keyset)
		}
	default:
		s.Passphrase, err = ask(ctx, "Passphrase of "+*k.Keyset+": ",
			"the passphrase of "+*k.Keyset+" is asked for on a terminal, and there is none; give it in a file with kek.passphrase_file, such as a systemd credential")
	}
	return s, err
}
