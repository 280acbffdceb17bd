package tpm_test

import (
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/tpm"
)

// TestCheckToken: a token is compared with what would be sealed now, and those of
// other formats only with what their format can say.
func TestCheckToken(t *testing.T) {
	t.Parallel()
	m := booted(t)
	image := signers()[0].sign(t, m.Open)
	base := tpm.Options{Boot: bootOf(image), PIN: pin("1234")}
	with := func(change func(*tpm.Options)) tpm.Options {
		o := base
		change(&o)
		return o
	}
	own := with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7, 0}, Signed: true, Latch: true} })
	talos := with(func(o *tpm.Options) { o.Format, o.Policy = tpm.Talos, tpm.Policy{PCRs: []int{7}, Signed: true} })
	systemd := with(func(o *tpm.Options) { o.Format, o.Policy = tpm.Systemd, tpm.Policy{PCRs: []int{7}, PIN: true} })
	signedSystemd := with(func(o *tpm.Options) { o.Format, o.Policy = tpm.Systemd, tpm.Policy{PCRs: []int{7}, Signed: true} })
	for _, test := range []struct {
		name string
		made tpm.Options
		now  tpm.Options
		want string // a part of the difference; "" for none
	}{
		{"own, unchanged", own, own, ""},
		{"own, PCRs in another order", own, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{0, 7, 7}, Latch: true} }), ""},
		{"own, other PCRs", own, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7}, Latch: true} }), "sealed to the PCRs [0 7], and [7] are configured"},
		{"own, no latch", own, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7, 0}} }), "sealed with a latch, and configured without one"},
		{"own, a PIN", own, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7, 0}, Latch: true, PIN: true} }), "sealed without a PIN"},
		{"own, another format", own, with(func(o *tpm.Options) { o.Format, o.Policy = tpm.Talos, tpm.Policy{PCRs: []int{7, 0}, Signed: true} }), "one of cryptctl, and talos is configured"},
		{"own, the key that signs", own, with(func(o *tpm.Options) {
			o.Policy, o.SigningKey = tpm.Policy{PCRs: []int{7, 0}, Latch: true, Signed: true}, image.PublicKey
		}), ""},
		{"own, another key that signs", own, with(func(o *tpm.Options) {
			o.Policy, o.SigningKey = tpm.Policy{PCRs: []int{7, 0}, Latch: true, Signed: true}, signers()[1].pem(t)
		}), "not sealed to the signing key"},
		{"own, a signed policy", with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7}} }), with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7}, Signed: true} }), "sealed without a signed policy"},
		{"systemd, a signed policy", systemd, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7}, PIN: true, Signed: true} }), "sealed without a signed policy"},
		{"systemd, the key that signs", signedSystemd, with(func(o *tpm.Options) {
			o.Policy, o.SigningKey = tpm.Policy{PCRs: []int{7}, Signed: true}, image.PublicKey
		}), ""},
		{"systemd, another key that signs", signedSystemd, with(func(o *tpm.Options) {
			o.Policy, o.SigningKey = tpm.Policy{PCRs: []int{7}, Signed: true}, signers()[1].pem(t)
		}), "not sealed to the signing key"},
		{"talos, which does not say whose key", talos, with(func(o *tpm.Options) {
			o.Policy, o.SigningKey = tpm.Policy{PCRs: []int{7}, Signed: true}, signers()[1].pem(t)
		}), ""},
		{"talos, no format asked for", talos, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7}, Latch: true} }), ""},
		{"talos, our own asked for", talos, with(func(o *tpm.Options) { o.Format, o.Policy = tpm.Own, tpm.Policy{PCRs: []int{7}} }), "one of talos, and cryptctl is configured"},
		{"talos, other PCRs", talos, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{4, 7}} }), "sealed to the PCRs [7]"},
		{"systemd, unchanged", systemd, systemd, ""},
		{"systemd, no PIN", systemd, with(func(o *tpm.Options) { o.Policy = tpm.Policy{PCRs: []int{7}} }), "sealed with a PIN, and configured without one"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, token := enroll(t, newProvider(t, m.Open, test.made))
			err := newProvider(t, m.Open, test.now).CheckToken(token)
			if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	if err := newProvider(t, m.Open, own).CheckToken([]byte(`{"type":"clevis"}`)); err == nil {
		t.Error("a token of another tool is as configured")
	}
}

// TestSigningKey: keys are sealed to the key that is configured and not to the
// one that the boot image brings, and open by the signatures of either.
func TestSigningKey(t *testing.T) {
	t.Parallel()
	m := booted(t)
	configured, image := signers()[0], signers()[1]
	both := tpm.Boot{PublicKey: image.pem(t), Signatures: configured.sign(t, m.Open).Signatures}
	opts := tpm.Options{Policy: tpm.Policy{PCRs: []int{7}, Signed: true}, SigningKey: configured.pem(t), Boot: bootOf(both)}
	passphrase, token := enroll(t, newProvider(t, m.Open, opts))
	opens(t, newProvider(t, m.Open, opts), token, passphrase)
	opts.Boot = bootOf(tpm.Boot{Signatures: both.Signatures})
	opens(t, newProvider(t, m.Open, opts), token, passphrase)

	opts.Boot = bootOf(image.sign(t, m.Open))
	if _, _, err := newProvider(t, m.Open, opts).Enroll(t.Context(), request()); tpm.ReasonOf(err) != tpm.SignatureForeign {
		t.Errorf("sealed with no signature by the configured key: %v", err)
	}
	opts.Format, opts.Boot = tpm.Talos, bootOf(both)
	if _, _, err := newProvider(t, m.Open, opts).Enroll(t.Context(), request()); tpm.ReasonOf(err) != tpm.Refused {
		t.Errorf("Talos would not open it: %v", err)
	}
	opts.SigningKey = []byte("junk")
	if _, err := tpm.New(opts); tpm.ReasonOf(err) != tpm.Refused {
		t.Errorf("a signing key that is none: %v", err)
	}
}
