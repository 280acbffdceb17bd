package tpm

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/google/go-tpm/tpm2"
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

// parseKey reads a public key that signs PCR policies.
func parseKey(text []byte) (*rsa.PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the public key for PCR policies is no PEM")
	}
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the public key for PCR policies: %w", err)
	}
	key, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the public key for PCR policies is %T; only RSA is used for them", parsed)
	}
	if n := key.N.BitLen(); n < 2048 || n > 4096 || n%8 != 0 {
		return nil, fmt.Errorf("the public key for PCR policies has %d bits; 2048 to 4096 are possible", n)
	}
	return key, nil
}

// fingerprint identifies a key in signature files and in our tokens.
func fingerprint(key *rsa.PublicKey) string {
	sum := sha256.Sum256(x509.MarshalPKCS1PublicKey(key))
	return hex.EncodeToString(sum[:])
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

// signatureEntry is one signed policy of a signature file.
type signatureEntry struct {
	PCRs        []int  `json:"pcrs"`
	Fingerprint string `json:"pkfp"`
	Ref         string `json:"ref"`
	Policy      string `json:"pol"`
	Signature   []byte `json:"sig"`
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
	var file map[string][]signatureEntry
	if err := json.Unmarshal(boot.Signatures, &file); err != nil {
		return nil, fail(SignatureMissing, err, "the signatures of PCR policies cannot be read")
	}
	print, others := fingerprint(c.key), 0
	for _, e := range file[c.bank] {
		if e.Ref != "" || !slices.Equal(e.PCRs, c.signed) {
			continue
		}
		if e.Fingerprint != print {
			others++
			continue
		}
		if pol, err := hex.DecodeString(e.Policy); err != nil || !bytes.Equal(pol, policy) {
			continue
		}
		sum := sha256.Sum256(policy)
		if err := rsa.VerifyPKCS1v15(c.key, crypto.SHA256, sum[:], e.Signature); err != nil {
			return nil, fail(SignatureForeign, err, "the signature over the present PCRs %v is not by key %.16s, as it says", c.signed, print)
		}
		return &approval{c.key, c.shortExponent, policy, e.Signature}, nil
	}
	if others > 0 && !slices.ContainsFunc(file[c.bank], func(e signatureEntry) bool { return e.Fingerprint == print }) {
		return nil, fail(SignatureForeign, nil, "the boot image's PCR policies are signed by another key than %.16s, which this key was sealed for", print)
	}
	return nil, fail(SignatureMissing, nil, "no signature by key %.16s fits the present value of PCR %v: another image was booted, or this phase of the boot was not signed", print, c.signed)
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
