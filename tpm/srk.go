package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
)

// srkHandle is where the TCG's provisioning guidance, systemd and Windows keep a
// storage root key.
const srkHandle tpm2.TPMHandle = 0x81000001

// templatePersistent is how a key that only its owner can make again is recorded.
const templatePersistent = "persistent"

// template is what a storage root key is made from. Any difference, such as
// another "unique" field, gives another key from the same seed.
type template struct {
	name   string
	public tpm2.TPMTPublic
}

// templates are those that peers use, the one for new seals first.
func templates() []template {
	ecc, rsa := tpm2.ECCSRKTemplate, tpm2.RSASRKTemplate
	ecc.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	rsa.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{})
	eccDA, rsaDA := ecc, rsa
	eccDA.ObjectAttributes.NoDA, rsaDA.ObjectAttributes.NoDA = false, false
	return []template{
		{"tcg-ecc", tpm2.ECCSRKTemplate}, // TCG L-2; Talos
		{"tcg-rsa", tpm2.RSASRKTemplate}, // TCG L-1
		{"systemd-ecc", ecc},             // systemd from 254 on
		{"systemd-rsa", rsa},
		{"systemd-ecc-da", eccDA}, // systemd before
		{"systemd-rsa-da", rsaDA},
	}
}

// storageKey is a storage root key that is loaded, or persistent. Its Name was
// computed here, from the public area.
type storageKey struct {
	handle   tpm2.TPMHandle
	public   tpm2.TPMTPublic
	name     tpm2.TPM2BName
	template string
	flush    func()
}

func (k storageKey) auth(s tpm2.Session) tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: s}
}

// persistent returns the key at the usual handle.
func persistent(l *link) (storageKey, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: srkHandle}.Execute(l)
	if err != nil {
		return storageKey{}, err
	}
	k, err := newStorageKey(srkHandle, templatePersistent, &rsp.OutPublic, func() {})
	if err != nil {
		return k, unfitError{err}
	}
	return k, nil
}

// unfitError: there is something at the usual handle, and it is no storage root key.
type unfitError struct{ error }

// createPrimary makes a key from a template, in the hierarchy of the owner.
func createPrimary(l *link, t template) (storageKey, error) {
	rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(t.public)}.Execute(l)
	if err != nil {
		return storageKey{}, err
	}
	if err := ofKind(rsp.ObjectHandle, tpm2.TPMHTTransient); err != nil {
		return storageKey{}, err
	}
	return newStorageKey(rsp.ObjectHandle, t.name, &rsp.OutPublic, func() { l.flush(rsp.ObjectHandle) })
}

// newStorageKey looks at what a TPM says is a storage root key. On an error the
// key is flushed.
func newStorageKey(h tpm2.TPMHandle, name string, public *tpm2.TPM2BPublic, flush func()) (storageKey, error) {
	area, err := public.Contents()
	if err == nil {
		err = isStorage(*area)
	}
	var id *tpm2.TPM2BName
	if err == nil {
		id, err = tpm2.ObjectName(area)
	}
	if err != nil {
		flush()
		return storageKey{}, err
	}
	return storageKey{h, *area, *id, name, flush}, nil
}

// isStorage: a key that encrypts other keys, can do nothing else, and cannot
// leave the TPM. A key that decrypts for anyone would give a session's salt away.
func isStorage(p tpm2.TPMTPublic) error {
	a := p.ObjectAttributes
	if !a.Restricted || !a.Decrypt || a.SignEncrypt || !a.FixedTPM || !a.FixedParent || !a.SensitiveDataOrigin {
		return errors.New("the key is not a storage key that stays in its TPM")
	}
	if p.NameAlg != tpm2.TPMAlgSHA256 || p.Type != tpm2.TPMAlgECC && p.Type != tpm2.TPMAlgRSA {
		return fmt.Errorf("a storage key of type %#x with Names of type %#x is not supported", p.Type, p.NameAlg)
	}
	return nil
}

// findStorageKey returns the key that a token pins by its Name: the persistent
// one if it is that, else it is made again, from the template recorded if there
// is one. A Name that no key has is errNoKey: see diagnose. It is given only when
// the TPM showed all keys that it has.
func findStorageKey(l *link, name []byte, recorded string) (storageKey, error) {
	kept, hidden := persistent(l)
	if hidden == nil && bytes.Equal(kept.name.Buffer, name) {
		return kept, nil
	} else if l.ctx.Err() != nil {
		return storageKey{}, l.ctx.Err()
	}
	all := templates()
	slices.SortStableFunc(all, func(a, b template) int { // the recorded one first
		return rank(a, recorded) - rank(b, recorded)
	})
	for _, t := range all {
		k, err := createPrimary(l, t)
		switch {
		case unsupported(err):
			continue
		case ownerLocked(err):
			return storageKey{}, fail(Faulty, err, "the owner hierarchy has a password, so the storage root key cannot be made again; keep it at %#x", uint32(srkHandle))
		case switchedOff(err):
			return storageKey{}, ownerOff(err)
		case err != nil:
			return storageKey{}, err
		case bytes.Equal(k.name.Buffer, name):
			return k, nil
		}
		k.flush()
		if t.name == recorded {
			break // it is this one, and the TPM makes another key of it
		}
	}
	if hidden != nil && !errors.Is(hidden, tpm2.TPMRCHandle) && !errors.As(hidden, new(unfitError)) {
		return storageKey{}, hidden // it may be that one
	}
	return storageKey{}, errNoKey
}

