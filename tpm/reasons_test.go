package tpm_test

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// seven is the plainest policy.
func seven() tpm.Options { return tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}} }

// switchOff has a hierarchy switched off until the next boot, as firmware does it
// (TPM 2.0 Part 3, 24.2: TPM2_HierarchyControl, by the platform).
func switchOff(t *testing.T, m *tpmtest.Machine, hierarchy tpm2.TPMHandle) {
	t.Helper()
	command := []byte{0x80, 2, 0, 0, 0, 32, 0, 0, 1, 0x21, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0}
	command = append(binary.BigEndian.AppendUint32(command, uint32(hierarchy)), 0)
	answer, err := m.Send(command)
	if err != nil || len(answer) < 10 || binary.BigEndian.Uint32(answer[6:]) != 0 {
		t.Fatalf("switch %#x off: %x, %v", uint32(hierarchy), answer, err)
	}
}

// kept makes a key persistent at the usual handle.
func kept(t *testing.T, m *tpmtest.Machine, public tpm2.TPMTPublic, auth string) {
	t.Helper()
	owner := tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)}
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(public),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte(auth)}}},
	}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	_, err = tpm2.EvictControl{
		Auth: owner, ObjectHandle: tpm2.NamedHandle{Handle: rsp.ObjectHandle, Name: rsp.Name}, PersistentHandle: 0x81000001,
	}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
	tpmtest.Flush(t, m)
}

// ownerPassword gives the owner one.
func ownerPassword(t *testing.T, m *tpmtest.Machine) {
	t.Helper()
	_, err := tpm2.HierarchyChangeAuth{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NewAuth:    tpm2.TPM2BAuth{Buffer: []byte("owner")},
	}.Execute(m)
	if err != nil {
		t.Fatal(err)
	}
}

// signingTemplate is of a key that is no storage root key.
func signingTemplate() tpm2.TPMTPublic {
	public := tpm2.ECCSRKTemplate
	public.ObjectAttributes.Restricted, public.ObjectAttributes.Decrypt, public.ObjectAttributes.SignEncrypt = false, false, true
	public.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256})
	return public
}

// says demands words in an error.
func says(t *testing.T, err error, words string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("%v; want %q", err, words)
	}
}

// TestSwitchedOff: keys that the firmware switched off are neither gone nor those
// of another TPM, and come back with the next boot.
func TestSwitchedOff(t *testing.T) {
	t.Parallel()
	m := booted(t)
	p := newProvider(t, m.Open, seven())
	passphrase, token := enroll(t, p)
	switchOff(t, m, tpm2.TPMRHOwner)
	for range 2 {
		says(t, refuses(t, p, token, tpm.Faulty), "the owner's keys are switched off in the firmware")
		if err := p.Fits(t.Context(), token); tpm.ReasonOf(err) != tpm.Faulty {
			t.Errorf("Fits: %v", err)
		}
		_, _, err := p.Enroll(t.Context(), request())
		says(t, err, "the owner's keys are switched off in the firmware")
		if err == nil || tpm.ReasonOf(err) != tpm.Faulty {
			t.Errorf("a seal: %v", err)
		}
		if owner, err := tpm.NewDevice(m.Open).Owner(t.Context()); err != nil || !owner.Off {
			t.Errorf("the owner %+v, %v", owner, err)
		}
		switchOff(t, m, tpm2.TPMRHEndorsement)
	}
	m.Restart()
	measure(t, m)
	opens(t, p, token, passphrase)
}

// TestEndorsementOff: without the endorsement key nobody can tell a cleared TPM
// from another one, and it is not said to be either.
func TestEndorsementOff(t *testing.T) {
	t.Parallel()
	m := booted(t)
	p := newProvider(t, m.Open, seven())
	passphrase, token := enroll(t, p)
	switchOff(t, m, tpm2.TPMRHEndorsement)
	opens(t, p, token, passphrase)
	_, without := enroll(t, p) // a token that pins no endorsement key
	tpmtest.Clear(t, m)
	switchOff(t, m, tpm2.TPMRHEndorsement)
	says(t, refuses(t, p, token, tpm.OtherTPM), "cannot be told")
	says(t, refuses(t, p, without, tpm.OtherTPM), "cleared or exchanged")
	m.Restart()
	measure(t, m)
	refuses(t, p, token, tpm.Cleared)
}

