package provide_test

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

func request() keys.Request {
	return keys.Request{UUID: "6f8a7f0e-0e0c-4c39-a3e4-2f1c1a1d0001", Volume: "STATE", Slot: 3}
}

// efi is a folder with the variables of a firmware, Secure Boot on or off.
func efi(t *testing.T, on bool) string {
	t.Helper()
	dir := t.TempDir()
	tpmtest.SecureBoot(t, dir, on)
	return dir
}

// booted is a machine without Secure Boot, whose firmware measured something and
// whose boot image brings nothing.
func booted(t *testing.T) provide.Machine {
	t.Helper()
	m := tpmtest.Start(t)
	for _, pcr := range []int{4, 7, 11} {
		tpmtest.Extend(t, m, pcr, "boot")
	}
	return provide.Machine{
		TPM: tpm.NewDevice(m.Open), Firmware: efi(t, false),
		Boot: func() (tpm.Boot, error) { return tpm.Boot{}, nil },
	}
}

func key(m provide.Machine, c config.TPM) keys.Key {
	return m.Keys([]config.Key{{Slot: 3, TPM: &c}})[0]
}

// enroll seals a key and returns its token.
func enroll(t *testing.T, k keys.Key) json.RawMessage {
	t.Helper()
	p, token, err := k.Provider.Enroll(t.Context(), request())
	if err != nil {
		t.Fatalf("Enroll: %v", err)
	}
	p.Wipe()
	recovers(t, k, token)
	return token
}

func recovers(t *testing.T, k keys.Key, token json.RawMessage) {
	t.Helper()
	p, err := k.Provider.Recover(t.Context(), request(), token)
	if err != nil {
		t.Fatalf("Recover: %v", err)
	}
	p.Wipe()
}

// refuses demands that nothing is sealed, for a reason.
func refuses(t *testing.T, k keys.Key, class error, words string) {
	t.Helper()
	_, _, err := k.Provider.Enroll(t.Context(), request())
	if !errors.Is(err, class) || !strings.Contains(err.Error(), words) {
		t.Errorf("Enroll: %v, want %v with %q", err, class, words)
	}
}

func seven() config.TPM { return config.TPM{PCRs: []int{7}} }

// TestTPM: what the configuration says is what is sealed.
func TestTPM(t *testing.T) {
	t.Parallel()
	m := booted(t)
	k := key(m, seven())
	token := enroll(t, k)
	if text := string(token); !strings.Contains(text, `"latch":true`) || strings.Contains(text, `"signed"`) || !strings.Contains(text, `"7"`) {
		t.Errorf("the token %s", text)
	}
	c := k.Provider.(keys.Checker)
	if err := c.CheckToken(token); err != nil {
		t.Errorf("what was sealed is not as configured: %v", err)
	}
	if err := key(m, config.TPM{PCRs: []int{4, 7}}).Provider.(keys.Checker).CheckToken(token); err == nil {
		t.Error("other PCRs are as configured")
	}
	if _, ok := k.Provider.(keys.Witness); !ok {
		t.Error("the identity of the volume is not handed out")
	}
	refuses(t, key(m, config.TPM{PCRs: []int{7}, Format: "talos", NoLatch: true}), keys.ErrUnavailable, ".pcrpkey")
	open := seven()
	open.NoLatch = true
	if text := string(enroll(t, key(m, open))); strings.Contains(text, "latch") {
		t.Errorf("latch: false gives the token %s", text)
	}
}

// TestRecord: tokens keep what the machine's event log has for the PCRs.
func TestRecord(t *testing.T) {
	t.Parallel()
	m := booted(t)
	r, err := tpm.RecordOf(enroll(t, key(m, seven())))
	if r != nil || err != nil {
		t.Errorf("another TPM than the machine's, and no log: the record %v, %v", r, err)
	}
	dev := tpmtest.Start(t)
	raw := tpmtest.Measure(t, dev, nil, 7, uint32(eventlog.EvEFIAction), "Secure Boot is on")
	m.TPM = tpm.NewDevice(dev.Open)
	m.EventLog = func() (*eventlog.Log, error) { return eventlog.Parse(raw) }
	r, err = tpm.RecordOf(enroll(t, key(m, seven())))
	if err != nil || r == nil || len(r.PCRs) != 1 || r.PCRs[0].Events[0].About != `action "Secure Boot is on"` {
		t.Errorf("the record %+v, %v", r, err)
	}
}

