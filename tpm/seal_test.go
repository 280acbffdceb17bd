package tpm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/tpm"
	"github.com/cryptctl/cryptctl/tpm/tpmtest"
)

func asError(t testing.TB, err error) *tpm.Error {
	t.Helper()
	var e *tpm.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no *tpm.Error", err)
	}
	return e
}

// combinations are all kinds of policies, by format.
func combinations() map[string]tpm.Options {
	return map[string]tpm.Options{
		"PCR 7":                       {Policy: tpm.Policy{PCRs: []int{7}}},
		"unsorted and twice":          {Policy: tpm.Policy{PCRs: []int{7, 0, 7, 4}}},
		"latch":                       {Policy: tpm.Policy{PCRs: []int{7}, Latch: true}},
		"PIN alone":                   {Policy: tpm.Policy{PIN: true}},
		"signed":                      {Policy: tpm.Policy{PCRs: []int{7}, Signed: true}},
		"signed alone, forced":        {Policy: tpm.Policy{Signed: true, AllowWeak: true}},
		"all":                         {Policy: tpm.Policy{PCRs: []int{7, 4}, Signed: true, Latch: true, PIN: true}},
		"talos":                       {Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7, 0, 7}, Signed: true}},
		"talos, signed alone, forced": {Format: tpm.Talos, Policy: tpm.Policy{Signed: true, AllowWeak: true}},
		"systemd":                     {Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}}},
		"systemd, all":                {Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7, 4}, Signed: true, PIN: true}},
	}
}

// TestPolicies seals and unseals with each policy and format, in the boot of the
// seal and in the next; what is not fulfilled is refused, and nothing stays
// loaded on any path.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for name, opts := range combinations() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := booted(t)
			boot := signers()[0].sign(t, m.Open)
			opts.Boot, opts.PIN = bootOf(boot), pin("1234")
			p := newProvider(t, m.Open, opts)
			passphrase, token := enroll(t, p)
			opens(t, p, token, passphrase)
			m.Restart()
			measure(t, m)
			opens(t, p, token, passphrase)
			if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
				t.Errorf("loaded are still %x", loaded)
			}
			broken(t, m, opts, token)
		})
	}
}

// broken breaks each part of a policy in turn.
func broken(t *testing.T, m *tpmtest.Machine, opts tpm.Options, token json.RawMessage) {
	t.Helper()
	p := newProvider(t, m.Open, opts)
	policy := opts.Policy
	if policy.PIN {
		wrong := opts
		wrong.PIN = pin("1235")
		if e := refuses(t, newProvider(t, m.Open, wrong), token, tpm.PINWrong); e.TriesLeft < 1 || !errors.Is(e, keys.ErrDenied) {
			t.Errorf("%v: %d tries left", e, e.TriesLeft)
		}
	}
	if policy.Signed {
		wrong := opts
		wrong.Boot = bootOf(tpm.Boot{PublicKey: signers()[0].pem(t)})
		refuses(t, newProvider(t, m.Open, wrong), token, tpm.SignatureMissing)
		tpmtest.Extend(t, m, 11, "another phase")
		refuses(t, p, token, tpm.SignatureMissing)
		wrong.Boot = bootOf(signers()[0].sign(t, m.Open)) // an update, signed
		got, err := newProvider(t, m.Open, wrong).Recover(t.Context(), request(), token)
		if err != nil {
			t.Errorf("an image that was updated and signed: %v", err)
		}
		got.Wipe()
		m.Restart()
		measure(t, m)
	}
	if policy.Latch {
		if err := tpm.NewDevice(m.Open).Latch(t.Context()); err != nil {
			t.Fatal(err)
		}
		if e := refuses(t, p, token, tpm.Latched); !errors.Is(e, keys.ErrUnavailable) {
			t.Errorf("a closed latch makes the slot %v", e)
		}
		_, _, err := p.Enroll(t.Context(), request())
		if tpm.ReasonOf(err) != tpm.Latched {
			t.Errorf("sealing with a closed latch: %v", err)
		}
		m.Restart()
		measure(t, m)
	}
	if len(policy.PCRs) > 0 {
		tpmtest.Extend(t, m, 7, "other keys")
		reason := tpm.PCRChanged
		if opts.Format == tpm.Talos {
			reason = tpm.PolicyChanged // or another key signs: the token does not tell
		}
		e := refuses(t, p, token, reason)
		if !errors.Is(e, keys.ErrStale) || opts.Format == "" && len(e.PCRs) != 1 {
			t.Errorf("changed are said to be %v: %v", e.PCRs, e)
		}
	}
	if loaded := tpmtest.Handles(t, m); len(loaded) != 0 {
		t.Errorf("after refusals are loaded %x", loaded)
	}
}

