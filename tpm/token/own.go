package token

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// The types of the tokens, as LUKS2 has them.
const (
	TypeOwn     = "cryptctl-tpm2"
	TypeTalos   = "talos-tpm2"
	TypeSystemd = "systemd-tpm2"
)

// ownVersion is the version of our token that this package writes and reads.
const ownVersion = 1

// Own is our token:
//
//	{"type": "cryptctl-tpm2", "keyslots": ["0"], "version": 1,
//	 "private": BLOB, "public": BLOB,          the sealed key, of 32 random bytes
//	 "srk": {"template": NAME, "public": BLOB},   its parent, pinned
//	 "ek": BLOB,                               Name of the endorsement key
//	 "policy": {"pcrs": {"7": 8 BYTES}, ...},  what the policy in public means
//	 "envelope": BLOB,                         nonce, ciphertext, tag
//	 "record": BLOB}                           what made the PCRs' values, for people
//
// BLOB is standard base64. The policy's digest is not repeated: it stands in the
// public area of the sealed key, as does the Name of the parent in its own.
type Own struct {
	Slot     int
	Sealed   Sealed
	Parent   Parent
	EK       []byte // Name of the endorsement key; empty when it could not be asked
	Policy   OwnPolicy
	Envelope []byte

	// Record is a packed eventlog.Record of the policy's PCRs. Nothing depends on it:
	// whatever stands there, the token is read. Nil is none; empty, and not nil, is
	// one that cannot be read, and is not written again.
	Record []byte
}

// Sealed is an object that the TPM made.
type Sealed struct {
	Private []byte // TPM2B_PRIVATE without its size
	Public  []byte // TPMT_PUBLIC
}

// Parent is the storage root key that an object was made under.
type Parent struct {
	Template string `json:"template"` // what to make the key from again
	Public   []byte `json:"public"`   // TPMT_PUBLIC
}

// OwnPolicy says in words what a policy digest means. The PCRs' values are cut to
// PrefixSize bytes: enough to tell which one changed.
type OwnPolicy struct {
	PCRs   map[int][]byte `json:"pcrs,omitempty"`
	Latch  bool           `json:"latch,omitempty"`
	Signed *OwnSigned     `json:"signed,omitempty"`
	PIN    *OwnPIN        `json:"pin,omitempty"`
}

// PrefixSize is how much of a PCR's value is kept.
const PrefixSize = 8

// OwnSigned is the part of a policy that a signature fills in.
type OwnSigned struct {
	Key  []byte `json:"key"` // who signs: the public key, PKIX
	PCRs []int  `json:"pcrs"`
}

// OwnPIN is how a PIN is stretched, with Argon2id in one lane.
type OwnPIN struct {
	Salt      []byte `json:"salt"`
	Time      uint32 `json:"time"`
	MemoryKiB uint32 `json:"memory"`
}

type ownJSON struct {
	Type     string    `json:"type"`
	Keyslots []string  `json:"keyslots"`
	Version  int       `json:"version"`
	Private  []byte    `json:"private"`
	Public   []byte    `json:"public"`
	SRK      Parent    `json:"srk"`
	EK       []byte    `json:"ek,omitempty"`
	Policy   OwnPolicy `json:"policy"`
	Envelope []byte    `json:"envelope"`
	Record   *blob     `json:"record,omitempty"`
}

// blob is base64 that may be anything else too, and is empty then.
type blob []byte

// UnmarshalJSON implements [json.Unmarshaler]; it never fails.
func (b *blob) UnmarshalJSON(text []byte) error {
	var read []byte
	if json.Unmarshal(text, &read) != nil || len(read) > maxBlob {
		read = nil
	}
	*b = append(blob{}, read...)
	return nil
}

// Encode gives the token as it stands in a header.
func (o Own) Encode() (json.RawMessage, error) {
	j := ownJSON{
		TypeOwn,
		[]string{strconv.Itoa(o.Slot)},
		ownVersion,
		o.Sealed.Private, o.Sealed.Public, o.Parent, o.EK, o.Policy, o.Envelope, nil,
	}
	if len(o.Record) > 0 {
		j.Record = (*blob)(&o.Record)
	}
	return json.Marshal(j)
}

// ReadOwn reads one of our tokens.
func ReadOwn(raw json.RawMessage) (Own, error) {
	var j ownJSON
	if err := decode(raw, TypeOwn, &j); err != nil {
		return Own{}, err
	}
	slot, err := slotOf(j.Keyslots)
	if err != nil {
		return Own{}, err
	}
	if j.Version != ownVersion {
		return Own{}, fmt.Errorf("version %d of a %s token; this program knows version %d, use a newer one", j.Version, TypeOwn, ownVersion)
	}
	o := Own{slot, Sealed{j.Private, j.Public}, j.SRK, j.EK, j.Policy, j.Envelope, nil}
	if j.Record != nil {
		o.Record = *j.Record
	}
	return o, o.check()
}

func (o Own) check() error {
	p := o.Policy
	for pcr, prefix := range p.PCRs {
		if pcr < 0 || pcr > 23 || len(prefix) != PrefixSize {
			return fmt.Errorf("PCR %d of the policy with %d bytes of its value", pcr, len(prefix))
		}
	}
	if p.Signed != nil && (len(p.Signed.Key) == 0 || len(p.Signed.Key) > maxBlob || len(p.Signed.PCRs) == 0) {
		return fmt.Errorf("a signed policy without a key or PCRs")
	}
	if p.PIN != nil && (len(p.PIN.Salt) < 16 || len(p.PIN.Salt) > 64) {
		return fmt.Errorf("a PIN salt of %d bytes", len(p.PIN.Salt))
	}
	if o.Parent.Template == "" {
		return fmt.Errorf("no template of the storage root key")
	}
	return checkBlobs(o.Sealed.Private, o.Sealed.Public, o.Parent.Public, o.Envelope)
}
