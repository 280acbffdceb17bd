package doctor_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/doctor"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcr"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// machine is a software TPM and what a boot left on a machine.
type machine struct {
	*tpmtest.Machine
	from doctor.Sources
	boot tpm.Boot
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{Machine: tpmtest.Start(t)}
	tpmtest.Extend(t, m, 0, "firmware")
	tpmtest.Extend(t, m, 7, "keys")
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "efi", "efivars"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]byte{"SecureBoot": 1, "SetupMode": 0} {
		path := filepath.Join(dir, "efi", "efivars", name+"-8be4df61-93ca-11d2-aa0d-00e098032b8c")
		if err := os.WriteFile(path, []byte{6, 0, 0, 0, value}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.from = doctor.Sources{
		EventLog: filepath.Join(dir, "log"), SecureBoot: filepath.Join(dir, "efi"),
		Boot: func() (tpm.Boot, error) { return m.boot, nil },
	}
	return m
}

func (m *machine) findings(t *testing.T) []doctor.Finding {
	t.Helper()
	findings := doctor.Judge(doctor.Gather(t.Context(), tpm.NewDevice(m.Open), m.from))
	if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
		t.Errorf("loaded are still %x", loaded)
	}
	return findings
}

func expect(t *testing.T, findings []doctor.Finding, s doctor.Subject, level doctor.Level, says string) {
	t.Helper()
	if got := find(t, findings, s); got == nil || got.Level != level || !strings.Contains(got.Seen, says) {
		t.Errorf("%s is %+v; wanted is %s, %q", s, got, level, says)
	}
}

// TestGather asks a real TPM and files as the kernel shows them.
func TestGather(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	findings := m.findings(t)
	expect(t, findings, doctor.TPM, doctor.Warning, "software TPM of IBM")
	expect(t, findings, doctor.Encryption, doctor.OK, "AES-128")
	expect(t, findings, doctor.Owner, doctor.Note, "lockout password")
	expect(t, findings, doctor.RootKey, doctor.OK, "none is kept")
	expect(t, findings, doctor.Banks, doctor.OK, "sha256")
	expect(t, findings, doctor.Measured, doctor.OK, "all banks")
	expect(t, findings, doctor.EventLog, doctor.Note, "no event log")
	expect(t, findings, doctor.SecureBoot, doctor.OK, "on (user mode)")
	expect(t, findings, doctor.Signatures, doctor.Note, "brings none")
	expect(t, findings, doctor.Latch, doctor.Note, "open")
	if err := tpm.NewDevice(m.Open).Latch(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, m.findings(t), doctor.Latch, doctor.OK, "closed")
	if err := os.WriteFile(m.from.EventLog, []byte("no log"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, m.findings(t), doctor.EventLog, doctor.Warning, "event 0 of the event log")
}

// TestGatherForeign: of a TPM that the machine did not measure into, nothing of the
// machine is asked.
func TestGatherForeign(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	f := doctor.Gather(t.Context(), tpm.NewDevice(m.Open), doctor.Sources{})
	if len(f.Unknown) != 0 || f.Log != nil || f.SecureBoot != nil || f.Boot != nil {
		t.Errorf("%+v", f)
	}
	findings := doctor.Judge(f)
	for _, s := range []doctor.Subject{doctor.EventLog, doctor.SecureBoot, doctor.Signatures} {
		if got := find(t, findings, s); got != nil {
			t.Errorf("there is %+v", got)
		}
	}
}

// TestGatherNoTPM: the firmware is asked all the same.
func TestGatherNoTPM(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	broken := tpm.NewDevice(func() (transport.TPMCloser, error) { return nil, errors.New("no driver") })
	findings := doctor.Judge(doctor.Gather(t.Context(), broken, m.from))
	expect(t, findings, doctor.TPM, doctor.Problem, "no driver")
	expect(t, findings, doctor.SecureBoot, doctor.OK, "on")
	if len(findings) != 2 || doctor.Worst(findings) != doctor.Problem {
		t.Errorf("%+v", findings)
	}
}

// TestSignatures: what a boot image brings along, against the real PCR 11.
func TestSignatures(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	key, public := signingKey(t)
	other, otherPublic := signingKey(t)
	sign := func(k *uki.Key, value []byte) []byte {
		policy, err := pcr.Policy(pcr.SHA256, map[int][]byte{11: value})
		if err != nil {
			t.Fatal(err)
		}
		all, err := k.Sign(&uki.Prediction{Values: []uki.Value{{Bank: pcr.SHA256, Value: value, Policy: policy}}})
		if err != nil {
			t.Fatal(err)
		}
		text, err := all.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	value := pcr.SHA256.Extend(make([]byte, 32), pcr.SHA256.Sum([]byte("image")))
	good := sign(key, value)
	entries, err := pcrsig.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	entries["sha256"][0].Signature[7] ^= 1
	forged, err := entries.Encode()
	if err != nil {
		t.Fatal(err)
	}
	m.boot = tpm.Boot{PublicKey: public, Signatures: good}
	expect(t, m.findings(t), doctor.Signatures, doctor.Warning, "nothing was measured into PCR 11")
	tpmtest.Extend(t, m, 11, "image")
	for name, c := range map[string]struct {
		boot  tpm.Boot
		level doctor.Level
		says  string
	}{
		"good":             {tpm.Boot{PublicKey: public, Signatures: good}, doctor.OK, "is about the present PCR 11"},
		"of another value": {tpm.Boot{PublicKey: public, Signatures: sign(key, make([]byte, 32))}, doctor.Note, "not about the present PCR 11"},
		"by another key":   {tpm.Boot{PublicKey: public, Signatures: sign(other, value)}, doctor.Warning, "signed by another key"},
		"for another key":  {tpm.Boot{PublicKey: otherPublic, Signatures: good}, doctor.Warning, "signed by another key"},
		"forged":           {tpm.Boot{PublicKey: public, Signatures: forged}, doctor.Problem, "not one of this key"},
		"key alone":        {tpm.Boot{PublicKey: public}, doctor.Warning, "only one of"},
		"signatures alone": {tpm.Boot{Signatures: good}, doctor.Warning, "only one of"},
		"no key":           {tpm.Boot{PublicKey: []byte("x"), Signatures: good}, doctor.Warning, "not a public key"},
		"no JSON":          {tpm.Boot{PublicKey: public, Signatures: []byte("x")}, doctor.Warning, "invalid character"},
		"no bank":          {tpm.Boot{PublicKey: public, Signatures: []byte("{}")}, doctor.Warning, "no policy is signed for this PCR bank"},
	} {
		m.boot = c.boot
		got := find(t, m.findings(t), doctor.Signatures)
		if got.Level != c.level || !strings.Contains(got.Seen, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func signingKey(t *testing.T) (*uki.Key, []byte) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	key, err := uki.ReadKey(path)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicPEM()
	if err != nil {
		t.Fatal(err)
	}
	return key, public
}

// TestGolden plays the log of a real boot under OVMF with Secure Boot to a TPM: it
// says nothing against PCRs that have the values it gives, and names the one that
// was extended past it.
func TestGolden(t *testing.T) {
	t.Parallel()
	const path = "../eventlog/testdata/ovmf-secureboot.bin"
	l, err := eventlog.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{Machine: tpmtest.Start(t), from: doctor.Sources{EventLog: path}}
	for i := range l.Events {
		e := &l.Events[i]
		if !e.Extends() {
			continue
		}
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.PCR), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: e.Digest(pcr.SHA256)}}},
		}.Execute(m)
		if err != nil {
			t.Fatal(err)
		}
	}
	findings := m.findings(t)
	expect(t, findings, doctor.EventLog, doctor.OK, "give PCRs 0 to 7 the values that they have")
	// The firmware measured into one bank only, as a log of one bank has it.
	expect(t, findings, doctor.Measured, doctor.Warning, "does not measure into the bank sha1, sha384, sha512")
	tpmtest.Extend(t, m, 11, "enter-initrd")
	tpmtest.Extend(t, m, 15, "a volume")
	findings = m.findings(t)
	expect(t, findings, doctor.EventLog, doctor.OK, "the operating system extended PCRs 15 after it")
	tpmtest.Extend(t, m, 7, "x")
	expect(t, m.findings(t), doctor.EventLog, doctor.Problem, "PCRs 7 do not have")
}