// failing answers a command with an error, from its nth on or that once.
func failing(m *tpmtest.Machine, code tpm2.TPMRC, lasting bool, match func(command []byte) bool) *tpmtest.Liar {
	seen := 0
	return &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
		if seen > 0 && lasting && tpmtest.Code(command) != tpm2.TPMCCFlushContext {
			return tpmtest.Failed(code), nil
		}
		if seen == 0 && match(command) {
			seen++
			return tpmtest.Failed(code), nil
		}
		return honest()
	}}
}

func is(code tpm2.TPMCC) func([]byte) bool {
	return func(command []byte) bool { return tpmtest.Code(command) == code }
}

// TestFailing: a TPM that fails, or is short of room, at any command that its
// answer depends on says nothing of the token or of which TPM it is.
func TestFailing(t *testing.T) {
	t.Parallel()
	m := booted(t)
	_, token := enroll(t, newProvider(t, m.Open, seven()))
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCFailure, tpm2.TPMRCObjectMemory, tpm2.TPMRCNVUnavailable, tpm2.TPMRCInitialize} {
		for _, command := range []tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCLoad, tpm2.TPMCCReadPublic} {
			p := newProvider(t, failing(m, code, true, is(command)).Open, seven())
			if e := refuses(t, p, token, tpm.Faulty); len(e.PCRs) > 0 {
				t.Error(e)
			}
			tpmtest.Flush(t, m)
		}
	}
	eccEK := func(command []byte) bool {
		return is(tpm2.TPMCCCreatePrimary)(command) && binary.BigEndian.Uint32(command[10:]) == uint32(tpm2.TPMRHEndorsement)
	}
	p := newProvider(t, failing(m, tpm2.TPMRCObjectMemory, false, eccEK).Open, seven())
	if _, _, err := p.Enroll(t.Context(), request()); tpm.ReasonOf(err) != tpm.Faulty {
		t.Errorf("sealed with another endorsement key than the TPM's first: %v", err)
	}
	tpmtest.Clear(t, m)
	refuses(t, newProvider(t, failing(m, tpm2.TPMRCObjectMemory, false, eccEK).Open, seven()), token, tpm.Faulty)
	kept(t, m, tpm2.ECCSRKTemplate, "")
	refuses(t, newProvider(t, failing(m, tpm2.TPMRCObjectMemory, false, is(tpm2.TPMCCReadPublic)).Open, seven()), token, tpm.Faulty)
	refuses(t, newProvider(t, m.Open, seven()), token, tpm.Cleared)
}

// TestUnsupported: a TPM that does not have an algorithm is asked for the next.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	m := booted(t)
	ecc := func(command []byte) bool {
		return is(tpm2.TPMCCCreatePrimary)(command) && strings.Contains(string(command), "\x00\x23\x00\x0b")
	}
	rsaOnly := &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
		if ecc(command) {
			return tpmtest.Failed(tpm2.TPMRCValue | 0x240), nil // of the second parameter
		}
		return honest()
	}}
	p := newProvider(t, rsaOnly.Open, seven())
	passphrase, token := enroll(t, p)
	if !strings.Contains(string(token), `"template":"tcg-rsa"`) {
		t.Errorf("sealed under %s", token)
	}
	opens(t, p, token, passphrase)
	tpmtest.Clear(t, m)
	refuses(t, p, token, tpm.Cleared)
}

// TestKeyWithPassword: the key that a token pins is kept with a password of its
// own. Neither the token nor the TPM is another.
func TestKeyWithPassword(t *testing.T) {
	t.Parallel()
	m := booted(t)
	p := newProvider(t, m.Open, seven())
	_, token := enroll(t, p)
	kept(t, m, tpm2.ECCSRKTemplate, "x")
	says(t, refuses(t, p, token, tpm.Faulty), "kept at 0x81000001 has a password")
}

// TestOldSystemdOwnerPassword: such a token does not say which storage root key
// it has; with the owner's password set since, that is the reason.
func TestOldSystemdOwnerPassword(t *testing.T) {
	t.Parallel()
	opts := seven()
	opts.Format = tpm.Systemd
	for name, keep := range map[string]func(*testing.T, *tpmtest.Machine){
		"no key kept":      func(*testing.T, *tpmtest.Machine) {},
		"another key kept": func(t *testing.T, m *tpmtest.Machine) { kept(t, m, tpm2.ECCSRKTemplate, "") },
		"no storage key":   func(t *testing.T, m *tpmtest.Machine) { kept(t, m, signingTemplate(), "") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := booted(t)
			p := newProvider(t, m.Open, opts)
			passphrase, raw := enroll(t, p)
			if strings.Contains(string(raw), "tpm2_srk") {
				t.Fatalf("the token names its storage root key: %s", raw)
			}
			opens(t, p, raw, passphrase)
			keep(t, m)
			opens(t, p, raw, passphrase)
			ownerPassword(t, m)
			says(t, refuses(t, p, raw, tpm.Faulty), "the owner hierarchy has a password")
		})
	}
}

