package tpm

import (
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
)

// Boot is what a unified kernel image brings along for a signed policy, as
// systemd-stub puts it into the initrd.
type Boot struct {
	// PublicKey of who signs PCR policies: RSA, PEM (section .pcrpkey).
	PublicKey []byte
	// Signatures in the JSON of systemd-measure (section .pcrsig).
	Signatures []byte
}

// maxBootFile bounds each of the two files.
const maxBootFile = 1 << 20

// ReadBoot reads the files where systemd-stub, or systemd after it, left them.
// What is not there stays empty.
func ReadBoot() (Boot, error) { return readBoot("/.extra", "/run/systemd") }

func readBoot(folders ...string) (Boot, error) {
	var b Boot
	for name, to := range map[string]*[]byte{"tpm2-pcr-public-key.pem": &b.PublicKey, "tpm2-pcr-signature.json": &b.Signatures} {
		for _, folder := range folders {
			content, err := readLimited(folder + "/" + name)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return Boot{}, err
			}
			*to = content
			break
		}
	}
	return b, nil
}

func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxBootFile+1))
	if err == nil && len(content) > maxBootFile {
		err = fmt.Errorf("%s has more than %d bytes", path, maxBootFile)
	}
	return content, err
}

// keyDER is how our own tokens have a key.
func keyDER(key *rsa.PublicKey) []byte {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // of an RSA key it cannot fail
	}
	return der
}

// keyPublic is the key as a TPM object. Talos, and systemd at first, write the
// exponent as it is; newer systemd writes 0 for 65537, which means the same and
// gives the key another Name.
func keyPublic(key *rsa.PublicKey, shortExponent bool) tpm2.TPMTPublic {
	exponent := uint32(key.E)
	if shortExponent && exponent == 65537 {
		exponent = 0
	}
	return tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, Decrypt: true, UserWithAuth: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
			Scheme:    tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgNull},
			KeyBits:   tpm2.TPMKeyBits(key.N.BitLen()),
			Exponent:  exponent,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()}),
	}
}

func keyName(key *rsa.PublicKey, shortExponent bool) (*tpm2.TPM2BName, error) {
	public := keyPublic(key, shortExponent)
	return tpm2.ObjectName(&public)
}

// approval is a policy and a signature that was found good.
type approval struct {
	key       *rsa.PublicKey
	short     bool // its exponent
	policy    []byte
	signature []byte
}

// approve finds the signature of the present values, and checks it before the
// TPM does, so that what is missing can be said.
func approve(boot Boot, c conditions, now PCRs) (*approval, error) {
	policy, err := c.approved(now)
	if err != nil {
		return nil, err
	}
	if len(boot.Signatures) == 0 {
		return nil, fail(SignatureMissing, nil, "there are no signatures of PCR policies; boot a unified kernel image that brings them")
	}
	signed, err := pcrsig.Parse(boot.Signatures)
	if err != nil {
		return nil, fail(SignatureMissing, err, "the signatures of PCR policies cannot be read")
	}
	bank, err := pcr.BankByName(c.bank)
	if err != nil {
		return nil, err
	}
	print := pcrsig.Fingerprint(c.key)
	e, err := signed.Select(bank, c.signed, "", print, policy)
	switch {
	case errors.Is(err, pcrsig.ErrOtherKey):
		return nil, fail(SignatureForeign, nil, "the boot image's PCR policies are signed by another key than %.8x, which this key was sealed for", print)
	case err != nil:
		return nil, fail(SignatureMissing, nil, "no signature by key %.8x fits the present value of PCR %v: another image was booted, or this phase of the boot was not signed", print, c.signed)
	}
	if err := e.Verify(c.key); err != nil {
		return nil, fail(SignatureForeign, err, "the signature over the present PCRs %v is not by key %.8x, as it says", c.signed, print)
	}
	return &approval{c.key, c.shortExponent, policy, e.Signature}, nil
}

// authorize has the TPM check the signature, and replaces what the session's
// policy is by the key that signed it.
func (a *approval) authorize(l *link, session tpm2.TPMHandle) error {
	name, err := keyName(a.key, a.short)
	if err != nil {
		return err
	}
	loaded, err := tpm2.LoadExternal{InPublic: tpm2.New2B(keyPublic(a.key, a.short)), Hierarchy: tpm2.TPMRHOwner}.Execute(l)
	if err != nil {
		return err
	}
	if err := ofKind(loaded.ObjectHandle, tpm2.TPMHTTransient); err != nil {
		return err
	}
	defer l.flush(loaded.ObjectHandle)
	sum := sha256.Sum256(a.policy)
	ticket, err := tpm2.VerifySignature{
		KeyHandle: tpm2.NamedHandle{Handle: loaded.ObjectHandle, Name: *name},
		Digest:    tpm2.TPM2BDigest{Buffer: sum[:]},
		Signature: tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA,
			&tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: a.signature}})},
	}.Execute(l)
	if err != nil {
		return err
	}
	_, err = tpm2.PolicyAuthorize{
		PolicySession: session, ApprovedPolicy: tpm2.TPM2BDigest{Buffer: a.policy}, KeySign: *name, CheckTicket: ticket.Validation,
	}.Execute(l)
	if errors.Is(err, tpm2.TPMRCValue) {
		return errMoved // PCR 11 is no longer what was read
	}
	return err
}