// TestDebug: firmware that runs with a debugger, or without a guard against DMA,
// says so in PCR 7; the same words elsewhere mean nothing.
func TestDebug(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		index int
		kind  eventlog.Type
		text  string
		says  string
	}{
		"debugger":      {7, eventlog.EvEFIAction, "UEFI Debug Mode", "UEFI Debug Mode"},
		"with a NUL":    {7, eventlog.EvEFIAction, "DMA Protection Disabled\x00", "DMA Protection Disabled"},
		"another PCR":   {4, eventlog.EvEFIAction, "UEFI Debug Mode", ""},
		"another type":  {7, eventlog.EvIPL, "UEFI Debug Mode", ""},
		"another text":  {7, eventlog.EvEFIAction, "UEFI Debug Mode is off", ""},
		"another event": {7, eventlog.EvSeparator, "\x00\x00\x00\x00", ""},
	} {
		m := &machine{Machine: tpmtest.Start(t), from: doctor.Sources{EventLog: filepath.Join(t.TempDir(), "log")}}
		// TCG PC Client Platform Firmware Profile, 9.2: header, then TCG_PCR_EVENT2.
		le := binary.LittleEndian
		spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0b, 0, 32, 0, 0)
		log := append(le.AppendUint32(le.AppendUint32(nil, 0), 3), make([]byte, 20)...)
		log = append(le.AppendUint32(log, uint32(len(spec))), spec...)
		add := func(index int, kind eventlog.Type, text string) {
			tpmtest.Extend(t, m, index, text)
			log = le.AppendUint32(le.AppendUint32(log, uint32(index)), uint32(kind))
			log = append(append(log, 1, 0, 0, 0, 0x0b, 0), pcr.SHA256.Sum([]byte(text))...)
			log = append(le.AppendUint32(log, uint32(len(text))), text...)
		}
		add(7, eventlog.EvSeparator, "\x00\x00\x00\x00")
		add(c.index, c.kind, c.text)
		if err := os.WriteFile(m.from.EventLog, log, 0o600); err != nil {
			t.Fatal(err)
		}
		level := doctor.OK
		if c.says != "" {
			level = doctor.Warning
		}
		got := find(t, m.findings(t), doctor.EventLog)
		if got.Level != level || !strings.HasSuffix(got.Seen, c.says) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
