package tpm

import (
	"bytes"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// keySize is the length of what is sealed.
const keySize = 32

// plan is what a seal is made from.
type plan struct {
	policy    Policy // as check returned it
	boot      Boot
	pin       pinKey
	templates []string // of the storage root key, the first that works
	wantEK    bool
	value     *secret.Bytes
}

// seal seals the value to the state that the machine is in, and shows that the
// TPM gives it back.
func seal(l *link, p plan) (sealed, error) {
	s := sealed{boot: p.boot, conditions: conditions{bank: bankSHA256, pcrs: p.policy.PCRs, pin: p.policy.PIN}}
	if p.policy.Signed {
		key, err := pcrsig.ParsePublicKey(p.boot.PublicKey)
		if err != nil {
			return s, fail(SignatureMissing, err, "a signed policy needs the key that signs: boot a unified kernel image with a .pcrpkey section")
		}
		s.conditions.key, s.conditions.signed = key, signedPCRs()
	}
	if p.policy.Latch {
		s.conditions.latch, s.conditions.pcrs = true, append(slices.Clone(p.policy.PCRs), LatchPCR)
		slices.Sort(s.conditions.pcrs)
	}
	now, err := readPCRs(l, bankSHA256, s.conditions.reads())
	if err != nil {
		return s, tpmFault(err, "read PCRs")
	}
	if err := s.conditions.usable(now); err != nil {
		return s, err
	}
	s.prefixes, s.values = prefixes(now, p.policy.PCRs)
	if s.digest, err = s.conditions.digest(s.conditions.literal(now)); err != nil {
		return s, err
	}
	if p.wantEK {
		if s.ek, err = endorsement(l); err != nil {
			return s, tpmFault(err, "make its endorsement key")
		}
	}
	if err := s.create(l, p); err != nil {
		return s, err
	}
	return s, s.prove(l, p)
}

// usable refuses to bind registers that nothing was measured into, and a latch
// that is closed.
func (c conditions) usable(now PCRs) error {
	for pcr, value := range now {
		switch {
		case c.latch && pcr == LatchPCR:
			if !unused(value) {
				return latched("the key cannot be sealed, since it could not be shown to unseal; seal again after the next boot, before the latch closes")
			}
		case unused(value):
			return fail(Refused, nil, "nothing was measured into PCR %d%s in this boot, so it says nothing; the firmware or the boot loader does not use the TPM", pcr, pcrMeaning(pcr))
		}
	}
	return nil
}

func latched(then string) *Error {
	return fail(Latched, nil, "PCR 15 was extended, which ends unsealing for this boot; %s", then)
}

// prefixes picks the values of PCRs, and how they begin.
func prefixes(now PCRs, pcrs []int) (begin map[int][]byte, values PCRs) {
	begin, values = map[int][]byte{}, PCRs{}
	for _, pcr := range pcrs {
		begin[pcr], values[pcr] = now[pcr][:token.PrefixSize], now[pcr]
	}
	return begin, values
}

// create makes the sealed object, under a storage root key that is loaded for it.
func (s *sealed) create(l *link, p plan) error {
	parent, err := sealingKey(l, p.templates...)
	if err != nil {
		return err
	}
	defer parent.flush()
	session, end, err := hmacSession(l, parent)
	if err != nil {
		return tpmFault(err, "start a session")
	}
	defer end()
	zeros, fill := p.sensitive()
	rsp, err := tpm2.Create{
		ParentHandle: parent.auth(veiled{session, fill}),
		InSensitive:  zeros,
		InPublic:     tpm2.New2B(objectPublic(s.digest, p.policy.PIN)),
	}.Execute(l)
	if err != nil {
		return tpmFault(err, "seal the key")
	}
	public, err := rsp.OutPublic.Contents()
	if err != nil {
		return tpmFault(err, "seal the key")
	}
	want := objectPublic(s.digest, p.policy.PIN)
	if public.ObjectAttributes != want.ObjectAttributes || public.Type != want.Type || public.NameAlg != want.NameAlg || !bytes.Equal(public.AuthPolicy.Buffer, s.digest) {
		return fail(Faulty, nil, "the TPM sealed the key under another policy than it was told to")
	}
	s.object = token.Sealed{Private: rsp.OutPrivate.Buffer, Public: tpm2.Marshal(public)}
	s.parentName, s.parentPublic, s.template = parent.name.Buffer, tpm2.Marshal(parent.public), parent.template
	return nil
}

// sensitive is what is sealed, with zeros in place of its secrets, and what fills
// them in: TPMS_SENSITIVE_CREATE is the auth value and the data, each after its
// size (Part 2, 11.1.15).
func (p plan) sensitive() (zeros tpm2.TPM2BSensitiveCreate, fill func(parameter []byte)) {
	auth := trimZeros(p.pin.auth.Bytes())
	zeros.Sensitive = &tpm2.TPMSSensitiveCreate{
		UserAuth: tpm2.TPM2BAuth{Buffer: make([]byte, len(auth))},
		Data:     tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: make([]byte, p.value.Len())}),
	}
	return zeros, func(parameter []byte) {
		copy(parameter[2:], auth)
		copy(parameter[2+len(auth)+2:], p.value.Bytes())
	}
}

// objectPublic is what is sealed, but for the secret: only the policy opens it.
// Without a PIN there is nothing to guess, so a locked TPM does not refuse it.
func objectPublic(digest []byte, pin bool) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: !pin},
		AuthPolicy:       tpm2.TPM2BDigest{Buffer: digest},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgKeyedHash, &tpm2.TPMSKeyedHashParms{
			Scheme: tpm2.TPMTKeyedHashScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgKeyedHash, &tpm2.TPM2BDigest{}),
	}
}

// prove unseals what was sealed, as a boot will do it.
func (s *sealed) prove(l *link, p plan) error {
	back, err := s.unseal(l, p.pin.auth)
	if err != nil {
		var e *Error
		if errors.As(err, &e) && e.Reason == Damaged {
			return fail(Faulty, err, "the TPM does not take back what it sealed")
		}
		return err
	}
	defer back.Wipe()
	if !back.Equal(p.value) {
		return fail(Faulty, nil, "the TPM gives back other bytes than it sealed")
	}
	return nil
}
