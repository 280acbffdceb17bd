package tpm

import (
	"crypto/aes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/secret"
)

const nonceSize = 16

// aesBits is the key size of parameter encryption: some TPMs refuse 256.
const aesBits = 128

// hmacSession starts a session that encrypts the first parameter in both
// directions, salted to a storage root key.
func hmacSession(l *link, parent storageKey) (tpm2.Session, func(), error) {
	s, _, err := tpm2.HMACSession(l, tpm2.TPMAlgSHA256, nonceSize,
		tpm2.Salted(parent.handle, parent.public), tpm2.AESEncryption(aesBits, tpm2.EncryptInOut))
	if err != nil {
		return nil, nil, err
	}
	h := s.Handle()
	if err := ofKind(h, tpm2.TPMHTHMACSession); err != nil {
		return nil, nil, err
	}
	return s, func() { l.flush(h) }, nil
}

// veiled is a session that encrypts for the TPM what go-tpm does not see: go-tpm
// is given a parameter of zeros, and makes copies of it that nobody can wipe.
type veiled struct {
	tpm2.Session
	fill func(parameter []byte) // with what it really is
}

// Encrypt implements [tpm2.Session].
func (v veiled) Encrypt(parameter []byte) error {
	v.fill(parameter)
	err := v.Session.Encrypt(parameter)
	if err != nil {
		clear(parameter)
	}
	return err
}

// policySession is a policy session whose answers are encrypted, salted to a
// storage root key. It does what go-tpm's own does, but for auth values with a
// zero byte inside: that one cuts them there, and about every eighth PIN of
// systemd's tokens would be refused as wrong.
type policySession struct {
	handle  tpm2.TPMHandle
	key     []byte // of the session
	auth    *secret.Bytes
	caller  []byte // nonces
	fromTPM []byte
	answer  *secret.Bytes // the last encrypted parameter, see Decrypt
}

