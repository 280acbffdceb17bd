package tpm

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"slices"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// talosTemplate is the storage root key that Talos makes for every call.
const talosTemplate = "tcg-ecc"

// enrollTalos makes a token as Talos makes it.
func (p *Provider) enrollTalos(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	s, value, err := p.seal(ctx, plan{templates: []string{talosTemplate}})
	if err != nil {
		return nil, nil, err
	}
	defer value.Wipe()
	if boot, err := p.boot(true); err != nil {
		return nil, nil, err
	} else if key, err := imageKey(boot); err != nil {
		return nil, nil, err
	} else if !key.Equal(s.conditions.key) {
		return nil, nil, fail(Refused, nil, "Talos takes the boot image's key for PCR policies, and the signing key that is configured is another")
	}
	if s.template != talosTemplate {
		return nil, nil, fail(Refused, nil, "Talos needs a storage root key that it can make itself, and the owner hierarchy has a password")
	}
	raw, err := token.Talos{
		Slot: req.Slot, Sealed: s.object, KeyName: s.parentName, Digest: s.digest,
		PCRs: p.opts.Policy.PCRs, Signed: s.conditions.signed,
	}.Encode()
	if err != nil {
		return nil, nil, fail(Faulty, err, "write the token")
	}
	return encode(value), raw, nil
}

// readTalos reads a token of Talos.
func (p *Provider) readTalos(raw json.RawMessage) (content, error) {
	t, err := token.ReadTalos(raw)
	if err != nil {
		return content{}, fail(Damaged, err, "the token cannot be read")
	}
	boot, err := p.boot(true)
	if err != nil {
		return content{}, err
	}
	key, err := imageKey(boot) // the token does not say which one it was sealed for
	if err != nil {
		return content{}, err
	}
	pcrs := slices.Clone(t.PCRs)
	slices.Sort(pcrs) // Talos hashes them in the order configured: others never opened
	return content{sealed: sealed{
		object: t.Sealed, parentName: t.KeyName, template: talosTemplate, digest: t.Digest, boot: boot, imageKey: true,
		conditions: conditions{key: key, signed: t.Signed, bank: bankSHA256, pcrs: slices.Compact(pcrs)},
	}}, nil
}

// systemdTemplate is the storage root key that every version of systemd makes
// when a token names none.
func systemdTemplate(alg string) string { return "systemd-" + alg + "-da" }

// enrollSystemd makes a token that systemd reads from version 252 on. It names no
// storage root key, since versions that find one named want it to be persistent,
// and salts no PIN, since version 252 cannot.
func (p *Provider) enrollSystemd(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	var pin pinKey
	if p.opts.Policy.PIN {
		var err error
		if pin, err = p.systemdPIN(ctx, nil); err != nil {
			return nil, nil, err
		}
		defer pin.wipe()
	}
	s, value, err := p.seal(ctx, plan{pin: pin, templates: []string{systemdTemplate("ecc"), systemdTemplate("rsa")}})
	if err != nil {
		return nil, nil, err
	}
	defer value.Wipe()
	t := token.Systemd{
		Slot: req.Slot, Sealed: s.object, PCRs: s.conditions.pcrs, Bank: bankSHA256, Alg: "ecc",
		Digest: s.digest, PIN: p.opts.Policy.PIN,
	}
	switch s.template {
	case systemdTemplate("ecc"):
	case systemdTemplate("rsa"):
		t.Alg = "rsa"
	default:
		return nil, nil, fail(Refused, nil, "systemd needs a storage root key that it can make itself, and the owner hierarchy has a password")
	}
	if s.conditions.key != nil {
		t.Key, t.Signed = s.boot.PublicKey, s.conditions.signed
	}
	raw, err := t.Encode()
	if err != nil {
		return nil, nil, fail(Faulty, err, "write the token")
	}
	return encode(value), raw, nil
}

// systemdPIN asks for the PIN and makes the auth value of it.
func (p *Provider) systemdPIN(ctx context.Context, salt []byte) (pinKey, error) {
	pin, err := askPIN(ctx, p.opts.PIN)
	if err != nil {
		return pinKey{}, err
	}
	defer pin.Wipe()
	return systemdPIN(pin, salt), nil
}

// readSystemd reads a token of systemd-cryptenroll.
func (p *Provider) readSystemd(raw json.RawMessage) (content, error) {
	t, err := token.ReadSystemd(raw)
	if err != nil {
		return content{}, fail(Damaged, err, "the token cannot be read")
	}
	var c content
	if t.PIN {
		c.stretch = func(ctx context.Context) (pinKey, error) { return p.systemdPIN(ctx, t.Salt) }
	}
	c.sealed, err = p.sealedSystemd(t)
	return c, err
}

// sealedSystemd takes from a token what unsealing needs.
func (p *Provider) sealedSystemd(t token.Systemd) (sealed, error) {
	pcrs := slices.Clone(t.PCRs)
	slices.Sort(pcrs) // in the token it is a set: systemd keeps a mask
	s := sealed{
		object: t.Sealed, parentName: t.ParentName, template: systemdTemplate(t.Alg), digest: t.Digest,
		conditions: conditions{bank: t.Bank, pcrs: slices.Compact(pcrs), pin: t.PIN},
	}
	if t.ParentName != nil {
		s.template = "" // any: the Name decides
	}
	if len(t.Key) == 0 {
		return s, nil
	}
	var err error
	if s.boot, err = p.boot(true); err != nil {
		return sealed{}, err
	}
	if s.conditions.key, err = pcrsig.ParsePublicKey(t.Key); err != nil {
		return sealed{}, fail(Damaged, err, "the token's public key")
	}
	s.conditions.signed = t.Signed
	slices.Sort(s.conditions.signed)
	return s, nil
}

// imageKey is the key that the boot image brings along.
func imageKey(boot Boot) (*rsa.PublicKey, error) {
	if len(boot.PublicKey) == 0 {
		return nil, fail(SignatureMissing, nil, "the boot image brings no public key for PCR policies (section .pcrpkey); boot one that does")
	}
	key, err := pcrsig.ParsePublicKey(boot.PublicKey)
	if err != nil {
		return nil, fail(SignatureMissing, err, "the boot image's public key")
	}
	return key, nil
}
