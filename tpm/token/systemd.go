package token

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
)

// Systemd is the token of systemd-cryptenroll. What is sealed are 32 random
// bytes; the passphrase is their base64.
type Systemd struct {
	Slot   int
	Sealed Sealed
	PCRs   []int  // literal; may be none
	Bank   string // sha1, sha256, ...; "" before version 250: to be found out
	Alg    string // of the storage root key: ecc or rsa
	Digest []byte // of the policy
	PIN    bool
	// Key is the PEM text of the key that signs PCR policies, since 252.
	Key    []byte
	Signed []int // PCRs that the signature is about
	Salt   []byte
	// Parent is the storage root key, since 254: its Name and public area.
	ParentName, ParentPublic []byte
}

// systemdJSON has the mixture of hyphens and underscores that systemd writes, in
// its order of members.
type systemdJSON struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	Blob     texts    `json:"tpm2-blob"`
	PCRs     []int    `json:"tpm2-pcrs"`
	Bank     string   `json:"tpm2-pcr-bank,omitempty"`
	Alg      string   `json:"tpm2-primary-alg,omitempty"`
	Digest   texts    `json:"tpm2-policy-hash"`
	PIN      bool     `json:"tpm2-pin"`
	Lock     bool     `json:"tpm2_pcrlock,omitempty"`
	Signed   []int    `json:"tpm2_pubkey_pcrs,omitempty"`
	Key      []byte   `json:"tpm2_pubkey,omitempty"`
	Ref      string   `json:"tpm2_pubkey_ref,omitempty"`
	Salt     []byte   `json:"tpm2_salt,omitempty"`
	SRK      []byte   `json:"tpm2_srk,omitempty"`
	Argon    uint64   `json:"tpm2_argon2id_memcost,omitempty"`
}

// texts is a text, or since 259 an array of them.
type texts []string

// UnmarshalJSON implements json.Unmarshaler.
func (t *texts) UnmarshalJSON(raw []byte) error {
	var single string
	if json.Unmarshal(raw, &single) == nil {
		*t = texts{single}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(t))
}

// MarshalJSON implements json.Marshaler.
func (t texts) MarshalJSON() ([]byte, error) {
	if len(t) != 1 {
		return nil, errors.New("a token with several sealed parts is not written here")
	}
	return json.Marshal(t[0])
}

// srkHandle is the handle that systemd writes for a storage root key; a key that
// is not kept in the TPM is found by its Name.
const srkHandle = 0x81000001

// Encode gives the token as systemd reads it since 252. The storage root key is
// written down as well, which versions from 254 on use and older ones ignore.
func (s Systemd) Encode() (json.RawMessage, error) {
	if s.Bank == "" || s.Alg == "" {
		return nil, errors.New("a systemd-tpm2 token needs a PCR bank and the kind of its storage root key")
	}
	pcrs := s.PCRs
	if pcrs == nil {
		pcrs = []int{} // systemd wants the member, empty or not
	}
	blob := appendSized(appendSized(nil, s.Sealed.Private), s.Sealed.Public)
	text, err := json.Marshal(blob)
	if err != nil {
		return nil, err
	}
	return json.Marshal(systemdJSON{
		Type: TypeSystemd, Keyslots: []string{strconv.Itoa(s.Slot)},
		Blob: texts{string(text[1 : len(text)-1])}, PCRs: pcrs, Bank: s.Bank, Alg: s.Alg,
		Digest: texts{hex.EncodeToString(s.Digest)}, PIN: s.PIN, Signed: s.Signed, Key: s.Key, Salt: s.Salt, SRK: s.srk(),
	})
}

// srk is tpm2_srk: handle, Name, 1 for a key, public area.
func (s Systemd) srk() []byte {
	if len(s.ParentPublic) == 0 {
		return nil
	}
	out := appendSized([]byte{srkHandle >> 24, 0, 0, srkHandle & 0xff}, s.ParentName)
	return appendSized(append(out, 0, 0, 0, 1), s.ParentPublic)
}

