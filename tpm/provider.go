package tpm

import (
	"context"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/tpm/eventlog"
	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// Format is what kind of token new keys get. All kinds are read.
type Format string

// Formats. Others than our own have no latch that they know of, no envelope, and
// so nothing that ties them to their slot and volume.
const (
	Own     Format = "cryptctl"
	Talos   Format = "talos"   // signed policy and PCRs; no PIN
	Systemd Format = "systemd" // as systemd 252 and later read it
)

// Tokens are the token types that a [Provider] reads, for keys.Key.
func Tokens() []string { return []string{token.TypeOwn, token.TypeTalos, token.TypeSystemd} }

// Options are what a provider is made from.
type Options struct {
	// Device is the TPM. Default [System].
	Device *Device
	// Format of new tokens. Default [Own].
	Format Format
	// Policy of new keys. Old ones have theirs in their tokens.
	Policy Policy
	// Boot gives the signatures of the boot image. Default [ReadBoot].
	Boot func() (Boot, error)
	// PIN asks for the PIN, when a policy or a token has one. The provider wipes
	// what it gets.
	PIN func(context.Context) (*secret.Bytes, error)
	// SigningKey is whose signed PCR policies new keys are sealed to: RSA, PEM.
	// Default the key that the boot image brings.
	SigningKey []byte
	// EventLog gives the log of what was measured into the TPM: our own tokens keep
	// a record of it, see [RecordOf]. Default the machine's log, for the TPMs of
	// [System] and [Dial] that are the machine's, and none for others. A seal never
	// fails for it.
	EventLog func() (*eventlog.Log, error)
}

// Provider is a [keys.Provider] whose passphrases are sealed in a TPM. Its errors
// are [*Error].
type Provider struct {
	opts    Options
	format  Format         // that was asked for; "" is any, and new ones are our own
	signing *rsa.PublicKey // nil is the boot image's
}

// New returns a provider. It refuses a policy that protects nothing or cannot
// work, and one that the format cannot express.
func New(opts Options) (*Provider, error) {
	format := opts.Format
	if opts.Device == nil {
		opts.Device = System()
	}
	if opts.Format == "" {
		opts.Format = Own
	}
	if opts.Boot == nil {
		opts.Boot = ReadBoot
	}
	if opts.EventLog == nil && opts.Device.own {
		opts.EventLog = func() (*eventlog.Log, error) { return eventlog.Read(eventlog.Path) }
	}
	var err error
	if opts.Policy, err = opts.Policy.check(); err != nil {
		return nil, err
	}
	if err := opts.Format.holds(opts.Policy); err != nil {
		return nil, err
	}
	if opts.Policy.PIN && opts.PIN == nil {
		return nil, fail(PINMissing, nil, "the policy has a PIN, and there is nobody to ask for it")
	}
	made := &Provider{opts: opts, format: format}
	if opts.SigningKey != nil {
		if made.signing, err = pcrsig.ParsePublicKey(opts.SigningKey); err != nil {
			return nil, fail(Refused, err, "the signing key of PCR policies")
		}
	}
	return made, nil
}

// holds refuses a policy that tokens of a format cannot have.
func (f Format) holds(p Policy) error {
	switch f {
	case Own:
		return nil
	case Systemd:
		if p.Latch {
			return fail(Refused, nil, "tokens of systemd have no latch")
		}
		return nil
	case Talos:
		if !p.Signed || p.PIN || p.Latch {
			return fail(Refused, nil, "tokens of Talos have a signed policy, and neither a PIN nor a latch")
		}
		return nil
	}
	return fail(Refused, nil, "there is no token format %q; use %s, %s or %s", f, Own, Talos, Systemd)
}

// Enroll implements [keys.Provider]: it seals 32 random bytes to the state that
// the machine is in.
func (p *Provider) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	switch p.opts.Format {
	case Talos:
		return p.enrollTalos(ctx, req)
	case Systemd:
		return p.enrollSystemd(ctx, req)
	}
	return p.enrollOwn(ctx, req)
}

// Recover implements [keys.Provider].
func (p *Provider) Recover(ctx context.Context, req keys.Request, raw json.RawMessage) (*secret.Bytes, error) {
	o, err := p.Open(ctx, req, raw)
	return o.Passphrase, err
}

// RecoverFor implements [keys.Witness].
func (p *Provider) RecoverFor(ctx context.Context, req keys.Request, raw json.RawMessage) (*secret.Bytes, string, error) {
	o, err := p.Open(ctx, req, raw)
	return o.Passphrase, o.Identity, err
}

// Open is Recover, with all that the token holds.
func (p *Provider) Open(ctx context.Context, req keys.Request, raw json.RawMessage) (Opened, error) {
	c, err := p.read(raw)
	if err != nil {
		return Opened{}, err
	}
	var pin pinKey
	if c.stretch != nil {
		if err := p.worthAsking(ctx, c.sealed); err != nil {
			return Opened{}, err
		}
		if pin, err = c.stretch(ctx); err != nil {
			return Opened{}, err
		}
		defer pin.wipe()
	}
	value, err := p.unseal(ctx, c.sealed, pin.auth)
	if err != nil {
		return Opened{}, err
	}
	defer value.Wipe()
	if c.envelope == nil {
		return Opened{Passphrase: encode(value)}, nil
	}
	return openEnvelope(value, pin.envelope, bound(req, c.digest), c.envelope)
}

// boot reads the boot image's signatures, for a policy that has some.
func (p *Provider) boot(signed bool) (Boot, error) {
	if !signed {
		return Boot{}, nil
	}
	b, err := p.opts.Boot()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Boot{}, fail(SignatureMissing, err, "the signatures of the boot image cannot be read")
	}
	return b, nil
}

// seal runs a plan. The value is made here; the caller wipes it.
func (p *Provider) seal(ctx context.Context, plan plan) (sealed, *secret.Bytes, error) {
	plan.policy = p.opts.Policy
	var err error
	if plan.boot, err = p.boot(plan.policy.Signed); err != nil {
		return sealed{}, nil, err
	}
	if p.signing != nil {
		plan.boot.PublicKey = p.opts.SigningKey
	}
	plan.value = secret.Random(keySize)
	// The work may go on after the context ended, so it has copies of its own.
	own := plan
	own.value, own.pin = plan.value.Clone(), pinKey{auth: plan.pin.auth.Clone()}
	wipe := func() { own.value.Wipe(); own.pin.wipe() }
	s, err := run(ctx, p.opts.Device, leave, wipe, func(l *link) (sealed, error) { return seal(l, own) })
	if err != nil {
		plan.value.Wipe()
		return sealed{}, nil, err
	}
	return s, plan.value, nil
}

// unseal runs what a token says.
func (p *Provider) unseal(ctx context.Context, s sealed, auth *secret.Bytes) (*secret.Bytes, error) {
	own := auth.Clone()
	return run(ctx, p.opts.Device, (*secret.Bytes).Wipe, own.Wipe, func(l *link) (*secret.Bytes, error) {
		value, err := s.unseal(l, own)
		if err == nil && value.Len() != keySize {
			value.Wipe()
			return nil, fail(Damaged, nil, "the sealed key has another length than %d bytes", keySize)
		}
		return value, err
	})
}

// Format prints what the provider does, not what it holds.
func (p *Provider) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "tpm.Provider(%s)", p.opts.Format) }
