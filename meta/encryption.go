package meta

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/secret"
)

// Encryption is how STATE is encrypted, the value of [StateEncryptionConfig].
// META holds it because the machine configuration lies on STATE. Nil means not
// encrypted.
//
// Nothing here is checked that belongs to the configuration: ciphers, sizes and
// endpoints are as they were written.
type Encryption struct {
	Cipher        string // "" is the default
	KeySize       uint   // bits; 0 is the default
	BlockSize     uint64 // sector size in bytes; 0 is the default
	PerfOptions   []string
	AllowDiscards bool
	Keys          []Key // in the order they were written
}

// Key is one key of STATE. It has exactly one of Static, NodeID, KMS, TPM and
// Unknown.
type Key struct {
	Slot        int           // 0 to 31
	Static      *secret.Bytes // the passphrase, which may be empty
	NodeID      bool
	KMS         *KMS
	TPM         *TPM
	LockToState bool

	// Unknown is the member that holds a kind of key of a newer Talos, such as
	// "KeyRecovery". The key cannot be used here and its slot is not ours; that
	// the other keys can be used must not depend on it.
	Unknown string
}

// KMS is a key that a server seals.
type KMS struct {
	Endpoint string
}

// TPM is a key that the machine's TPM seals.
type TPM struct {
	// PCRs are as they were written, 0 to 23. Nil is Talos' default, PCR 7; empty
	// and not nil is none.
	PCRs            []int
	CheckSecureboot bool // refuse to enroll without Secure Boot
}

const (
	maxSlots = 32 // LUKS2_KEYSLOTS_MAX of cryptsetup
	maxPCRs  = 24 // TCG PC Client Platform TPM Profile, section 4.6
)

// Wipe wipes the passphrases.
func (e *Encryption) Wipe() {
	if e == nil {
		return
	}
	for _, k := range e.Keys {
		k.Static.Wipe()
	}
}

// kinds returns the kinds of the key, which should be one: "static", "nodeID",
// "kms", "tpm" or the name in Unknown.
func (k Key) kinds() (all []string) {
	for _, kind := range []struct {
		name  string
		there bool
	}{{"static", k.Static != nil}, {"nodeID", k.NodeID}, {"kms", k.KMS != nil}, {"tpm", k.TPM != nil}, {k.Unknown, k.Unknown != ""}} {
		if kind.there {
			all = append(all, kind.name)
		}
	}
	return all
}

// check applies the rules that hold for reading and for writing.
func (e *Encryption) check() error {
	if len(e.Keys) == 0 {
		return errors.New("there are no keys")
	}
	taken := map[int]int{}
	for i, k := range e.Keys {
		other, twice := taken[k.Slot]
		switch kinds := k.kinds(); {
		case k.Slot < 0 || k.Slot >= maxSlots:
			return fmt.Errorf("key %d: %d is not a slot; slots are 0 to %d", i+1, k.Slot, maxSlots-1)
		case twice:
			return fmt.Errorf("key %d: slot %d is also that of key %d", i+1, k.Slot, other)
		case len(kinds) == 0:
			return fmt.Errorf("key %d (slot %d) has no kind", i+1, k.Slot)
		case len(kinds) > 1:
			return fmt.Errorf("key %d (slot %d) has several kinds: %s", i+1, k.Slot, strings.Join(kinds, ", "))
		case k.TPM != nil && (len(k.TPM.PCRs) > maxPCRs || slices.ContainsFunc(k.TPM.PCRs, func(n int) bool { return n < 0 || n >= maxPCRs })):
			return fmt.Errorf("key %d (slot %d) names PCRs that no TPM has; there are 0 to %d", i+1, k.Slot, maxPCRs-1)
		}
		taken[k.Slot] = i + 1
	}
	return nil
}
