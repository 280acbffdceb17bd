package keystest

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
)

// TokenType is the type of a [Sealer]'s tokens.
const TokenType = "cryptctl-test"

// Sealer is a provider of random passphrases, which it keeps in their tokens,
// sealed under a key in memory and bound to their request:
//
//	{"type": "cryptctl-test", "keyslots": [], "state": 1, "sealed": BASE64}
//
// It is a KMS or a TPM as far as package keys can tell, and does on demand what
// those do when something is wrong. It may be used by several goroutines at once.
type Sealer struct {
	mu       sync.Mutex
	states   []*sealerState // all that there ever were; the last one counts
	enroll   Fault
	recover  Fault
	enrolled int
	asked    int
	given    []*secret.Bytes
}

// sealerState is what tokens are sealed to: a TPM's registers, a server's key.
type sealerState struct {
	aead    cipher.AEAD
	changed Answer // to tokens of an earlier state, once this one came
}

// Answer is what a [Sealer] answers to a token of a state that is over.
type Answer int

// Answers.
const (
	// Stale: an error that wraps keys.ErrStale, as from a TPM.
	Stale Answer = iota
	// OtherBytes: a passphrase that is not the one enrolled, without an error, as
	// from the reference KMS after its key was changed.
	OtherBytes
)

// Fault is how calls go wrong. The zero value is none.
type Fault struct {
	// Err is what calls fail with.
	Err error
	// Delay comes before the answer. A context that ends before ends the call.
	Delay time.Duration
	// Hang keeps calls from returning until it is closed, whatever becomes of
	// their context.
	Hang <-chan struct{}
	// Other makes the passphrase another one than the token's.
	Other bool
	// Empty makes the passphrase one of no bytes.
	Empty bool
	// Token is what Enroll returns in place of its own token; [NoToken] is none.
	Token json.RawMessage
}

// NoToken as a [Fault]'s Token makes Enroll return none.
var NoToken = json.RawMessage{}

// NewSealer returns a sealer with a key of its own.
func NewSealer() *Sealer {
	s := &Sealer{}
	s.Change(Stale)
	return s
}

// Key is the sealer as a wanted key.
func (s *Sealer) Key(slot int) keys.Key {
	return keys.Key{Slot: slot, Kind: "sealed", Provider: s, Tokens: []string{TokenType}, Random: true}
}

// Change ends the state that all tokens so far were sealed to, and says what
// they give from now on.
func (s *Sealer) Change(earlier Answer) {
	block, err := aes.NewCipher(random(32))
	if err != nil {
		panic(err) // the key has a size of AES
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err) // AES has the block size of GCM
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = append(s.states, &sealerState{aead, earlier})
}

// Fail sets how all calls go wrong from now on.
func (s *Sealer) Fail(f Fault) { s.FailEnroll(f); s.FailRecover(f) }

// FailEnroll sets how calls of Enroll go wrong from now on.
func (s *Sealer) FailEnroll(f Fault) { s.mu.Lock(); defer s.mu.Unlock(); s.enroll = f }

// FailRecover sets how calls of Recover go wrong from now on.
func (s *Sealer) FailRecover(f Fault) { s.mu.Lock(); defer s.mu.Unlock(); s.recover = f }

// Calls returns how often Enroll and Recover were called.
func (s *Sealer) Calls() (enrolled, recovered int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.enrolled, s.asked
}

// Unwiped counts the passphrases that were handed out and are not wiped. Whoever
// got them must be done with them.
func (s *Sealer) Unwiped() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.given {
		if p.Len() > 0 {
			n++
		}
	}
	return n
}

// sealed is the token.
type sealed struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	State    int      `json:"state"`
	Sealed   []byte   `json:"sealed"`
}

// Enroll implements [keys.Provider].
func (s *Sealer) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	s.mu.Lock()
	s.enrolled++
	fault, number := s.enroll, len(s.states)
	state := s.states[number-1]
	s.mu.Unlock()
	if err := fault.wait(ctx); err != nil {
		return nil, nil, err
	}
	text := passphrase()
	nonce := random(state.aead.NonceSize())
	token, err := json.Marshal(sealed{TokenType, []string{}, number, state.aead.Seal(nonce, nonce, text, bound(req))})
	if err != nil {
		return nil, nil, err
	}
	switch {
	case fault.Token == nil:
	case len(fault.Token) == 0:
		token = nil
	default:
		token = fault.Token
	}
	return s.give(text, fault), token, nil
}

// Recover implements [keys.Provider].
func (s *Sealer) Recover(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	s.mu.Lock()
	s.asked++
	fault, states := s.recover, s.states
	s.mu.Unlock()
	if err := fault.wait(ctx); err != nil {
		return nil, err
	}
	var t sealed
	switch err := json.Unmarshal(token, &t); {
	case err != nil:
		return nil, fmt.Errorf("%w: the token cannot be read", keys.ErrMalformed)
	case t.Type != TokenType || t.State < 1 || t.State > len(states):
		return nil, fmt.Errorf("%w: not a token of this sealer", keys.ErrMalformed)
	}
	if t.State < len(states) {
		if states[t.State].changed == Stale {
			return nil, fmt.Errorf("%w: sealed to state %d, this is state %d", keys.ErrStale, t.State, len(states))
		}
		return s.give(passphrase(), fault), nil
	}
	aead := states[t.State-1].aead
	if len(t.Sealed) < aead.NonceSize() {
		return nil, fmt.Errorf("%w: %d sealed bytes", keys.ErrMalformed, len(t.Sealed))
	}
	nonce, box := t.Sealed[:aead.NonceSize()], t.Sealed[aead.NonceSize():]
	text, err := aead.Open(nil, nonce, box, bound(req))
	if err != nil {
		return nil, fmt.Errorf("%w: the token is not of slot %d of %s", keys.ErrDenied, req.Slot, req.Volume)
	}
	return s.give(text, fault), nil
}

// give hands out a passphrase and remembers that.
func (s *Sealer) give(text []byte, f Fault) *secret.Bytes {
	switch {
	case f.Other:
		text = passphrase()
	case f.Empty:
		text = nil
	}
	p := secret.Take(text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.given = append(s.given, p)
	return p
}

// wait is what goes wrong before the answer.
func (f Fault) wait(ctx context.Context) error {
	if f.Hang != nil {
		<-f.Hang
		return f.Err
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", keys.ErrUnavailable, context.Cause(ctx))
	}
	return f.Err
}

// bound is the associated data of a token: what it may be used for.
func bound(req keys.Request) []byte {
	return fmt.Appendf(nil, "%q %q %d", req.UUID, req.Volume, req.Slot)
}

// passphrase is 32 random bytes in base64, as Talos makes them.
func passphrase() []byte { return base64.StdEncoding.AppendEncode(nil, random(32)) }

func random(n int) []byte {
	p := make([]byte, n)
	rand.Read(p) // never fails
	return p
}
