package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/secret"
)

// answer is what a provider gave for a slot that exists.
type answer struct {
	key        Key
	passphrase *secret.Bytes
	identity   string // of the volume that the token is for; "" when it does not say
	err        error
}

// ask starts one goroutine for each key whose slot exists.
func (s *Session) ask(ctx context.Context) {
	answers := make(chan answer, len(s.want))
	s.answers = answers
	for _, k := range s.want {
		if _, there := s.header.Keyslot(k.Slot); !there {
			continue
		}
		token, err := s.token(k)
		if err != nil {
			s.ended = append(s.ended, answer{key: k, err: err})
			continue
		}
		s.waiting++
		if !k.Remote {
			s.local++
		}
		req := s.request(k.Slot)
		go func() {
			p, identity, err := ask(ctx, k, req, token)
			answers <- answer{k, p, identity, err}
		}()
	}
}

// ask has a key's provider recover it.
func ask(ctx context.Context, k Key, req Request, token json.RawMessage) (*secret.Bytes, string, error) {
	var identity string
	p, err := call(ctx, k, func(ctx context.Context) (*secret.Bytes, error) {
		p, id, err := recoverFor(ctx, k.Provider, req, token)
		identity = id // which nobody reads once the call was given up
		return p, err
	})
	if err != nil {
		return nil, "", err
	}
	return p, identity, nil
}

// recoverFor asks a provider, which may be a [Witness].
func recoverFor(ctx context.Context, p Provider, req Request, token json.RawMessage) (*secret.Bytes, string, error) {
	if w, ok := p.(Witness); ok {
		return w.RecoverFor(ctx, req, token)
	}
	passphrase, err := p.Recover(ctx, req, token)
	return passphrase, "", err
}

// checkToken asks a provider that is a [Checker].
func checkToken(p Provider, token json.RawMessage) error {
	if c, ok := p.(Checker); ok && token != nil {
		return c.CheckToken(token)
	}
	return nil
}

// call runs one provider call under the key's time limit. A provider that does
// not heed its context is left behind: its answer is wiped when it comes.
func call(ctx context.Context, k Key, f func(context.Context) (*secret.Bytes, error)) (*secret.Bytes, error) {
	outer := ctx
	ctx, cancel := context.WithTimeout(ctx, k.timeout())
	defer cancel()
	type result struct {
		p   *secret.Bytes
		err error
	}
	done := make(chan result)
	go func() {
		p, err := f(ctx)
		select {
		case done <- result{p, err}:
		case <-ctx.Done():
			p.Wipe()
		}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			r.p.Wipe()
			if errors.Is(r.err, ErrNoToken) { // which is not for a provider to say
				return nil, fmt.Errorf("%w: %v", ErrMalformed, r.err)
			}
			return nil, r.err
		}
		if r.p.Len() == 0 {
			return nil, fmt.Errorf("%w: the provider gave an empty passphrase", ErrUnavailable)
		}
		return r.p, nil
	case <-ctx.Done():
		if outer.Err() != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(outer))
		}
		return nil, fmt.Errorf("%w: no answer within %s", ErrUnavailable, k.timeout())
	}
}

// token returns the token of a key's slot: of the same id, as Talos has it.
func (s *Session) token(k Key) (json.RawMessage, error) {
	if len(k.Tokens) == 0 {
		return nil, nil
	}
	if err := s.taken(k); err != nil {
		return nil, err
	}
	t, ok := s.header.Token(k.Slot)
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: slot %d needs one of type %s", ErrNoToken, k.Slot, k.Tokens[0])
	case !slices.Contains(k.Tokens, t.Type):
		return nil, fmt.Errorf("%w: token %d is of type %q, a %s key needs %s", ErrNoToken, k.Slot, t.Type, k.Kind, k.Tokens[0])
	}
	return t.JSON, nil
}

// arrived takes an answer in.
func (s *Session) arrived(a answer) {
	s.ended = append(s.ended, a)
	s.waiting--
	if !a.key.Remote {
		s.local--
	}
}

// drain takes in what has been answered.
func (s *Session) drain() {
	for {
		select {
		case a := <-s.answers:
			s.arrived(a)
		default:
			return
		}
	}
}

// next returns the answer to judge next: the cheapest of those at hand. It waits
// only when there is none, for those of remote keys only if asked to, and fails
// when the context ends.
func (s *Session) next(ctx context.Context, remote bool) (a answer, ok bool, err error) {
	s.drain()
	for len(s.ended) == 0 && (s.local > 0 || remote && s.waiting > 0) {
		select {
		case a := <-s.answers:
			s.arrived(a)
			s.drain()
		case <-ctx.Done():
			return answer{}, false, context.Cause(ctx)
		}
	}
	if ctx.Err() != nil {
		return answer{}, false, context.Cause(ctx)
	}
	if len(s.ended) == 0 {
		return answer{}, false, nil
	}
	best := 0
	for i, a := range s.ended {
		if s.work(a) < s.work(s.ended[best]) {
			best = i
		}
	}
	a = s.ended[best]
	s.ended = slices.Delete(s.ended, best, best+1)
	return a, true, nil
}

// work is a rough measure of what judging an answer costs.
func (s *Session) work(a answer) uint64 {
	k, _ := s.header.Keyslot(a.key.Slot)
	if a.err != nil {
		return 0
	}
	return uint64(k.KDF.Time)*uint64(k.KDF.MemoryKiB) + uint64(k.KDF.Iterations)
}

// taken is an error when the id that a key's token must have is that of a token
// which another slot needs.
func (s *Session) taken(k Key) error {
	t, ok := s.header.Token(k.Slot)
	if !ok || len(k.Tokens) == 0 || len(owners(t, k.Slot)) == 0 {
		return nil
	}
	return fmt.Errorf("%w: token %d belongs to keyslot %d, so a %s key cannot stand in slot %d; give it another slot", ErrDenied, t.ID, owners(t, k.Slot)[0], k.Kind, k.Slot)
}
