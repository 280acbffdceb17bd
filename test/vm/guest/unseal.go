//go:build linux

package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// unsealRaw gets the bytes that a token of ours has sealed, which package tpm
// keeps to itself, by the plain commands of the TPM.
func unsealRaw(raw json.RawMessage) (sealed []byte, err error) {
	t, err := token.ReadOwn(raw)
	if err != nil {
		return nil, err
	}
	err = withTPM(func(dev transport.TPM) error {
		object, flush, err := loadSealed(dev, t)
		if err != nil {
			return err
		}
		defer flush()
		policy := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(dev transport.TPM, s tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
			return fulfil(dev, s, t.Policy)
		})
		rsp, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.Handle, Name: object.Name, Auth: policy}}.Execute(dev)
		if err == nil {
			sealed = rsp.OutData.Buffer
		}
		return err
	})
	return sealed, err
}

// loadSealed makes the storage root key and loads the object.
func loadSealed(dev transport.TPM, t token.Own) (object tpm2.NamedHandle, flush func(), err error) {
	if t.Parent.Template != "tcg-ecc" {
		return object, nil, errors.New("sealed under a storage root key of template " + t.Parent.Template)
	}
	parent, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(dev)
	if err != nil {
		return object, nil, err
	}
	defer tpm2.FlushContext{FlushHandle: parent.ObjectHandle}.Execute(dev)
	rsp, err := tpm2.Load{
		ParentHandle: tpm2.NamedHandle{Handle: parent.ObjectHandle, Name: parent.Name},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: t.Sealed.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](t.Sealed.Public),
	}.Execute(dev)
	if err != nil {
		return object, nil, err
	}
	return tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, func() { tpm2.FlushContext{FlushHandle: rsp.ObjectHandle}.Execute(dev) }, nil
}

// fulfil runs the policy that a token describes.
func fulfil(dev transport.TPM, s tpm2.TPMHandle, p token.OwnPolicy) error {
	if p.Signed != nil {
		if err := authorize(dev, s, p.Signed.PCRs); err != nil {
			return err
		}
	}
	var literal []uint
	for index := range p.PCRs {
		literal = append(literal, uint(index))
	}
	if p.Latch {
		literal = append(literal, 15)
	}
	_, err := tpm2.PolicyPCR{PolicySession: s, Pcrs: pcrSelection(literal)}.Execute(dev)
	return err
}

// authorize has a policy over PCRs approved by a signature of the boot image.
func authorize(dev transport.TPM, s tpm2.TPMHandle, pcrs []int) error {
	var signed []uint
	for _, index := range pcrs {
		signed = append(signed, uint(index))
	}
	if _, err := (tpm2.PolicyPCR{PolicySession: s, Pcrs: pcrSelection(signed)}).Execute(dev); err != nil {
		return err
	}
	now, err := tpm2.PolicyGetDigest{PolicySession: s}.Execute(dev)
	if err != nil {
		return err
	}
	key, signature, err := signatureOf(now.PolicyDigest.Buffer)
	if err != nil {
		return err
	}
	loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(publicArea(key)), Hierarchy: tpm2.TPMRHOwner}.Execute(dev)
	if err != nil {
		return err
	}
	defer tpm2.FlushContext{FlushHandle: loaded.ObjectHandle}.Execute(dev)
	sum := sha256.Sum256(now.PolicyDigest.Buffer)
	ticket, err := tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: loaded.Name},
		Digest:    tpm2.TPM2BDigest{Buffer: sum[:]},
		Signature: tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA,
			&tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: signature}})},
	}.Execute(dev)
	if err != nil {
		return err
	}
	_, err = tpm2.PolicyAuthorize{
		PolicySession: s, ApprovedPolicy: now.PolicyDigest, KeySign: loaded.Name, CheckTicket: ticket.Validation,
	}.Execute(dev)
	return err
}

// signatureOf finds a signature of the boot image, and whose it is.
func signatureOf(policy []byte) (*rsa.PublicKey, []byte, error) {
	boot, err := tpm.ReadBoot()
	if err != nil {
		return nil, nil, err
	}
	signatures, err := pcrsig.Parse(boot.Signatures)
	if err != nil {
		return nil, nil, err
	}
	entries := signatures["sha256"]
	at := slices.IndexFunc(entries, func(e pcrsig.Entry) bool { return bytes.Equal(e.Policy, policy) })
	if at < 0 {
		return nil, nil, errors.New("no signature is about the present PCRs")
	}
	key, err := pcrsig.ParsePublicKey(boot.PublicKey)
	return key, entries[at].Signature, err
}

// publicArea is a key that verifies signatures.
func publicArea(key *rsa.PublicKey) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, Decrypt: true, UserWithAuth: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull}, Scheme: tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull},
			KeyBits: tpm2.TPMKeyBits(key.N.BitLen()), Exponent: uint32(key.E),
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()}),
	}
}

func pcrSelection(pcrs []uint) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(pcrs...)}}}
}
