package tpm

import (
	"context"
	"encoding/json"

	"github.com/cryptctl/cryptctl/tpm/token"
)

// Fits says whether the TPM would give the key of a token back now, as far as
// that can be told without asking for it: the PCRs, the signature of the boot
// image, the latch, and the storage root key. It needs no PIN, counts no wrong
// one, and no secret is made. The error is the one that Recover would give.
//
// The answer is by what the token says of itself: the envelope of one of ours is
// not opened, so whether it is of this slot and volume is not seen.
func (p *Provider) Fits(ctx context.Context, raw json.RawMessage) error {
	c, err := p.read(raw)
	if err != nil {
		return err
	}
	return p.worthAsking(ctx, c.sealed)
}

// worthAsking is an error when no PIN helps. A person is asked only then.
func (p *Provider) worthAsking(ctx context.Context, s sealed) error {
	_, err := run(ctx, p.opts.Device, leave, idle, func(l *link) (nothing, error) { return nothing{}, s.fits(l) })
	return err
}

// content is what a token of any kind holds.
type content struct {
	sealed
	stretch  func(context.Context) (pinKey, error) // asks for the PIN; nil without
	envelope []byte                                // nil where the passphrase itself is sealed
}

// read reads a token of any kind.
func (p *Provider) read(raw json.RawMessage) (content, error) {
	switch typ := token.TypeOf(raw); typ {
	case token.TypeOwn:
		return p.readOwn(raw)
	case token.TypeTalos:
		return p.readTalos(raw)
	case token.TypeSystemd:
		return p.readSystemd(raw)
	default:
		return content{}, fail(Damaged, nil, "the token's type is %q, which is none of a TPM's", typ)
	}
}

func (s sealed) fits(l *link) error {
	if _, err := s.approved(l); err != nil {
		return err
	}
	_, _, unload, err := s.loaded(l)
	if err != nil {
		return tpmFault(err, "load the sealed object")
	}
	unload()
	return nil
}
