package tpm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

// TestFits: it gives the reason that Recover gives, in every state of a machine,
// without asking for a PIN, and leaves nothing loaded.
func TestFits(t *testing.T) {
	t.Parallel()
	states := []struct {
		name   string
		change func(*testing.T, *tpmtest.Machine)
		fits   func(tpm.Options) bool
	}{
		{"as sealed", func(*testing.T, *tpmtest.Machine) {}, func(tpm.Options) bool { return true }},
		{"next boot", func(t *testing.T, m *tpmtest.Machine) { m.Restart(); measure(t, m) }, func(tpm.Options) bool { return true }},
		{"another phase", func(t *testing.T, m *tpmtest.Machine) { tpmtest.Extend(t, m, 11, "phase") }, func(o tpm.Options) bool { return !o.Policy.Signed }},
		{"latched", func(t *testing.T, m *tpmtest.Machine) {
			if err := tpm.NewDevice(m.Open).Latch(t.Context()); err != nil {
				t.Fatal(err)
			}
		}, func(o tpm.Options) bool { return !o.Policy.Latch }},
		{"other keys", func(t *testing.T, m *tpmtest.Machine) { tpmtest.Extend(t, m, 7, "keys") }, func(o tpm.Options) bool { return len(o.Policy.PCRs) == 0 }},
		{"cleared", func(t *testing.T, m *tpmtest.Machine) { tpmtest.Clear(t, m) }, func(tpm.Options) bool { return false }},
	}
	for name, opts := range combinations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := booted(t)
			tpmtest.MaxTries(t, m, 1000) // a restart as these counts as a wrong PIN
			boot := signers()[0].sign(t, m.Open)
			opts.Boot, opts.PIN = bootOf(boot), pin("1234")
			_, token := enroll(t, newProvider(t, m.Open, opts))
			p := newProvider(t, m.Open, opts)
			mute := opts
			mute.PIN = func(context.Context) (*secret.Bytes, error) {
				t.Error("Fits asks for the PIN")
				return nil, errors.New("no")
			}
			for _, s := range states {
				m.Restart()
				measure(t, m)
				s.change(t, m)
				err := newProvider(t, m.Open, mute).Fits(t.Context(), token)
				got, want := p.Recover(t.Context(), request(), token)
				got.Wipe()
				if (err == nil) != s.fits(opts) || tpm.ReasonOf(err) != tpm.ReasonOf(want) {
					t.Errorf("%s: Fits gives %v, Recover %v", s.name, err, want)
				}
			}
			if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
				t.Errorf("loaded are still %x", loaded)
			}
		})
	}
}

// TestFitsDamaged: a token that cannot be read, or not be loaded, does not fit.
func TestFitsDamaged(t *testing.T) {
	t.Parallel()
	m := booted(t)
	p := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}})
	_, token := enroll(t, p)
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(token, &parts); err != nil {
		t.Fatal(err)
	}
	var private []byte
	if err := json.Unmarshal(parts["private"], &private); err != nil {
		t.Fatal(err)
	}
	private[len(private)-1] ^= 1
	parts["private"], _ = json.Marshal(private)
	changed, err := json.Marshal(parts)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{"changed": string(changed), "empty": "{}", "no JSON": "x", "another type": `{"type":"clevis","keyslots":["0"]}`} {
		if err := p.Fits(t.Context(), json.RawMessage(raw)); tpm.ReasonOf(err) != tpm.Damaged {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSealGiven: a passphrase that is given comes back as it is; what does not fit
// into a token is refused before the TPM is asked.
func TestSealGiven(t *testing.T) {
	t.Parallel()
	r := &tpmtest.Recorder{TPM: booted(t)}
	p := newProvider(t, r.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}})
	for _, size := range []int{1, 10, 44, 255} {
		want := secret.Random(size)
		raw, err := p.Seal(t.Context(), request(), want)
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		opens(t, p, raw, want)
		if bytes.Contains(raw, want.Bytes()) && size > 1 || r.Shows(want.Bytes()) {
			t.Errorf("a secret of %d bytes shows in the token, or on the bus", size)
		}
	}
	for _, size := range []int{0, 256, 4096} {
		asked := r.Count()
		if _, err := p.Seal(t.Context(), request(), secret.Random(size)); tpm.ReasonOf(err) != tpm.Refused || r.Count() != asked {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	other := newProvider(t, r.Open, tpm.Options{Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}}})
	if _, err := other.Seal(t.Context(), request(), secret.Random(8)); tpm.ReasonOf(err) != tpm.Refused {
		t.Errorf("systemd's token: %v", err)
	}
}
