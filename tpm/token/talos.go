package token

import (
	"encoding/json"
	"fmt"
	"slices"
)

// Talos is the token of Talos. What is sealed are 32 random bytes; the passphrase
// is their base64.
type Talos struct {
	Slot    int
	Sealed  Sealed
	KeyName []byte // Name of the storage root key, with its algorithm
	Digest  []byte // of the policy
	// PCRs are bound as they were in this boot. Old tokens do not say: they
	// bind PCR 7 and call the signed PCR theirs.
	PCRs []int
	// Signed are the PCRs of the signature, always 11.
	Signed []int
	// Old: written before Talos 1.12.
	Old bool
}

// talosVersion is the encryption version that Talos writes since 1.12.
const talosVersion = "1"

type talosJSON struct {
	Type     string    `json:"type"`
	Keyslots []string  `json:"keyslots"`
	UserData talosData `json:"UserData"`
}

// talosData has the order of members in which Talos writes them.
type talosData struct {
	KeySlots []int  `json:"keyslots"`
	Private  []byte `json:"sealed_blob_private"` // TPM2B
	Public   []byte `json:"sealed_blob_public"`  // TPM2B
	PCRs     []int  `json:"pcrs,omitempty"`
	Signed   []int  `json:"pubkey_pcrs,omitempty"`
	Alg      string `json:"alg"`
	Version  string `json:"encryption_version,omitempty"`
	Digest   []byte `json:"policy_hash"`
	KeyName  []byte `json:"key_name"` // TPM2B
}

// Encode gives the token as Talos writes it since 1.12. The token names no
// keyslot: for Talos its id is the slot's.
func (t Talos) Encode() (json.RawMessage, error) {
	return json.Marshal(talosJSON{TypeTalos, []string{}, talosData{
		KeySlots: []int{t.Slot},
		Private:  appendSized(nil, t.Sealed.Private), Public: appendSized(nil, t.Sealed.Public),
		PCRs: t.PCRs, Signed: t.Signed, Alg: "sha256", Version: talosVersion,
		Digest: t.Digest, KeyName: appendSized(nil, t.KeyName),
	}})
}

// ReadTalos reads a token of Talos, of either version.
func ReadTalos(raw json.RawMessage) (Talos, error) {
	var j talosJSON
	if err := decode(raw, TypeTalos, &j); err != nil {
		return Talos{}, err
	}
	d := j.UserData
	if d.Alg != "sha256" {
		return Talos{}, fmt.Errorf("PCR bank %q; Talos writes sha256 only", d.Alg)
	}
	if d.Version != "" && d.Version != talosVersion {
		return Talos{}, fmt.Errorf("encryption version %q of a %s token is not known; use a newer program", d.Version, TypeTalos)
	}
	t := Talos{Digest: d.Digest, PCRs: d.PCRs, Signed: d.Signed, Old: d.Version == ""}
	if len(d.KeySlots) == 1 {
		t.Slot = d.KeySlots[0]
	}
	for _, part := range []struct {
		blob []byte
		to   *[]byte
	}{{d.Private, &t.Sealed.Private}, {d.Public, &t.Sealed.Public}, {d.KeyName, &t.KeyName}} {
		b, err := one(part.blob)
		if err != nil {
			return Talos{}, err
		}
		*part.to = b
	}
	if t.Old {
		t.modernise()
	}
	return t, t.check()
}

// modernise says what a token from before 1.12 means: with pcrs [11] and no
// pubkey_pcrs, the policy is that of a signed PCR 11 and the literal PCR 7.
// All others from then have no literal PCR (talos.md: unseal.go).
func (t *Talos) modernise() {
	quirk := len(t.Signed) == 0 && slices.Equal(t.PCRs, []int{11})
	t.PCRs, t.Signed = nil, []int{11}
	if quirk {
		t.PCRs = []int{7}
	}
}

func (t Talos) check() error {
	if err := checkPCRs(append(slices.Clone(t.PCRs), t.Signed...)); err != nil {
		return err
	}
	if len(t.Digest) != 32 || len(t.Signed) == 0 {
		return fmt.Errorf("a policy digest of %d bytes and %d signed PCRs", len(t.Digest), len(t.Signed))
	}
	return checkBlobs(t.Sealed.Private, t.Sealed.Public, t.KeyName)
}

func checkPCRs(pcrs []int) error {
	if len(pcrs) > 48 {
		return fmt.Errorf("%d PCRs; a TPM has 24", len(pcrs))
	}
	for _, p := range pcrs {
		if p < 0 || p > 23 {
			return fmt.Errorf("PCR %d; a TPM has 0 to 23", p)
		}
	}
	return nil
}
