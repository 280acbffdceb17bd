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
	return newStorageKey(srkHandle, templatePersistent, &rsp.OutPublic, func() {})
}

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
// is one. A Name that no key has is an error without a reason: see diagnose.
func findStorageKey(l *link, name []byte, recorded string) (storageKey, error) {
	if k, err := persistent(l); err == nil && bytes.Equal(k.name.Buffer, name) {
		return k, nil
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
		case ownerLocked(err):
			return storageKey{}, fail(Faulty, err, "the owner hierarchy has a password, so the storage root key cannot be made again; keep it at %#x", uint32(srkHandle))
		case isCode(err) && !temporary(err):
			continue // an algorithm that this TPM does not have
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

// ownerLocked: the owner hierarchy has a password.
func ownerLocked(err error) bool {
	return errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail)
}

// isCode: the TPM understood and refused.
func isCode(err error) bool {
	var code tpm2.TPMRC
	return errors.As(err, &code)
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
		refused = err
		if ownerLocked(err) {
			if k, err := persistent(l); err == nil {
				return k, nil
			}
			return storageKey{}, fail(Faulty, refused, "the owner hierarchy has a password, and there is no storage root key at %#x; make one there", uint32(srkHandle))
		}
		if !isCode(err) {
			break
		}
	}
	return storageKey{}, tpmFault(refused, "make a storage root key")
}

// endorsement returns the Name of the endorsement key, which clearing the TPM
// does not change; none where the endorsement hierarchy is not ours to use.
func endorsement(l *link) ([]byte, error) {
	for _, t := range []tpm2.TPMTPublic{tpm2.ECCEKTemplate, tpm2.RSAEKTemplate} {
		rsp, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(t)}.Execute(l)
		if err != nil {
			if isCode(err) {
				continue
			}
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
	case bytes.Equal(now, ek):
		return fail(Cleared, nil, "the TPM is the one that sealed the key, and was cleared since: all that it sealed is gone; open the volume with another key and seal again")
	}
	return fail(OtherTPM, nil, "neither the storage root key nor the endorsement key is the one of the seal: the TPM was exchanged, or the disk is in another machine; open the volume with another key and seal again if that is right")
}
