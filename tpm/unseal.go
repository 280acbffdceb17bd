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
	imageKey     bool           // the token does not say whose signature it wants
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
		sign, refused := s.approved(l)
		if refused != nil {
			return nil, refused
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

// approved holds the policy against the present PCRs, and finds the signature of
// those that need one.
func (s *sealed) approved(l *link) (*approval, error) {
	now, err := s.settle(l)
	if err != nil || s.conditions.key == nil {
		return nil, err
	}
	return approve(s.boot, s.conditions, now)
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
	var absent error
	for _, bank := range banks {
		c := s.conditions
		c.bank = bank
		values, err := readPCRs(l, bank, c.reads())
		if errors.Is(err, errNoBank) {
			absent = err
			continue
		}
		if err != nil {
			return nil, tpmFault(err, "read PCRs")
		}
		if now == nil {
			now = values
		}
		fits, err := s.choose(c, values)
		if err != nil {
			return nil, err
		}
		if fits {
			return values, s.conditions.open(values)
		}
	}
	if now == nil {
		return nil, tpmFault(absent, "read PCRs")
	}
	return nil, s.moved(now)
}

// choose takes the conditions if they give the token's policy, with either form of
// the public key.
func (s *sealed) choose(c conditions, now PCRs) (bool, error) {
	for _, c.shortExponent = range []bool{false, true} {
		digest, err := c.digest(c.literal(now))
		if err != nil {
			return false, err
		}
		if bytes.Equal(digest, s.digest) {
			s.conditions = c
			return true, nil
		}
	}
	return false, nil
}

// open: a latch must not be closed.
func (c conditions) open(now PCRs) error {
	if c.latch && slices.ContainsFunc(now[LatchPCR], func(b byte) bool { return b != 0 }) {
		return latched("use another key, or restart the machine")
	}
	return nil
}

// moved says what is not as it was, as far as the token tells.
func (s sealed) moved(now PCRs) error {
	literal := slices.Clone(s.conditions.pcrs)
	switch {
	case s.prefixes != nil:
		return s.movedOwn(now)
	case s.imageKey && len(literal) == 0:
		return fail(SignatureForeign, nil, "the key that signs PCR policies is not the one that this key was sealed for")
	case s.imageKey:
		return fail(PolicyChanged, nil, "PCR %s changed since the key was sealed, or another key signs the boot image's policies: the token does not tell which; open the volume with another key and seal again", named(literal))
	case len(literal) == 0:
		return fail(Damaged, nil, "the token's policy is another than its parts give, none of which can change")
	}
	return pcrChanged(literal, false)
}

// movedOwn says it of a token that tells how the PCRs' values began.
func (s sealed) movedOwn(now PCRs) error {
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
	parent, object, unload, err := s.loaded(l)
	if err != nil {
		return nil, err
	}
	defer unload()
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

// loaded loads the object under its storage root key, and sees that a PIN would be
// taken, if it has one.
func (s sealed) loaded(l *link) (parent storageKey, object tpm2.NamedHandle, unload func(), err error) {
	if parent, err = s.parent(l); err != nil {
		return parent, object, nil, err
	}
	if object, err = s.load(l, parent); err != nil {
		parent.flush()
		return parent, object, nil, err
	}
	unload = func() { l.flush(object.Handle); parent.flush() }
	if s.conditions.pin {
		if st, err := status(l); err != nil || st.LockedOut {
			unload()
			return parent, object, nil, orLockedOut(err)
		}
	}
	return parent, object, unload, nil
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
	case errors.Is(err, tpm2.TPMRCIntegrity) && s.parentName == nil && parent.template == templatePersistent:
		return tpm2.NamedHandle{}, fail(Faulty, err, "the owner hierarchy has a password, so the storage root key of the token cannot be made again, and what is kept at %#x is another; remove the password (tpm2_changeauth -c o)", uint32(srkHandle))
	case errors.Is(err, tpm2.TPMRCIntegrity) && s.parentName == nil:
		return tpm2.NamedHandle{}, diagnose(l, nil)
	case ownerLocked(err):
		return tpm2.NamedHandle{}, fail(Faulty, err, "the storage root key that is kept at %#x has a password; remove it from there (tpm2_evictcontrol), and it is made anew for each use", uint32(srkHandle))
	case unloadable(err):
		return tpm2.NamedHandle{}, fail(Damaged, err, "the TPM does not take the sealed object, although it has the key for it")
	case err != nil:
		return tpm2.NamedHandle{}, err
	}
	if err := ofKind(rsp.ObjectHandle, tpm2.TPMHTTransient); err != nil {
		return tpm2.NamedHandle{}, err
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: *name}, nil
}

// unloadable: the TPM says that it is the object that cannot be loaded (TPM 2.0
// Part 3, 12.2; Part 2 for what cannot be unmarshalled), and not that it failed or
// has no room.
func unloadable(err error) bool {
	return unsupported(err) || isOneOf(err, tpm2.TPMRCIntegrity, tpm2.TPMRCSize, tpm2.TPMRCBinding, tpm2.TPMRCAttributes,
		tpm2.TPMRCSensitive, tpm2.TPMRCInsufficient, tpm2.TPMRCSelector, tpm2.TPMRCReservedBits, tpm2.TPMRCKey, tpm2.TPMRCKDF,
		tpm2.TPMRCMode, tpm2.TPMRCRange, tpm2.TPMRCTag, tpm2.TPMRCECCPoint)
}
