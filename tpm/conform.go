package tpm

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/cryptctl/cryptctl/tpm/pcrsig"
	"github.com/cryptctl/cryptctl/tpm/token"
)

// CheckToken implements [keys.Checker]: it says how a token differs from one that
// would be made now. The TPM is not asked. Tokens of another format than one's
// own differ only when a format is asked for in so many words, and then have no
// latch to differ in.
func (p *Provider) CheckToken(raw json.RawMessage) error {
	is, err := summarize(raw)
	if err != nil {
		return err
	}
	want := p.opts.Policy
	pcrs := want.PCRs
	switch {
	case p.format != "" && is.format != p.format:
		return fmt.Errorf("its token is one of %s, and %s is configured", is.format, p.format)
	case !slices.Equal(is.pcrs, pcrs):
		return fmt.Errorf("it is sealed to the PCRs %v, and %v are configured", is.pcrs, pcrs)
	case is.pin != want.PIN:
		return fmt.Errorf("it is sealed %s a PIN, and configured %s one", with(is.pin), with(want.PIN))
	case is.format == Own && is.latch != want.Latch:
		return fmt.Errorf("it is sealed %s a latch, and configured %s one", with(is.latch), with(want.Latch))
	case want.Signed && !is.signed:
		return fmt.Errorf("it is sealed without a signed policy, and the boot image or the configuration brings the key of one")
	case p.signing != nil && is.format != Talos && !bytes.Equal(is.key, keyDER(p.signing)):
		return fmt.Errorf("it is not sealed to the signing key that is configured")
	}
	return nil
}

func with(it bool) string {
	if it {
		return "with"
	}
	return "without"
}

// summary is what a token says of itself.
type summary struct {
	format     Format
	pcrs       []int // sorted
	pin, latch bool
	signed     bool
	key        []byte // of the signed policy, PKIX; those of Talos do not say
}

func summarize(raw json.RawMessage) (summary, error) {
	s := summary{pcrs: []int{}}
	switch typ := token.TypeOf(raw); typ {
	case token.TypeOwn:
		t, err := token.ReadOwn(raw)
		if err != nil {
			return s, err
		}
		s.format, s.pin, s.latch = Own, t.Policy.PIN != nil, t.Policy.Latch
		s.pcrs = slices.AppendSeq(s.pcrs, maps.Keys(t.Policy.PCRs))
		if t.Policy.Signed != nil {
			s.signed, s.key = true, t.Policy.Signed.Key
		}
	case token.TypeTalos:
		t, err := token.ReadTalos(raw)
		if err != nil {
			return s, err
		}
		s.format, s.signed, s.pcrs = Talos, true, append(s.pcrs, t.PCRs...)
	case token.TypeSystemd:
		t, err := token.ReadSystemd(raw)
		if err != nil {
			return s, err
		}
		s.format, s.pin, s.pcrs = Systemd, t.PIN, append(s.pcrs, t.PCRs...)
		if len(t.Key) > 0 {
			key, err := pcrsig.ParsePublicKey(t.Key)
			if err != nil {
				return s, err
			}
			s.signed, s.key = true, keyDER(key)
		}
	default:
		return s, fmt.Errorf("its token is of type %q", typ)
	}
	slices.Sort(s.pcrs)
	s.pcrs = slices.Compact(s.pcrs)
	return s, nil
}