// startPolicy starts a session. auth is the PIN's auth value, nil without; the
// caller wipes it after the session.
func startPolicy(l *link, parent storageKey, auth *secret.Bytes) (*policySession, func(), error) {
	public, err := tpm2.ImportEncapsulationKey(&parent.public)
	if err != nil {
		return nil, nil, err
	}
	salt, encrypted, err := tpm2.CreateEncryptedSalt(rand.Reader, public)
	if err != nil {
		return nil, nil, err
	}
	s := &policySession{auth: auth, caller: make([]byte, nonceSize)}
	rand.Read(s.caller) // never fails
	rsp, err := tpm2.StartAuthSession{
		TPMKey: parent.handle, Bind: tpm2.TPMRHNull,
		NonceCaller:   tpm2.TPM2BNonce{Buffer: s.caller},
		EncryptedSalt: tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
		SessionType:   tpm2.TPMSEPolicy,
		Symmetric: tpm2.TPMTSymDef{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(aesBits)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		AuthHash: tpm2.TPMAlgSHA256,
	}.Execute(l)
	if err != nil {
		return nil, nil, err
	}
	s.handle, s.fromTPM = tpm2.TPMHandle(rsp.SessionHandle), rsp.NonceTPM.Buffer
	if err := ofKind(s.handle, tpm2.TPMHTPolicySession); err != nil {
		return nil, nil, err
	}
	s.key = kdfa(salt, "ATH", s.fromTPM, s.caller, sha256.Size)
	clear(salt)
	return s, func() { l.flush(s.handle); clear(s.key); s.answer.Wipe() }, nil
}

// attributes: the session stays after its use, and encrypts answers.
func attributes() tpm2.TPMASession { return tpm2.TPMASession{ContinueSession: true, Encrypt: true} }

// value is the key of MACs and of encryption (Part 1, 19.6.5 and 21.2). TPMs keep
// auth values without the zeros at their end.
func (s *policySession) value() []byte {
	auth := trimZeros(s.auth.Bytes())
	value := make([]byte, 0, len(s.key)+len(auth)) // so that it is not moved, and left behind
	return append(append(value, s.key...), auth...)
}

func trimZeros(auth []byte) []byte {
	for len(auth) > 0 && auth[len(auth)-1] == 0 {
		auth = auth[:len(auth)-1]
	}
	return auth
}

func (s *policySession) mac(newer, older []byte, attrs tpm2.TPMASession, add []byte, parts ...[]byte) []byte {
	h := sha256.New()
	for _, p := range parts {
		h.Write(p)
	}
	key := s.value()
	defer clear(key)
	m := newMAC(key)
	defer m.wipe()
	var sum [sha256.Size]byte
	m.sum(&sum, h.Sum(nil), newer, older, add, tpm2.Marshal(attrs))
	return sum[:]
}

// Authorize implements [tpm2.Session].
func (s *policySession) Authorize(cc tpm2.TPMCC, parms, addNonces []byte, names []tpm2.TPM2BName, _ int) (*tpm2.TPMSAuthCommand, error) {
	parts := [][]byte{binary.BigEndian.AppendUint32(nil, uint32(cc))}
	for _, n := range names {
		parts = append(parts, n.Buffer)
	}
	mac := s.mac(s.caller, s.fromTPM, attributes(), addNonces, append(parts, parms)...)
	return &tpm2.TPMSAuthCommand{
		Handle: s.handle, Nonce: tpm2.TPM2BNonce{Buffer: s.caller},
		Attributes: attributes(), Authorization: tpm2.TPM2BData{Buffer: mac},
	}, nil
}

// Validate implements [tpm2.Session].
func (s *policySession) Validate(rc tpm2.TPMRC, cc tpm2.TPMCC, parms []byte, _ []tpm2.TPM2BName, _ int, auth *tpm2.TPMSAuthResponse) error {
	s.fromTPM = auth.Nonce.Buffer
	head := binary.BigEndian.AppendUint32(nil, uint32(rc))
	head = binary.BigEndian.AppendUint32(head, uint32(cc))
	if !hmac.Equal(s.mac(s.fromTPM, s.caller, auth.Attributes, nil, head, parms), auth.Authorization.Buffer) {
		return errors.New("an answer whose MAC is wrong")
	}
	if !auth.Attributes.Encrypt {
		return errors.New("an answer that is not encrypted")
	}
	return nil
}

// Decrypt implements [tpm2.Session]: AES in CFB mode (Part 1, 21.3). What is
// decrypted goes into answer, and what go-tpm has stays encrypted: it makes copies
// that nobody can wipe.
func (s *policySession) Decrypt(parameter []byte) error {
	value := s.value()
	defer clear(value)
	keyIV := kdfa(value, "CFB", s.fromTPM, s.caller, aesBits/8+aes.BlockSize)
	defer clear(keyIV)
	block, err := aes.NewCipher(keyIV[:aesBits/8])
	if err != nil {
		return err
	}
	s.answer.Wipe()
	s.answer = secret.New(len(parameter))
	feed, pad, out := keyIV[aesBits/8:], make([]byte, aes.BlockSize), s.answer.Bytes()
	defer clear(pad)
	for at := 0; at < len(parameter); at += aes.BlockSize {
		block.Encrypt(pad, feed)
		feed = parameter[at:min(at+aes.BlockSize, len(parameter))]
		subtle.XORBytes(out[at:], feed, pad)
	}
	return nil
}

// Init implements [tpm2.Session]: the session is there.
func (s *policySession) Init(transport.TPM) error { return nil }

// CleanupFailure implements [tpm2.Session]: whoever started the session ends it.
func (s *policySession) CleanupFailure(transport.TPM) error { return nil }

// NonceTPM implements [tpm2.Session].
func (s *policySession) NonceTPM() tpm2.TPM2BNonce { return tpm2.TPM2BNonce{Buffer: s.fromTPM} }

// NewNonceCaller implements [tpm2.Session].
func (s *policySession) NewNonceCaller() error {
	s.caller = make([]byte, nonceSize)
	rand.Read(s.caller) // never fails
	return nil
}

// IsEncryption implements [tpm2.Session].
func (s *policySession) IsEncryption() bool { return true }

// IsDecryption implements [tpm2.Session].
func (s *policySession) IsDecryption() bool { return false }

// Encrypt implements [tpm2.Session]: commands are not encrypted, for none that
// carries a secret is sent in such a session.
func (s *policySession) Encrypt([]byte) error { return nil }

// Handle implements [tpm2.Session].
func (s *policySession) Handle() tpm2.TPMHandle { return s.handle }
