package uki

import (
	"crypto"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
)

// ErrPolicyKey says that the key in .pcrpkey is not the one that signs: the
// running system would look for signatures of a key that signed nothing.
var ErrPolicyKey = errors.New("the image's .pcrpkey is not the public half of the signing key")

// CheckKey returns ErrPolicyKey if the sections name another public key. Sections
// without .pcrpkey are fine: the key can be given to the system in another way.
func (s Sections) CheckKey(key *rsa.PublicKey) error {
	named, err := s.PolicyKey()
	switch {
	case errors.Is(err, ErrNoSection):
		return nil
	case err != nil:
		return err
	case !named.Equal(key):
		return fmt.Errorf("%w: it is the key %x, the signing key is %x", ErrPolicyKey, pcrsig.Fingerprint(named), pcrsig.Fingerprint(key))
	}
	return nil
}

// Sign signs a policy for every value of a prediction. Signing is deterministic:
// the same values and key give the same bytes.
func (k *Key) Sign(p *Prediction) (pcrsig.Signatures, error) {
	if len(p.Values) == 0 {
		return nil, errors.New("there is no value to sign")
	}
	s := pcrsig.Signatures{}
	for i := range p.Values {
		v := &p.Values[i]
		if v.Bank == pcr.SHA1 {
			return nil, errors.New("PCRs of a sha1 bank are not signed: SHA-1 can be forged")
		}
		e := pcrsig.Entry{PCRs: []int{PCR}, Fingerprint: pcrsig.Fingerprint(k.Public()), Policy: v.Policy}
		digest := e.Message()
		var err error
		if e.Signature, err = rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, digest[:]); err != nil {
			return nil, fmt.Errorf("signing the policy of %s: %w", v.String(), err)
		}
		s[v.Bank.String()] = append(s[v.Bank.String()], e)
	}
	return s, nil
}

// Verify checks that a key signed every value of a prediction.
func (p *Prediction) Verify(s pcrsig.Signatures, key *rsa.PublicKey) error {
	if len(p.Values) == 0 {
		return errors.New("there is no value to verify signatures of")
	}
	for i := range p.Values {
		v := &p.Values[i]
		entry, err := s.Select(v.Bank, []int{PCR}, "", pcrsig.Fingerprint(key), v.Policy)
		if err == nil {
			err = entry.Verify(key)
		}
		if err != nil {
			return fmt.Errorf("PCR %d of %s after %q: %w", PCR, v.Bank, v.Path.String(), err)
		}
	}
	return nil
}