// TestRefusedPolicies: what protects nothing or cannot work is not even tried.
func TestRefusedPolicies(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]tpm.Options{
		"nothing":             {},
		"only the latch":      {Policy: tpm.Policy{Latch: true}},
		"signed PCR 11 alone": {Policy: tpm.Policy{Signed: true}},
		"firmware alone":      {Policy: tpm.Policy{PCRs: []int{0}}},
		"option ROMs alone":   {Policy: tpm.Policy{PCRs: []int{2}}},
		"settings alone":      {Policy: tpm.Policy{PCRs: []int{1, 3}}},
		"PCR 6 alone":         {Policy: tpm.Policy{PCRs: []int{6}}},
		"GRUB's PCRs alone":   {Policy: tpm.Policy{PCRs: []int{8, 9}}},
		"IMA alone":           {Policy: tpm.Policy{PCRs: []int{10}}},
		"command line alone":  {Policy: tpm.Policy{PCRs: []int{12}}},
		"shim's PCRs alone":   {Policy: tpm.Policy{PCRs: []int{13, 14}}},
		"firmware and signed": {Policy: tpm.Policy{PCRs: []int{0}, Signed: true}},
		"firmware and latch":  {Policy: tpm.Policy{PCRs: []int{0}, Latch: true}},
		"literal PCR 11":      {Policy: tpm.Policy{PCRs: []int{7, 11}}},
		"literal PCR 15":      {Policy: tpm.Policy{PCRs: []int{7, 15}}},
		"PCR 16":              {Policy: tpm.Policy{PCRs: []int{16}}},
		"PCR 23":              {Policy: tpm.Policy{PCRs: []int{7, 23}}},
		"PCR 24":              {Policy: tpm.Policy{PCRs: []int{24}}},
		"PCR -1":              {Policy: tpm.Policy{PCRs: []int{-1}}},
		"talos with a PIN":    {Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7}, Signed: true, PIN: true}},
		"talos unsigned":      {Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7}}},
		"talos with a latch":  {Format: tpm.Talos, Policy: tpm.Policy{PCRs: []int{7}, Signed: true, Latch: true}},
		"systemd's latch":     {Format: tpm.Systemd, Policy: tpm.Policy{PCRs: []int{7}, Latch: true}},
		"another format":      {Format: "clevis", Policy: tpm.Policy{PCRs: []int{7}}},
	} {
		opts.PIN = pin("1")
		if _, err := tpm.New(opts); tpm.ReasonOf(err) != tpm.Refused || !errors.Is(err, keys.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, policy := range map[string]tpm.Policy{
		"PCR 4": {PCRs: []int{4}}, "PCR 7": {PCRs: []int{0, 7}}, "PCR 17": {PCRs: []int{17}}, "PCR 18": {PCRs: []int{12, 18}},
		"forced": {PCRs: []int{0}, AllowWeak: true}, "a PIN": {PCRs: []int{12}, PIN: true},
	} {
		if _, err := tpm.New(tpm.Options{Policy: policy, PIN: pin("1")}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := tpm.New(tpm.Options{Policy: tpm.Policy{PIN: true}}); tpm.ReasonOf(err) != tpm.PINMissing {
		t.Errorf("a PIN and nobody to ask: %v", err)
	}
}

// TestUnmeasured: a register that nothing was measured into binds nothing.
func TestUnmeasured(t *testing.T) {
	t.Parallel()
	m := tpmtest.Start(t)
	p := newProvider(t, m.Open, tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}})
	if _, _, err := p.Enroll(t.Context(), request()); tpm.ReasonOf(err) != tpm.Refused {
		t.Errorf("sealing to a PCR 7 of zeros: %v", err)
	}
}

// TestMovedHardware tells a cleared TPM from another one, and names the PCRs
// that changed.
func TestMovedHardware(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{0, 4, 7}}}
	p := newProvider(t, m.Open, opts)
	passphrase, token := enroll(t, p)

	tpmtest.Extend(t, m, 0, "new firmware")
	tpmtest.Extend(t, m, 4, "new loader")
	if e := refuses(t, p, token, tpm.PCRChanged); len(e.PCRs) != 2 || e.PCRs[0] != 0 || e.PCRs[1] != 4 {
		t.Errorf("PCRs 0 and 4 changed, said are %v", e.PCRs)
	}
	m.Restart()
	measure(t, m)
	opens(t, p, token, passphrase)

	tpmtest.Clear(t, m)
	if e := refuses(t, p, token, tpm.Cleared); !errors.Is(e, keys.ErrStale) {
		t.Error(e)
	}
	other := booted(t)
	if e := refuses(t, newProvider(t, other.Open, opts), token, tpm.OtherTPM); !errors.Is(e, keys.ErrStale) {
		t.Error(e)
	}
	for _, dev := range []*tpmtest.Machine{m, other} {
		if loaded := tpmtest.Handles(t, dev); len(loaded) != 0 {
			t.Errorf("loaded are still %x", loaded)
		}
	}
}

