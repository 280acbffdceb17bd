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
	s, err := p.read(raw)
	if err != nil {
		return err
	}
	return p.worthAsking(ctx, s)
}

// worthAsking is an error when no PIN helps. A person is asked only then.
func (p *Provider) worthAsking(ctx context.Context, s sealed) error {
	_, err := run(ctx, p.opts.Device, leave, idle, func(l *link) (nothing, error) { return nothing{}, s.fits(l) })
	return err
}

// read takes from a token of any kind what unsealing needs.
func (p *Provider) read(raw json.RawMessage) (sealed, error) {
	switch typ := token.TypeOf(raw); typ {
	case token.TypeOwn:
		t, err := token.ReadOwn(raw)
		if err != nil {
			return sealed{}, fail(Damaged, err, "the token cannot be read")
		}
		return p.readOwn(t)
	case token.TypeTalos:
		return p.readTalos(raw)
	case token.TypeSystemd:
		s, _, err := p.readSystemd(raw)
		return s, err
	default:
		return sealed{}, fail(Damaged, nil, "the token's type is %q, which is none of a TPM's", typ)
	}
}

func (s sealed) fits(l *link) error {
	now, err := s.settle(l)
	if err != nil {
		return err
	}
	if s.conditions.key != nil {
		if _, err := approve(s.boot, s.conditions, now); err != nil {
			return err
		}
	}
	parent, err := s.parent(l)
	if err != nil {
		return tpmFault(err, "make the storage root key")
	}
	defer parent.flush()
	object, err := s.load(l, parent)
	if err != nil {
		return tpmFault(err, "load the sealed object")
	}
	l.flush(object.Handle)
	if s.conditions.pin {
		if st, err := status(l); err != nil || st.LockedOut {
			return orLockedOut(err)
		}
	}
	return nil
}