// TestSealUnfitKey: where only the owner makes keys, and what is kept is of no
// use, the error says that it is, and not that there is none.
func TestSealUnfitKey(t *testing.T) {
	t.Parallel()
	m := booted(t)
	kept(t, m, signingTemplate(), "")
	ownerPassword(t, m)
	_, _, err := newProvider(t, m.Open, seven()).Enroll(t.Context(), request())
	says(t, err, "what is kept at 0x81000001 is no storage root key of use")
	if tpm.ReasonOf(err) != tpm.Faulty {
		t.Error(err)
	}
}

// without takes a member out of a token.
func without(t *testing.T, raw json.RawMessage, member string) json.RawMessage {
	t.Helper()
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members[member] == nil {
		t.Fatalf("no %s in %s: %v", member, raw, err)
	}
	delete(members, member)
	changed, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// TestBankAbsent: tokens of old systemd do not name their bank. One that is
// switched off, or that the TPM has never heard of, is passed over; a TPM that
// fails to read one is not said to have other values.
func TestBankAbsent(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := seven()
	opts.Format = tpm.Systemd
	passphrase, raw := enroll(t, newProvider(t, m.Open, opts))
	raw = without(t, raw, "tpm2-pcr-bank")
	empty := func(bank byte) []byte {
		return []byte{0x80, 1, 0, 0, 0, 28, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, bank, 3, 0, 0, 0, 0, 0, 0, 0}
	}
	none := []byte{0x80, 1, 0, 0, 0, 22, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	const sha1, sha256 = 0x04, 0x0b
	read := func(answers map[uint16][]byte) *tpm.Provider {
		return newProvider(t, (&tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
			if is(tpm2.TPMCCPCRRead)(command) {
				if answer := answers[binary.BigEndian.Uint16(command[14:])]; answer != nil {
					return answer, nil
				}
			}
			return honest()
		}}).Open, opts)
	}
	unknown, broken := tpmtest.Failed(tpm2.TPMRCHash), tpmtest.Failed(tpm2.TPMRCFailure)
	for _, absent := range []map[uint16][]byte{
		{sha1: empty(sha1), sha256: empty(sha256)}, {sha1: none, sha256: none}, {sha1: unknown, sha256: unknown},
	} {
		opens(t, read(map[uint16][]byte{sha1: absent[sha1]}), raw, passphrase)
		refuses(t, read(map[uint16][]byte{sha256: absent[sha256]}), raw, tpm.PCRChanged)
		says(t, refuses(t, read(absent), raw, tpm.Faulty), "no values of the PCRs [7]")
	}
	refuses(t, read(map[uint16][]byte{sha256: broken}), raw, tpm.Faulty)
	tpmtest.Extend(t, m, 7, "other keys")
	refuses(t, read(map[uint16][]byte{sha1: broken}), raw, tpm.Faulty)
	refuses(t, read(nil), raw, tpm.PCRChanged)
}

// TestWhichPart: what a token cannot tell is not asserted. Those of Talos do not
// say whose signature they want; ours and systemd's do.
func TestWhichPart(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, Boot: bootOf(signers()[0].sign(t, m.Open))}
	_, token := enroll(t, newProvider(t, m.Open, opts))
	opts.Boot = bootOf(signers()[1].sign(t, m.Open))
	const open = "PCR 7 (Secure Boot state and keys) changed since the key was sealed, or another key signs the boot image's policies"
	says(t, refuses(t, newProvider(t, m.Open, opts), token, tpm.PolicyChanged), open)

	opts = tpm.Options{Format: tpm.Systemd, Policy: tpm.Policy{Signed: true, AllowWeak: true}, Boot: bootOf(signers()[0].sign(t, m.Open))}
	_, token = enroll(t, newProvider(t, m.Open, opts))
	var members map[string]json.RawMessage
	if err := json.Unmarshal(token, &members); err != nil {
		t.Fatal(err)
	}
	members["tpm2_pubkey"], _ = json.Marshal(signers()[1].pem(t))
	changed, err := json.Marshal(members)
	if err != nil {
		t.Fatal(err)
	}
	refuses(t, newProvider(t, m.Open, opts), changed, tpm.Damaged)
}
