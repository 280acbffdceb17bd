// Package pcrsig is the JSON of signed PCR policies: what a unified kernel image
// has in .pcrsig and .pcrpkey, and what systemd-stub leaves in /.extra
// (systemd-measure(1)).
//
//	Parse ──> Signatures ──Select(bank, PCRs, key, policy)──> Entry ──Verify──> good
//
// What it guarantees: the file is bounded and its entries are whole before any of
// them is looked at. What it does not protect: that a policy is signed says nothing
// of whether it is the right one; who has the key may sign any.
package pcrsig

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/tpm/pcr"
)

// Limits of the JSON. A file has one entry per bank and phase path.
const (
	MaxSize    = 1 << 20
	maxEntries = 1024 // of a bank
)

// Signatures are signed policies by the name of the bank: what is in .pcrsig,
// and what systemd-stub leaves in /.extra/tpm2-pcr-signature.json
// (systemd-measure(1)).
//
//	{"sha256": [{"pcrs": [11], "pkfp": "<hex>", "pol": "<hex>", "sig": "<base64>"}, ...], ...}
type Signatures map[string][]Entry

// Entry is one signed policy.
type Entry struct {
	PCRs        []int  `json:"pcrs"`
	Fingerprint Hex    `json:"pkfp"`          // of the key, see [Fingerprint]
	Ref         string `json:"ref,omitempty"` // a name that is signed with the policy, since systemd 262
	Policy      Hex    `json:"pol"`           // see pcr.Policy
	Signature   []byte `json:"sig"`           // RSASSA-PKCS1-v1_5 with SHA-256
}

// Hex is bytes that are hexadecimal digits in JSON.
type Hex []byte

// MarshalText writes lower-case digits.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads digits.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// Parse reads the JSON. Entries of banks that are not known here are
// kept as they are; any other has to be whole.
func Parse(text []byte) (Signatures, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("the policy signatures have more than %d bytes", MaxSize)
	}
	var s Signatures
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, fmt.Errorf("the policy signatures: %w", err)
	}
	if s == nil {
		return nil, errors.New("the policy signatures: null")
	}
	for name, entries := range s {
		if len(entries) > maxEntries {
			return nil, fmt.Errorf("the policy signatures: %d entries of the bank %.20q, more than %d", len(entries), name, maxEntries)
		}
		if _, err := pcr.BankByName(name); err != nil {
			continue
		}
		for i := range entries {
			if err := entries[i].check(); err != nil {
				return nil, fmt.Errorf("the policy signatures: entry %d of the bank %s: %w", i, name, err)
			}
		}
	}
	return s, nil
}

func (e *Entry) check() error {
	switch {
	case len(e.PCRs) == 0 || len(e.PCRs) > pcr.Count:
		return fmt.Errorf("it is about %d PCRs", len(e.PCRs))
	case len(e.Fingerprint) != sha256.Size:
		return fmt.Errorf("its key's fingerprint (pkfp) has %d bytes, not %d", len(e.Fingerprint), sha256.Size)
	case len(e.Policy) != sha256.Size:
		return fmt.Errorf("its policy (pol) has %d bytes, not %d", len(e.Policy), sha256.Size)
	case len(e.Signature) < MinKeyBits/8 || len(e.Signature) > MaxKeyBits/8:
		return fmt.Errorf("its signature (sig) has %d bytes", len(e.Signature))
	}
	for i, index := range e.PCRs {
		if index < 0 || index >= pcr.Count || slices.Contains(e.PCRs[:i], index) {
			return fmt.Errorf("it is about PCR %d, which is there twice or does not exist", index)
		}
	}
	return nil
}

// Encode writes the JSON as systemd-measure does, in one line.
func (s Signatures) Encode() ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	return append(text, '\n'), nil
}

// Why Select finds nothing.
var (
	// ErrNoBank: nothing was signed for the bank.
	ErrNoBank = errors.New("no policy is signed for this PCR bank")
	// ErrOtherKey: only other keys signed for the bank and the PCRs.
	ErrOtherKey = errors.New("the policies are signed by another key")
	// ErrOtherPolicy: the key did sign, but not for the present values.
	ErrOtherPolicy = errors.New("the key has not signed a policy for the present PCR values")
)

// Select returns the entry of a bank, about exactly these PCRs and with this
// ref, that a key signed for a policy. The error is ErrNoBank, ErrOtherKey or
// ErrOtherPolicy. The signature is not verified: Verify does that.
func (s Signatures) Select(bank pcr.Bank, pcrs []int, ref string, fingerprint, policy []byte) (*Entry, error) {
	entries := s[bank.String()]
	why := ErrNoBank
	for i := range entries {
		e := &entries[i]
		if !slices.Equal(slices.Sorted(slices.Values(e.PCRs)), slices.Sorted(slices.Values(pcrs))) || e.Ref != ref {
			continue
		}
		switch {
		case !bytes.Equal(e.Fingerprint, fingerprint):
			if why == ErrNoBank {
				why = ErrOtherKey
			}
		case !bytes.Equal(e.Policy, policy):
			why = ErrOtherPolicy
		default:
			return e, nil
		}
	}
	return nil, fmt.Errorf("a signed policy over PCRs %v of %s by the key %x: %w", pcrs, bank, fingerprint, why)
}

// Message returns the digest that is signed: SHA-256(policy | SHA-256(ref), if there is one).
func (e *Entry) Message() [sha256.Size]byte {
	signed := slices.Clone([]byte(e.Policy))
	if e.Ref != "" {
		ref := sha256.Sum256([]byte(e.Ref))
		signed = append(signed, ref[:]...)
	}
	return sha256.Sum256(signed)
}

// Verify checks that a key signed the entry, in the way in which a TPM will
// check it.
func (e *Entry) Verify(key *rsa.PublicKey) error {
	if !bytes.Equal(e.Fingerprint, Fingerprint(key)) {
		return fmt.Errorf("%w: it has the fingerprint %x, the key has %x", ErrOtherKey, []byte(e.Fingerprint), Fingerprint(key))
	}
	digest := e.Message()
	if rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], e.Signature) == nil {
		return nil
	}
	for _, bank := range []pcr.Bank{pcr.SHA384, pcr.SHA512} {
		if rsa.VerifyPKCS1v15(key, bank.Hash(), bank.Sum(e.Policy), e.Signature) == nil {
			return fmt.Errorf("the policy is signed with %s, as older versions of systemd-measure do for that bank: it has to be signed with sha256", bank)
		}
	}
	return errors.New("the signature of the policy is not one of this key")
}