// errNoKey: no key of this TPM has the Name.
var errNoKey = errors.New("the TPM does not have the storage root key")

func rank(t template, recorded string) int {
	if t.name == recorded {
		return 0
	}
	return 1
}

// ownerLocked: the hierarchy, or the key, has a password.
func ownerLocked(err error) bool {
	return errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail)
}

// switchedOff: the firmware switched a hierarchy off, for this boot.
func switchedOff(err error) bool { return errors.Is(err, tpm2.TPMRCHierarchy) }

func ownerOff(err error) error {
	return fail(Faulty, err, "the owner's keys are switched off in the firmware, and what is sealed under them cannot be reached; switch the TPM, or its storage hierarchy, on in the firmware's setup")
}

// isOneOf: the TPM answered with one of these errors.
func isOneOf(err error, codes ...tpm2.TPMRC) bool {
	return slices.ContainsFunc(codes, func(c tpm2.TPMRC) bool { return errors.Is(err, c) })
}

// unsupported: the TPM does not have the algorithm, or the size, that a template
// asks for (TPM 2.0 Part 3, 24.1; what it does not know it cannot unmarshal: Part
// 2). All other errors tell nothing of which keys it has.
func unsupported(err error) bool {
	return isOneOf(err, tpm2.TPMRCValue, tpm2.TPMRCCurve, tpm2.TPMRCKeySize, tpm2.TPMRCAsymmetric, tpm2.TPMRCSymmetric,
		tpm2.TPMRCType, tpm2.TPMRCScheme, tpm2.TPMRCHash, tpm2.TPMRCCommandCode)
}

// sealingKey returns the key for a new seal: of the first template that the TPM
// can do. Where only the owner makes keys, it is the persistent one.
func sealingKey(l *link, names ...string) (storageKey, error) {
	var refused error
	for _, name := range names {
		all := templates()
		k, err := createPrimary(l, all[slices.IndexFunc(all, func(t template) bool { return t.name == name })])
		if err == nil {
			return k, nil
		}
		switch refused = err; {
		case ownerLocked(err):
			return keptKey(l, err)
		case switchedOff(err):
			return storageKey{}, ownerOff(err)
		}
		if !unsupported(err) {
			break
		}
	}
	return storageKey{}, tpmFault(refused, "make a storage root key")
}

// keptKey is the persistent key, where the owner's password keeps us from making
// one.
func keptKey(l *link, locked error) (storageKey, error) {
	const then = "keep one there (tpm2_createprimary -C o, tpm2_evictcontrol), or remove the password (tpm2_changeauth -c o)"
	k, err := persistent(l)
	switch {
	case errors.Is(err, tpm2.TPMRCHandle):
		return k, fail(Faulty, locked, "the owner hierarchy has a password, and there is no storage root key at %#x; %s", uint32(srkHandle), then)
	case errors.As(err, new(unfitError)):
		return k, fail(Faulty, err, "the owner hierarchy has a password, and what is kept at %#x is no storage root key of use; %s", uint32(srkHandle), then)
	}
	return k, tpmFault(err, "show its storage root key")
}

// endorsement returns the Name of the endorsement key, which clearing the TPM
// does not change; none where the endorsement hierarchy has a password, or is
// switched off.
func endorsement(l *link) ([]byte, error) {
	for _, t := range []tpm2.TPMTPublic{tpm2.ECCEKTemplate, tpm2.RSAEKTemplate} {
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(t)}.Execute(l)
		switch {
		case unsupported(err):
			continue
		case ownerLocked(err) || switchedOff(err):
			return nil, nil
		case err != nil:
			return nil, err
		}
		if err := ofKind(rsp.ObjectHandle, tpm2.TPMHTTransient); err != nil {
			return nil, err
		}
		l.flush(rsp.ObjectHandle)
		area, err := rsp.OutPublic.Contents()
		if err != nil {
			return nil, err
		}
		name, err := tpm2.ObjectName(area)
		if err != nil {
			return nil, err
		}
		return name.Buffer, nil
	}
	return nil, nil
}

// diagnose says why the pinned storage root key is not there.
func diagnose(l *link, ek []byte) error {
	if len(ek) == 0 {
		return fail(OtherTPM, nil, "the storage root key is another one: the TPM was cleared or exchanged, or the disk is in another machine; open the volume with another key and seal again")
	}
	now, err := endorsement(l)
	switch {
	case err != nil:
		return tpmFault(err, "make its endorsement key")
	case now == nil:
		return fail(OtherTPM, nil, "the storage root key is another one; whether the TPM was cleared or is another cannot be told, since its endorsement key is switched off or has a password; open the volume with another key and seal again")
	case bytes.Equal(now, ek):
		return fail(Cleared, nil, "the TPM is the one that sealed the key, and was cleared since: all that it sealed is gone; open the volume with another key and seal again")
	}
	return fail(OtherTPM, nil, "neither the storage root key nor the endorsement key is the one of the seal: the TPM was exchanged, or the disk is in another machine; open the volume with another key and seal again if that is right")
}
