// Package provide turns the keys of a machine configuration into keys with a
// provider: the one place that knows which kinds of keys this build has.
//
//	config.Key (slot, kind, parameters) ──Keys──> keys.Key (slot, kind, Provider)
//	                     Machine (UUID, salt) ──┘
//
// A key of a kind that cannot be had here, or that is locked to a STATE which is
// not open, gets a provider that says so: the volume's other keys are used.
package provide

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
)

// Machine is what keys depend on besides the configuration.
type Machine struct {
	UUID   string // of the node, for nodeID keys; see [FirmwareUUID]
	Strict bool   // refuse UUIDs that are known junk when a nodeID key is made
	// Salt is appended to passphrases that are locked to STATE; nil where STATE
	// is not open. NoSalt then says what to do about it.
	Salt   *secret.Bytes
	NoSalt string

	// KMS is what clients of key servers have beside the configuration, which comes
	// first: before STATE is open it names endpoints only, so that whatever else they
	// need, such as the authorities of a boot image, is here.
	KMS kms.Options
	// TrustedRoots are what the configuration trusts beside that, as PEM. They are
	// for keys that name no authorities of their own; not for those of STATE, which
	// opens before the configuration is read.
	TrustedRoots []byte

	TPM      *tpm.Device                                  // of tpm keys; default [tpm.System]
	Boot     func() (tpm.Boot, error)                     // signed PCR policies; default [tpm.ReadBoot]
	PIN      func(context.Context) (*secret.Bytes, error) // asks for the PIN of the TPM; nil when there is nobody to ask
	Firmware string                                       // folder with the EFI variables; default [secureboot.Path]
	EventLog func() (*eventlog.Log, error)                // of the TPM, for records in tokens; default as in [tpm.Options]
}

// Keys returns the keys of one volume. They share passphrases and the salt with
// what they were made from.
func (m Machine) Keys(entries []config.Key) []keys.Key {
	if m.TPM == nil {
		m.TPM = tpm.System() // one for all, which take turns
	}
	var out []keys.Key
	for _, entry := range entries {
		out = append(out, m.key(entry))
	}
	return out
}

func (m Machine) key(entry config.Key) keys.Key {
	key := keys.Key{Slot: entry.Slot, Kind: entry.Kind()}
	switch {
	case entry.Static != nil:
		key.Provider = keys.Static{Passphrase: entry.Static.Passphrase}
	case entry.NodeID != nil:
		key.Provider = keys.NodeID{UUID: m.UUID, Strict: m.Strict}
	case entry.KMS != nil:
		m.served(entry.KMS, &key)
	case entry.TPM != nil:
		m.sealed(entry.TPM, &key)
	default:
		key.Provider = Lacking("the kind of the key is not known here")
	}
	switch {
	case !entry.LockToState:
	case m.Salt == nil:
		key.Provider = Lacking("the key is locked to STATE: " + m.NoSalt)
	default:
		key.Provider = keys.Salted{Provider: key.Provider, Salt: m.Salt}
	}
	return key
}

// Lacking is the provider of a key that cannot be had, and says why.
type Lacking string

func (l Lacking) err() error { return fmt.Errorf("%w: %s", keys.ErrUnavailable, string(l)) }

// Enroll implements [keys.Provider]; it always fails.
func (l Lacking) Enroll(context.Context, keys.Request) (*secret.Bytes, json.RawMessage, error) {
	return nil, nil, l.err()
}

// Recover implements [keys.Provider]; it always fails.
func (l Lacking) Recover(context.Context, keys.Request, json.RawMessage) (*secret.Bytes, error) {
	return nil, l.err()
}