// ReadSystemd reads a token of systemd-cryptenroll.
func ReadSystemd(raw json.RawMessage) (Systemd, error) {
	var j systemdJSON
	if err := decode(raw, TypeSystemd, &j); err != nil {
		return Systemd{}, err
	}
	if err := j.supported(); err != nil {
		return Systemd{}, err
	}
	slot, err := slotOf(j.Keyslots)
	if err != nil {
		return Systemd{}, err
	}
	s := Systemd{
		Slot: slot, PCRs: j.PCRs, Bank: j.Bank, Alg: j.Alg, PIN: j.PIN,
		Key: j.Key, Signed: j.Signed, Salt: j.Salt,
	}
	if s.Alg == "" {
		s.Alg = "ecc"
	}
	if len(s.Key) == 0 {
		s.Signed = nil // of no use without the key
	}
	return s, errors.Join(s.readDigest(j.Digest), s.readBlob(j.Blob), s.readSRK(j.SRK), s.check())
}

// supported names what newer versions of systemd do and this package does not.
func (j systemdJSON) supported() error {
	switch {
	case j.Lock:
		return errors.New("the token uses a pcrlock policy (systemd 255 and later), which is not supported; use another key, and enroll the TPM again")
	case len(j.Blob) != 1 || len(j.Digest) != 1:
		return fmt.Errorf("the token has %d sealed parts and %d policies (systemd 259 and later); only one of each is supported", len(j.Blob), len(j.Digest))
	case j.Argon != 0:
		return errors.New("the token locks its PIN with Argon2id (systemd 262 and later), which is not supported; use another key, and enroll the TPM again")
	case j.Ref != "":
		return errors.New("the token's signed policy has a reference (systemd 262 and later), which is not supported")
	}
	return nil
}

func (s *Systemd) readDigest(t texts) (err error) {
	s.Digest, err = hex.DecodeString(t[0])
	return err
}

func (s *Systemd) readBlob(t texts) error {
	quoted, _ := json.Marshal(t[0])
	var blob []byte
	if err := json.Unmarshal(quoted, &blob); err != nil {
		return fmt.Errorf("tpm2-blob: %w", err)
	}
	c := cursor{rest: blob}
	s.Sealed.Private, s.Sealed.Public = c.sized(), c.sized()
	if c.err == nil && len(c.rest) > 0 {
		return errors.New("the token was sealed for this TPM from elsewhere, and not opened by systemd yet; that is not supported")
	}
	return c.err
}

func (s *Systemd) readSRK(raw []byte) error {
	if len(raw) == 0 {
		return nil
	}
	c := cursor{rest: raw}
	c.u32() // the handle is a hint, the Name decides
	s.ParentName = c.sized()
	if kind := c.u32(); c.err == nil && kind != 1 {
		return fmt.Errorf("tpm2_srk is a resource of kind %d, not a key", kind)
	}
	s.ParentPublic = c.sized()
	if err := c.end(); err != nil {
		return fmt.Errorf("tpm2_srk: %w", err)
	}
	return nil
}

func (s Systemd) check() error {
	if err := checkPCRs(append(slices.Clone(s.PCRs), s.Signed...)); err != nil {
		return err
	}
	switch {
	case len(s.Digest) != 32:
		return fmt.Errorf("a policy digest of %d bytes", len(s.Digest))
	case s.Bank != "" && !slices.Contains([]string{"sha1", "sha256", "sha384", "sha512"}, s.Bank):
		return fmt.Errorf("PCR bank %q", s.Bank)
	case s.Alg != "ecc" && s.Alg != "rsa":
		return fmt.Errorf("a storage root key of kind %q", s.Alg)
	case len(s.Key) > 0 && len(s.Signed) == 0:
		return errors.New("a key for signed policies, and no PCRs that it signs")
	case len(s.Key) > maxBlob*4 || len(s.Salt) > maxBlob:
		return errors.New("a public key or a salt that is too long")
	case (s.ParentName == nil) != (s.ParentPublic == nil):
		return errors.New("tpm2_srk without a Name or a public area")
	}
	return checkBlobs(s.Sealed.Private, s.Sealed.Public)
}
