package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// Options says how a volume is opened and its slots are reconciled. The zero
// value is the safe default.
type Options struct {
	Policy
	// Limits bounds what the header may make us spend on a key derivation.
	Limits kdf.Limits
	// Cost is what new slots with a passphrase cost; zero calibrates it to this
	// machine. Random passphrases get kdf.Light.
	Cost kdf.Cost
	// Passphrases open the volume when no configured key does: an operator's,
	// or those of the configuration that is being replaced.
	Passphrases []*secret.Bytes
	// Log receives what happens; nil discards it.
	Log *slog.Logger
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

func (o Options) cost(ctx context.Context, k Key) (kdf.Cost, error) {
	switch {
	case k.Random:
		return kdf.Light(), nil
	case o.Cost != kdf.Cost{}:
		return o.Cost, nil
	}
	return kdf.Calibrate(ctx, kdf.Target{})
}

// ErrNoKey is wrapped when neither a configured key nor a passphrase opens the
// volume.
var ErrNoKey = errors.New("no key opens the volume")

// Session is a volume that was opened, with what is known of each key.
type Session struct {
	header  *luks.Header
	name    string
	want    []Key
	opts    Options
	volume  *luks.VolumeKey
	prints  fingerprinter
	record  record
	answers <-chan answer
	ended   []answer // taken from answers, not judged yet
	waiting int      // answers still to come
	states  map[int]KeyState
	proved  map[int]recordEntry // of slots whose derivation was done here
	stop    context.CancelFunc
}

// answer is what a provider gave for a slot that exists.
type answer struct {
	key        Key
	passphrase *secret.Bytes
	err        error
}

// Open asks the providers of all wanted keys whose slot exists, all at once, and
// unlocks the volume with the first passphrase that opens its slot; of several
// at hand the cheapest to derive goes first. Only when none opens are the
// passphrases of the options tried. The providers that did not answer yet go on
// in the background, under ctx; [Session.State] waits for them.
func Open(ctx context.Context, h *luks.Header, name string, want []Key, opts Options) (*Session, error) {
	if err := CheckKeys(want); err != nil {
		return nil, err
	}
	s := &Session{header: h, name: name, want: want, opts: opts, record: readRecord(h), states: map[int]KeyState{}, proved: map[int]recordEntry{}}
	ctx, s.stop = context.WithCancel(ctx)
	s.ask(ctx)
	if err := s.unlock(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Unlock opens the volume and returns its key, which the caller wipes.
func Unlock(ctx context.Context, h *luks.Header, name string, want []Key, opts Options) (*luks.VolumeKey, error) {
	s, err := Open(ctx, h, name, want, opts)
	if err != nil {
		return nil, err
	}
	v := s.volume
	s.volume = nil
	s.Close()
	return v, nil
}

// Close ends what is still asked and wipes all keys.
func (s *Session) Close() {
	s.stop()
	for ; s.waiting > 0; s.waiting-- {
		a := <-s.answers
		a.passphrase.Wipe()
	}
	for _, a := range s.ended {
		a.passphrase.Wipe()
	}
	s.ended = nil
	s.volume.Wipe()
	s.prints.key.Wipe()
}

// Header returns the header that the session is about; [Session.Apply] changes
// it.
func (s *Session) Header() *luks.Header { return s.header }

// VolumeKey returns the volume key, which lives until Close.
func (s *Session) VolumeKey() *luks.VolumeKey { return s.volume }

func (s *Session) request(slot int) Request {
	return Request{UUID: s.header.UUID(), Volume: s.name, Slot: slot}
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
		req := s.request(k.Slot)
		go func() {
			p, err := call(ctx, k, func(ctx context.Context) (*secret.Bytes, error) {
				return k.Provider.Recover(ctx, req, token)
			})
			answers <- answer{k, p, err}
		}()
	}
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
		return nil, fmt.Errorf("%w: slot %d has no %s token", ErrMalformed, k.Slot, k.Tokens[0])
	case !slices.Contains(k.Tokens, t.Type):
		return nil, fmt.Errorf("%w: token %d is of type %q, a %s key needs %s", ErrMalformed, k.Slot, t.Type, k.Kind, k.Tokens[0])
	}
	return t.JSON, nil
}

// unlock takes answers as they come until one opens its slot.
func (s *Session) unlock(ctx context.Context) error {
	for s.volume == nil {
		a, ok, err := s.next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return s.unlockByPassphrase(ctx)
		}
		if err := s.try(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

// next returns the answer to judge next: the cheapest of those at hand. It waits
// only when there is none, and fails when the context ends.
func (s *Session) next(ctx context.Context) (a answer, ok bool, err error) {
	for s.waiting > 0 {
		if len(s.ended) == 0 {
			select {
			case a := <-s.answers:
				s.ended = append(s.ended, a)
				s.waiting--
			case <-ctx.Done():
				return answer{}, false, context.Cause(ctx)
			}
			continue
		}
		select {
		case a := <-s.answers:
			s.ended = append(s.ended, a)
			s.waiting--
			continue
		default:
		}
		break
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

// try derives the slot's key with an answer and records the outcome. Only a
// cancelled context is an error.
func (s *Session) try(ctx context.Context, a answer) error {
	defer a.passphrase.Wipe()
	if a.err != nil {
		s.judged(a, "", a.err)
		return nil
	}
	v, err := s.header.Unlock(ctx, a.passphrase, luks.UnlockOptions{Slots: []int{a.key.Slot}, Limits: s.opts.Limits})
	switch {
	case ctx.Err() != nil:
		v.Wipe()
		return context.Cause(ctx)
	case errors.Is(err, luks.ErrWrongPassphrase):
		s.judged(a, "", fmt.Errorf("%w: it does not open slot %d", ErrRejected, a.key.Slot))
	case err != nil:
		s.judged(a, "", fmt.Errorf("%w: %w", ErrUnavailable, err))
	default:
		s.judged(a, Derived, nil)
		return s.opened(a, v)
	}
	return nil
}

// opened keeps the volume key, and the record of the slot while its passphrase
// is at hand.
func (s *Session) opened(a answer, v *luks.VolumeKey) error {
	if err := s.adopt(v); err != nil {
		return err
	}
	sum, err := s.header.KeyslotSum(a.key.Slot)
	if err != nil {
		return err
	}
	p := a.passphrase
	if !a.key.Random {
		p = nil
	}
	s.proved[a.key.Slot] = s.prints.entry(a.key.Kind, a.key.Slot, sum, TokenOf(s.header, a.key.Slot), p)
	return nil
}

// adopt takes over the first volume key and wipes the others, which are equal.
func (s *Session) adopt(v *luks.VolumeKey) (err error) {
	if s.volume != nil {
		v.Wipe()
		return nil
	}
	s.volume = v
	s.prints, err = newFingerprinter(v, s.header.UUID())
	return err
}

func (s *Session) judged(a answer, proof Proof, err error) {
	k := a.key
	s.states[k.Slot] = KeyState{Slot: k.Slot, Kind: k.Kind, Sealed: len(k.Tokens) > 0, Proof: proof, Err: err}
	if err != nil {
		s.opts.log().Warn("key does not open its slot", "volume", s.name, "slot", k.Slot, "kind", k.Kind, "error", err)
		return
	}
	s.opts.log().Info("key opens its slot", "volume", s.name, "slot", k.Slot, "kind", k.Kind, "proof", string(proof))
}

func (s *Session) unlockByPassphrase(ctx context.Context) error {
	errs := []error{}
	for _, p := range s.opts.Passphrases {
		v, err := s.header.Unlock(ctx, p, luks.UnlockOptions{Limits: s.opts.Limits})
		if err == nil {
			s.opts.log().Info("volume unlocked by a passphrase", "volume", s.name, "slot", v.Slot())
			return s.adopt(v)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		errs = append(errs, fmt.Errorf("the passphrase given: %w", err))
	}
	for _, k := range s.want {
		st, asked := s.states[k.Slot]
		if !asked {
			st.Err = errors.New("the slot does not exist yet")
		}
		errs = append(errs, fmt.Errorf("%s key of slot %d: %w", k.Kind, k.Slot, st.Err))
	}
	return fmt.Errorf("%w: %w", ErrNoKey, errors.Join(errs...))
}

// State waits for the providers that have not answered, proves what they gave,
// and returns what a plan needs. A passphrase that the record confirms costs
// nothing, any other one key derivation.
func (s *Session) State(ctx context.Context) (State, error) {
	for {
		a, ok, err := s.next(ctx)
		if err != nil {
			return State{}, err
		}
		if !ok {
			break
		}
		if s.confirmed(a) {
			s.judged(a, Fingerprint, nil)
			a.passphrase.Wipe()
			continue
		}
		if err := s.try(ctx, a); err != nil {
			return State{}, err
		}
	}
	var st State
	for _, k := range s.header.Keyslots() {
		if k.ID >= luks.MaxSlots {
			continue
		}
		st.Slots = append(st.Slots, s.slotState(k.ID))
	}
	for _, k := range s.want {
		ks, asked := s.states[k.Slot]
		if !asked {
			ks = KeyState{Slot: k.Slot, Kind: k.Kind, Sealed: len(k.Tokens) > 0, Err: s.taken(k)}
		}
		st.Keys = append(st.Keys, ks)
	}
	return st, nil
}

// confirmed reports whether the record shows that the passphrase opens the slot.
func (s *Session) confirmed(a answer) bool {
	e, ok := s.record.entry(a.key.Slot)
	if !ok || a.err != nil || !a.key.Random {
		return false
	}
	sum, err := s.header.KeyslotSum(a.key.Slot)
	return err == nil && s.prints.opens(e, a.key.Slot, sum, TokenOf(s.header, a.key.Slot), a.passphrase)
}

func (s *Session) slotState(slot int) SlotState {
	e, ours := s.record.entry(slot)
	if !ours {
		return SlotState{Slot: slot}
	}
	sum, err := s.header.KeyslotSum(slot) // fails for a slot that is not like any of ours, too
	same := err == nil && s.prints.unchanged(e, slot, sum, TokenOf(s.header, slot))
	return SlotState{Slot: slot, Managed: same, Changed: !same}
}

// TokenOf returns the token of a slot: it has the slot's id, as Talos has it, and
// is not said to belong to other slots. nil when there is none.
func TokenOf(h *luks.Header, slot int) json.RawMessage {
	t, ok := h.Token(slot)
	if !ok || t.Type == recordType || len(owners(t, slot)) > 0 {
		return nil
	}
	return t.JSON
}

// owners are the other slots that a token names. Other tools give tokens the
// lowest free id, whatever slot they are for.
func owners(t luks.Token, slot int) []int {
	return slices.DeleteFunc(slices.Clone(t.Keyslots), func(s int) bool { return s == slot })
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
