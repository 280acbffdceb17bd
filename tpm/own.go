package tpm

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// enrollOwn makes one of our own tokens, for a random passphrase.
func (p *Provider) enrollOwn(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	random := secret.Random(keySize)
	defer random.Wipe()
	passphrase := encode(random)
	raw, err := p.Seal(ctx, req, passphrase)
	if err != nil {
		passphrase.Wipe()
		return nil, nil, err
	}
	return passphrase, raw, nil
}

// maxPassphrase is what an envelope's length byte can say.
const maxPassphrase = 255

// Seal is Enroll for a passphrase that is there already, of 1 to 255 bytes. Only
// our own tokens can hold one; what the others seal is always random.
func (p *Provider) Seal(ctx context.Context, req keys.Request, passphrase *secret.Bytes) (json.RawMessage, error) {
	if p.opts.Format != Own {
		return nil, fail(Refused, nil, "a token of format %s holds random bytes and no passphrase that was given; use the format %s", p.opts.Format, Own)
	}
	if n := passphrase.Len(); n == 0 || n > maxPassphrase {
		return nil, fail(Refused, nil, "a passphrase of %d bytes; a token holds 1 to %d", n, maxPassphrase)
	}
	var stretch *token.OwnPIN
	var pin pinKey
	if p.opts.Policy.PIN {
		stretch = newPIN()
		var err error
		if pin, err = p.ownPIN(ctx, *stretch); err != nil {
			return nil, err
		}
		defer pin.wipe()
	}
	s, kek, err := p.seal(ctx, plan{pin: pin, templates: []string{"tcg-ecc", "tcg-rsa"}, wantEK: true})
	if err != nil {
		return nil, err
	}
	defer kek.Wipe()
	o := Opened{Passphrase: passphrase, Identity: req.Identity}
	envelope, err := closeEnvelope(kek, pin.envelope, bound(req, s.digest), o)
	if err != nil {
		return nil, err
	}
	raw, err := token.Own{
		Slot: req.Slot, Sealed: s.object, Parent: token.Parent{Template: s.template, Public: s.parentPublic},
		EK: s.ek, Policy: s.describe(p.opts.Policy, stretch), Envelope: envelope,
		Record: p.record(s.values),
	}.Encode()
	if err != nil {
		return nil, fail(Faulty, err, "write the token")
	}
	return raw, nil
}

// describe says in a token what the policy is.
func (s sealed) describe(p Policy, pin *token.OwnPIN) token.OwnPolicy {
	d := token.OwnPolicy{PCRs: s.prefixes, Latch: p.Latch, PIN: pin}
	if s.conditions.key != nil {
		d.Signed = &token.OwnSigned{Key: keyDER(s.conditions.key), PCRs: s.conditions.signed}
	}
	return d
}

// ownPIN asks for the PIN and stretches it.
func (p *Provider) ownPIN(ctx context.Context, stretch token.OwnPIN) (pinKey, error) {
	pin, err := askPIN(ctx, p.opts.PIN)
	if err != nil {
		return pinKey{}, err
	}
	defer pin.Wipe()
	return ownPIN(ctx, pin, stretch)
}

// readOwn reads one of our own tokens.
func (p *Provider) readOwn(raw json.RawMessage) (content, error) {
	t, err := token.ReadOwn(raw)
	if err != nil {
		return content{}, fail(Damaged, err, "the token cannot be read")
	}
	c := content{envelope: t.Envelope}
	if pin := t.Policy.PIN; pin != nil {
		if err := checkPIN(*pin); err != nil {
			return content{}, err
		}
		c.stretch = func(ctx context.Context) (pinKey, error) { return p.ownPIN(ctx, *pin) }
	}
	c.sealed, err = p.sealedOwn(t)
	return c, err
}

// sealedOwn takes from a token what unsealing needs.
func (p *Provider) sealedOwn(t token.Own) (sealed, error) {
	s := sealed{object: t.Sealed, template: t.Parent.Template, ek: t.EK, prefixes: t.Policy.PCRs}
	if s.prefixes == nil {
		s.prefixes = map[int][]byte{}
	}
	object, err := area(t.Sealed.Public)
	if err != nil {
		return s, err
	}
	s.digest = object.AuthPolicy.Buffer
	parent, err := area(t.Parent.Public)
	if err != nil {
		return s, err
	}
	name, err := tpm2.ObjectName(parent)
	if err != nil {
		return s, fail(Damaged, err, "the Name of the storage root key")
	}
	s.parentName = name.Buffer
	c := conditions{bank: bankSHA256, latch: t.Policy.Latch, pin: t.Policy.PIN != nil}
	for pcr := range t.Policy.PCRs {
		c.pcrs = append(c.pcrs, pcr)
	}
	if c.latch && !slices.Contains(c.pcrs, LatchPCR) {
		c.pcrs = append(c.pcrs, LatchPCR)
	}
	slices.Sort(c.pcrs)
	s.conditions = c
	if t.Policy.Signed == nil {
		return s, nil
	}
	return s, p.readSigned(&s, *t.Policy.Signed)
}

// readSigned takes the key that signs from the token: the policy names it.
func (p *Provider) readSigned(s *sealed, t token.OwnSigned) error {
	var err error
	if s.boot, err = p.boot(true); err != nil {
		return err
	}
	if s.conditions.key, err = pcrsig.ParseDER(t.Key); err != nil {
		return fail(Damaged, err, "the token's key for PCR policies")
	}
	if !slices.Equal(t.PCRs, signedPCRs()) {
		return fail(Damaged, nil, "a signature over the PCRs %v", t.PCRs)
	}
	s.conditions.signed = t.PCRs
	return nil
}

// area reads a public area from a token, which must not have two forms.
func area(raw []byte) (*tpm2.TPMTPublic, error) {
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](raw)
	if err != nil || !bytes.Equal(tpm2.Marshal(public), raw) {
		return nil, fail(Damaged, err, "a public area in the token cannot be read")
	}
	return public, nil
}