// TestSigners: a policy signed by another key, and a signature that is none.
func TestSigners(t *testing.T) {
	t.Parallel()
	m := booted(t)
	for _, format := range []tpm.Format{tpm.Own, tpm.Talos, tpm.Systemd} {
		t.Run(string(format), func(t *testing.T) {
			good := signers()[0].sign(t, m.Open)
			opts := tpm.Options{Format: format, Policy: tpm.Policy{Signed: true, AllowWeak: true}, Boot: bootOf(good)}
			passphrase, token := enroll(t, newProvider(t, m.Open, opts))
			opens(t, newProvider(t, m.Open, opts), token, passphrase)
			opts.Boot = bootOf(signers()[1].sign(t, m.Open))
			if e := refuses(t, newProvider(t, m.Open, opts), token, tpm.SignatureForeign); !errors.Is(e, keys.ErrStale) {
				t.Error(e)
			}
			forged := bytes.Replace(good.Signatures, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
			opts.Boot = bootOf(tpm.Boot{PublicKey: good.PublicKey, Signatures: forged})
			refuses(t, newProvider(t, m.Open, opts), token, tpm.SignatureForeign)
			for name, text := range map[string]string{"no JSON": "{", "another shape": `{"sha256":7}`, "empty": "{}"} {
				opts.Boot = bootOf(tpm.Boot{PublicKey: good.PublicKey, Signatures: []byte(text)})
				t.Log(name, refuses(t, newProvider(t, m.Open, opts), token, tpm.SignatureMissing))
			}
		})
	}
}

// TestEnvelope: a token opens for the slot and volume that it was made for, and
// carries the volume's identity.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}}}
	p := newProvider(t, m.Open, opts)
	req := request()
	req.Identity = "identity of STATE"
	passphrase, token, err := p.Enroll(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer passphrase.Wipe()
	o, err := p.Open(t.Context(), request(), token)
	if err != nil || !o.Passphrase.Equal(passphrase) || o.Identity != req.Identity {
		t.Errorf("the envelope holds identity %q: %v", o.Identity, err)
	}
	o.Passphrase.Wipe()
	for name, change := range map[string]func(*keys.Request){
		"slot":   func(r *keys.Request) { r.Slot++ },
		"volume": func(r *keys.Request) { r.Volume = "EPHEMERAL" },
		"UUID":   func(r *keys.Request) { r.UUID = "6f8a7f0e-0e0c-4c39-a3e4-2f1c1a1d0002" },
	} {
		other := request()
		change(&other)
		if got, err := p.Recover(context.Background(), other, token); tpm.ReasonOf(err) != tpm.OtherSlot || !errors.Is(err, keys.ErrDenied) {
			got.Wipe()
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// TestTokensAreInOrder: Talos hashes PCRs in the order of its token, so the token
// must have them sorted and once each, however they are configured.
func TestTokensAreInOrder(t *testing.T) {
	t.Parallel()
	m := booted(t)
	boot := signers()[0].sign(t, m.Open)
	for format, want := range map[tpm.Format]string{tpm.Talos: `"pcrs":[0,7],`, tpm.Systemd: `"tpm2-pcrs":[0,7],`} {
		policy := tpm.Policy{PCRs: []int{7, 0, 7}, Signed: true}
		_, token := enroll(t, newProvider(t, m.Open, tpm.Options{Format: format, Policy: policy, Boot: bootOf(boot)}))
		if !bytes.Contains(token, []byte(want)) {
			t.Errorf("%s: the token has no %s: %s", format, want, token)
		}
		var v any
		if err := json.Unmarshal(token, &v); err != nil {
			t.Error(err)
		}
	}
}

// TestNothingIsAsked: what is not fulfilled is found out before the TPM is asked
// for anything, so that a refusal costs no attempt and leaves nothing to flush.
func TestNothingIsAsked(t *testing.T) {
	t.Parallel()
	m := booted(t)
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}, Signed: true, Latch: true}, Boot: bootOf(signers()[0].sign(t, m.Open))}
	_, token := enroll(t, newProvider(t, m.Open, opts))
	only := &tpmtest.Liar{TPM: m, Answer: func(_ int, command []byte, honest func() ([]byte, error)) ([]byte, error) {
		if code := tpmtest.Code(command); code != tpm2.TPMCCPCRRead {
			t.Errorf("the TPM is asked for %#x", uint32(code))
		}
		return honest()
	}}
	p := newProvider(t, only.Open, opts)
	tpmtest.Extend(t, m, 11, "another phase")
	refuses(t, p, token, tpm.SignatureMissing)
	tpmtest.Extend(t, m, 15, "a volume")
	refuses(t, p, token, tpm.Latched)
	tpmtest.Extend(t, m, 7, "other keys")
	refuses(t, p, token, tpm.PCRChanged)
}