// TestWeakPolicy: it is refused, and what was sealed under it still opens.
func TestWeakPolicy(t *testing.T) {
	t.Parallel()
	m := booted(t)
	weak := key(m, config.TPM{})
	refuses(t, weak, keys.ErrDenied, "add PCR 7, or a PIN")
	token := enroll(t, key(m, config.TPM{AllowWeakPolicy: true}))
	recovers(t, weak, token)
	image := key(m, config.TPM{PCRs: []int{11, 12}}) // refused too; tokens of Talos may have any
	refuses(t, image, keys.ErrDenied, "use a signed policy")
	recovers(t, image, token)
	dev := tpmtest.Start(t)
	tpmtest.Extend(t, dev, 0, "firmware")
	m.TPM = tpm.NewDevice(dev.Open)
	firmware := key(m, config.TPM{PCRs: []int{0}})
	refuses(t, firmware, keys.ErrDenied, "PCRs [0] protect nothing: ")
	recovers(t, firmware, enroll(t, key(m, config.TPM{PCRs: []int{0}, AllowWeakPolicy: true})))
	tpmtest.Extend(t, dev, 7, "boot")
	if err := weak.Provider.(keys.Checker).CheckToken(enroll(t, key(m, seven()))); err != nil {
		t.Errorf("a key that cannot be made anew: %v", err)
	}
}

// TestPIN: it is asked for with time to type it, and without anyone to ask
// nothing is sealed.
func TestPIN(t *testing.T) {
	t.Parallel()
	m := booted(t)
	c := config.TPM{PIN: true}
	refuses(t, key(m, c), keys.ErrUnavailable, "nobody to ask")
	m.PIN = func(context.Context) (*secret.Bytes, error) { return secret.Copy([]byte("1234")), nil }
	k := key(m, c)
	enroll(t, k)
	if k.Timeout < time.Minute {
		t.Errorf("%v for typing a PIN", k.Timeout)
	}
}

// TestSecureBoot is asked for where the configuration says so, and by a reseal
// always.
func TestSecureBoot(t *testing.T) {
	t.Parallel()
	off := booted(t)
	on := off
	on.Firmware = efi(t, true)
	enrolling, opening, healing := seven(), seven(), seven()
	enrolling.CheckSecurebootStatusOnEnroll = true
	opening.CheckSecurebootStatusOnUnseal = true
	healing.Reseal = true

	refuses(t, key(off, enrolling), keys.ErrDenied, "Secure Boot is off")
	token := enroll(t, key(on, enrolling))
	recovers(t, key(off, enrolling), token)

	if _, err := key(off, opening).Provider.Recover(t.Context(), request(), token); !errors.Is(err, keys.ErrDenied) || !strings.Contains(err.Error(), "Secure Boot is off") {
		t.Errorf("unsealed without Secure Boot: %v", err)
	}
	recovers(t, key(on, opening), token)

	if err := key(off, healing).Reseal(keys.ErrStale); !errors.Is(err, keys.ErrDenied) {
		t.Errorf("sealed anew without Secure Boot: %v", err)
	}
	if err := key(on, healing).Reseal(keys.ErrStale); err != nil {
		t.Errorf("not sealed anew: %v", err)
	}
	if err := key(on, healing).Reseal(&tpm.Error{Reason: tpm.OtherTPM}); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("moved to another machine: %v", err)
	}
	on.EventLog = func() (*eventlog.Log, error) { return nil, errors.New("no log") }
	if err := key(on, healing).Reseal(keys.ErrStale); err == nil || !strings.Contains(err.Error(), "no log") {
		t.Errorf("the event log is not looked at: %v", err)
	}
	if key(on, seven()).Reseal != nil {
		t.Error("sealed anew although the configuration does not say so")
	}
	off.Firmware = filepath.Join(t.TempDir(), "none")
	if err := key(off, healing).Reseal(keys.ErrStale); err == nil || !strings.Contains(err.Error(), "not started by EFI") {
		t.Errorf("a machine without EFI: %v", err)
	}
}

// TestSignedPart is in the policy as soon as the boot image brings a key, and
// when what it brings cannot be read.
func TestSignedPart(t *testing.T) {
	t.Parallel()
	m := booted(t)
	for _, test := range []struct {
		name  string
		boot  tpm.Boot
		err   error
		words string
	}{
		{"a key that is none", tpm.Boot{PublicKey: []byte("junk")}, nil, "a signed policy needs the key that signs"},
		{"what cannot be read", tpm.Boot{}, errors.New("input/output error"), "input/output error"},
	} {
		m.Boot = func() (tpm.Boot, error) { return test.boot, test.err }
		refuses(t, key(m, seven()), keys.ErrUnavailable, test.words)
	}
	m.Boot = func() (tpm.Boot, error) { return tpm.Boot{}, fs.ErrNotExist }
	enroll(t, key(m, seven()))
	c := seven()
	c.SigningKey = []byte("junk")
	refuses(t, key(m, c), keys.ErrDenied, "signing key")
}

// TestNoTPM: the volume's other keys are used.
func TestNoTPM(t *testing.T) {
	t.Parallel()
	m := booted(t)
	token := enroll(t, key(m, seven()))
	m.TPM = tpm.NewDevice(func() (transport.TPMCloser, error) { return nil, fs.ErrNotExist })
	k := key(m, seven())
	refuses(t, k, keys.ErrUnavailable, "cannot be opened")
	if _, err := k.Provider.Recover(t.Context(), request(), token); tpm.ReasonOf(err) != tpm.NoTPM {
		t.Errorf("Recover: %v", err)
	}
}
