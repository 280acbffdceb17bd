package tpm

import (
	"bytes"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// sealed is what a token says, of any format.
type sealed struct {
	object       token.Sealed
	parentName   []byte // nil in tokens of systemd before 254
	parentPublic []byte // of a new seal
	template     string // "" when it is not known
	ek           []byte
	conditions   conditions
	digest       []byte
	prefixes     map[int][]byte // of the PCRs' values; nil when the token has none
	values       PCRs           // of a new seal: whole, without the latch's
	boot         Boot
}

// rounds is how often unsealing is tried while PCRs keep changing.
const rounds = 8

// unseal gets the secret back. auth is the PIN's auth value.
func (s sealed) unseal(l *link, auth *secret.Bytes) (*secret.Bytes, error) {
	var err error
	for range rounds {
		var now PCRs
		if now, err = s.settle(l); err != nil {
			return nil, err
		}
		var sign *approval
		if s.conditions.key != nil {
			if sign, err = approve(s.boot, s.conditions, now); err != nil {
				return nil, err
			}
		}
		var value *secret.Bytes
		value, err = s.ask(l, sign, auth)
		if err == nil {
			return value, nil
		}
		if !errors.Is(err, errMoved) && !errors.Is(err, tpm2.TPMRCPCRChanged) {
			break
		}
	}
	return nil, tpmFault(err, "unseal the key")
}

// settle computes the policy from the present PCRs, and compares it with the
// token's before anything is asked. Where a token does not say which bank or which
// form of the public key it has, that which fits is chosen.
func (s *sealed) settle(l *link) (PCRs, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.object.Public)
	if err != nil || public.Type != tpm2.TPMAlgKeyedHash || public.NameAlg != tpm2.TPMAlgSHA256 || !bytes.Equal(tpm2.Marshal(public), s.object.Public) {
		return nil, fail(Damaged, err, "the public area of the sealed object cannot be read")
	}
	if !bytes.Equal(public.AuthPolicy.Buffer, s.digest) {
		return nil, fail(Damaged, nil, "the sealed object has another policy than the token says")
	}
	banks := []string{s.conditions.bank}
	if s.conditions.bank == "" {
		banks = []string{bankSHA256, "sha1"} // systemd before 250
	}
	var now PCRs
	for _, bank := range banks {
		c := s.conditions
		c.bank = bank
		values, err := readPCRs(l, bank, c.reads())
		if err != nil && bank == banks[0] {
			return nil, tpmFault(err, "read PCRs")
		}
		if err != nil {
			break
		}
		if now == nil {
			now = values
		}
		for _, c.shortExponent = range []bool{false, true} {
			digest, err := c.digest(c.literal(values))
			if err != nil {
				return nil, err
			}
			if bytes.Equal(digest, s.digest) {
				s.conditions = c
				return values, c.open(values)
			}
		}
	}
	return nil, s.moved(now)
}

// open: a latch must not be closed.
func (c conditions) open(now PCRs) error {
	if c.latch && slices.ContainsFunc(now[latchPCR], func(b byte) bool { return b != 0 }) {
		return latched("use another key, or restart the machine")
	}
	return nil
}

// moved says what is not as it was.
func (s sealed) moved(now PCRs) error {
	literal := slices.Clone(s.conditions.pcrs)
	if s.prefixes == nil {
		if len(literal) == 0 {
			return fail(SignatureForeign, nil, "the key that signs PCR policies is not the one that this key was sealed for")
		}
		return pcrChanged(literal, false)
	}
	var changed []int
	for pcr, prefix := range s.prefixes {
		if !bytes.HasPrefix(now[pcr], prefix) {
			changed = append(changed, pcr)
		}
	}
	if len(changed) == 0 {
		return fail(PolicyChanged, nil, "the token's policy is another than its parts give, although no PCR changed; open the volume with another key and seal again")
	}
	return pcrChanged(changed, true)
}

// ask loads the object and unseals it in a session that fulfils the policy.
func (s sealed) ask(l *link, sign *approval, auth *secret.Bytes) (*secret.Bytes, error) {
	parent, err := s.parent(l)
	if err != nil {
		return nil, err
	}
	defer parent.flush()
	object, err := s.load(l, parent)
	if err != nil {
		return nil, err
	}
	defer l.flush(object.Handle)
	if s.conditions.pin {
		if st, err := status(l); err != nil || st.LockedOut {
			return nil, orLockedOut(err)
		}
	}
	session, end, err := startPolicy(l, parent, auth)
	if err != nil {
		return nil, tpmFault(err, "start a session")
	}
	defer end()
	if err := s.conditions.run(l, session.handle, sign, s.digest); err != nil {
		return nil, err
	}
	_, err = tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.Handle, Name: object.Name, Auth: session}}.Execute(l)
	switch {
	case s.conditions.pin && (errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)):
		return nil, wrongPIN(l)
	case err != nil:
		return nil, err
	case session.answer == nil:
		return nil, fail(Faulty, nil, "an answer without the key")
	}
	value := session.answer
	session.answer = nil
	return value, nil
}

func orLockedOut(err error) error {
	if err != nil {
		return tpmFault(err, "say whether it is locked")
	}
	return lockedOut()
}

// parent returns the storage root key that the token pins. Tokens of old systemd
// pin none: there it is the one of systemd's template, whatever the TPM shows.
func (s sealed) parent(l *link) (storageKey, error) {
	if s.parentName == nil {
		return sealingKey(l, s.template)
	}
	k, err := findStorageKey(l, s.parentName, s.template)
	if errors.Is(err, errNoKey) {
		return storageKey{}, diagnose(l, s.ek)
	}
	return k, tpmFault(err, "make the storage root key")
}

// load loads the sealed object. Its Name is computed here: a session's MAC
// covers it, so that the TPM cannot be made to unseal another object for us.
func (s sealed) load(l *link, parent storageKey) (tpm2.NamedHandle, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](s.object.Public)
	if err != nil {
		return tpm2.NamedHandle{}, fail(Damaged, err, "the public area of the sealed object")
	}
	name, err := tpm2.ObjectName(public)
	if err != nil {
		return tpm2.NamedHandle{}, fail(Damaged, err, "the Name of the sealed object")
	}
	rsp, err := tpm2.Load{
		ParentHandle: parent.auth(tpm2.PasswordAuth(nil)),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.object.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](s.object.Public),
	}.Execute(l)
	switch {
	case errors.Is(err, tpm2.TPMRCIntegrity) && s.parentName == nil:
		return tpm2.NamedHandle{}, diagnose(l, nil)
	case isCode(err) && !temporary(err):
		return tpm2.NamedHandle{}, fail(Damaged, err, "the TPM does not take the sealed object, although it has the key for it")
	case err != nil:
		return tpm2.NamedHandle{}, err
	}
	if err := ofKind(rsp.ObjectHandle, tpm2.TPMHTTransient); err != nil {
		return tpm2.NamedHandle{}, err
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: *name}, nil
}

// temporary: a warning, such as no room for an object, is about now.
func temporary(err error) bool {
	var code tpm2.TPMRC
	return errors.As(err, &code) && code.IsWarning()
}
