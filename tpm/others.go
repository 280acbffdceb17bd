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

// readTalos takes from a token of Talos what unsealing needs.
func (p *Provider) readTalos(raw json.RawMessage) (sealed, error) {
	t, err := token.ReadTalos(raw)
	if err != nil {
		return sealed{}, fail(Damaged, err, "the token cannot be read")
	}
	boot, err := p.boot(true)
	if err != nil {
		return sealed{}, err
	}
	key, err := imageKey(boot) // the token does not say which one it was sealed for
	if err != nil {
		return sealed{}, err
	}
	pcrs := slices.Clone(t.PCRs)
	slices.Sort(pcrs) // Talos hashes them in the order configured: others never opened
	return sealed{
		object: t.Sealed, parentName: t.KeyName, template: talosTemplate, digest: t.Digest, boot: boot,
		conditions: conditions{key: key, signed: t.Signed, bank: bankSHA256, pcrs: slices.Compact(pcrs)},
	}, nil
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
	return systemdPIN(ctx, pin, salt)
}

// readSystemd takes from a token of systemd-cryptenroll what unsealing needs.
func (p *Provider) readSystemd(raw json.RawMessage) (sealed, token.Systemd, error) {
	t, err := token.ReadSystemd(raw)
	if err != nil {
		return sealed{}, t, fail(Damaged, err, "the token cannot be read")
	}
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
		return s, t, nil
	}
	if s.boot, err = p.boot(true); err != nil {
		return sealed{}, t, err
	}
	if s.conditions.key, err = pcrsig.ParsePublicKey(t.Key); err != nil {
		return sealed{}, t, fail(Damaged, err, "the token's public key")
	}
	s.conditions.signed = t.Signed
	slices.Sort(s.conditions.signed)
	return s, t, nil
}

// openSystemd opens a token of systemd-cryptenroll.
func (p *Provider) openSystemd(ctx context.Context, raw json.RawMessage) (Opened, error) {
	s, t, err := p.readSystemd(raw)
	if err != nil {
		return Opened{}, err
	}
	var pin pinKey
	if t.PIN {
		if err := p.worthAsking(ctx, s); err != nil {
			return Opened{}, err
		}
		if pin, err = p.systemdPIN(ctx, t.Salt); err != nil {
			return Opened{}, err
		}
		defer pin.wipe()
	}
	return p.openPlain(ctx, s, pin.auth)
}

// openPlain unseals a passphrase that is sealed itself.
func (p *Provider) openPlain(ctx context.Context, s sealed, auth *secret.Bytes) (Opened, error) {
	value, err := p.unseal(ctx, s, auth)
	if err != nil {
		return Opened{}, err
	}
	defer value.Wipe()
	return Opened{Passphrase: encode(value)}, nil
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
