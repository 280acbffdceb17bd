package keys

import (
	"context"
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
	// Passphrases open the volume when no configured key does: an operator's.
	Passphrases []*secret.Bytes
	// Former are keys of earlier configurations, which the header may still have
	// when a change to the wanted ones was cut off. They are tried set by set when
	// no wanted key opens; remote ones last.
	Former [][]Key
	// Log receives what happens; nil discards it.
	Log *slog.Logger
}

func (o Options) log() *slog.Logger {
	if o.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Log
}

// cost is what a slot with a passphrase costs; one calibration serves all slots.
func (o Options) cost(ctx context.Context) (kdf.Cost, error) {
	if (o.Cost != kdf.Cost{}) {
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
	local   int      // of these, from keys that are not remote
	states  map[int]KeyState
	proved  map[int]recordEntry // of slots whose derivation was done here
	// witnessed are the identities that tokens gave which did not open their slots.
	witnessed map[int]string
	stop      context.CancelFunc

	early  *Report      // of ApplyLocal
	failed map[int]Step // what ApplyLocal could not make, and does not try again
}

// Open asks the providers of all wanted keys whose slot exists, all at once, and
// unlocks the volume with the first passphrase that opens its slot; of several
// at hand the cheapest to derive goes first. Remote keys are waited for only when
// nothing else opens that can be had here, former keys included. Only when none
// opens are the passphrases of the options tried. The providers that did not
// answer yet go on until Close or their time is up, whatever becomes of ctx;
// [Session.State] waits for them.
func Open(ctx context.Context, h *luks.Header, name string, want []Key, opts Options) (*Session, error) {
	if err := checkKeys(want); err != nil {
		return nil, err
	}
	if err := h.Trusted(); err != nil { // no passphrase is asked for
		return nil, fmt.Errorf("the header is refused: %w", err)
	}
	s := &Session{header: h, name: name, want: want, opts: opts, record: readRecord(h), states: map[int]KeyState{}, proved: map[int]recordEntry{}, witnessed: map[int]string{}, failed: map[int]Step{}}
	var asking context.Context
	asking, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.ask(asking)
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

// Reconfigure replaces the wanted keys by the same ones with other settings: what
// was seen of them stays, and what is made anew is made as they say.
func (s *Session) Reconfigure(want []Key) error {
	if err := checkKeys(want); err != nil {
		return err
	}
	same := func(k Key) bool {
		return slices.ContainsFunc(s.want, func(o Key) bool { return o.Slot == k.Slot && o.Kind == k.Kind })
	}
	if len(want) != len(s.want) || slices.ContainsFunc(want, func(k Key) bool { return !same(k) }) {
		return errors.New("these are other keys than those that the volume was opened with")
	}
	s.want = want
	return nil
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

// Commit makes changes of the caller's own, not of keyslots or their tokens, and
// goes on with the header as it is then.
func (s *Session) Commit(changes ...luks.Change) error {
	h, err := s.header.Commit(changes...)
	if h != nil {
		s.header = h
	}
	return err
}

// VolumeKey returns the volume key, which lives until Close.
func (s *Session) VolumeKey() *luks.VolumeKey { return s.volume }

func (s *Session) request(slot int) Request {
	return Request{UUID: s.header.UUID(), Volume: s.name, Slot: slot}
}

// unlock takes answers as they come until one opens its slot. What needs a server
// comes after what does not: the wanted keys, then the former ones.
func (s *Session) unlock(ctx context.Context) error {
	var errs []error
	for _, remote := range []bool{false, true} {
		for s.volume == nil {
			a, ok, err := s.next(ctx, remote)
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			if err := s.try(ctx, a); err != nil {
				return err
			}
		}
		if s.volume != nil {
			return nil
		}
		refused, err := s.unlockFormer(ctx, remote)
		if err != nil || s.volume != nil {
			return err
		}
		errs = append(errs, refused...)
	}
	return s.unlockByPassphrase(ctx, errs)
}

// try derives the slot's key with an answer and records the outcome. Only a
// cancelled context is an error: the answer is kept for another try.
func (s *Session) try(ctx context.Context, a answer) error {
	if a.err != nil {
		s.judged(a, "", a.err)
		return nil
	}
	v, err := s.header.Unlock(ctx, a.passphrase, luks.UnlockOptions{Slots: []int{a.key.Slot}, Limits: s.opts.Limits})
	if ctx.Err() != nil {
		v.Wipe()
		s.ended = append(s.ended, a)
		return context.Cause(ctx)
	}
	defer a.passphrase.Wipe()
	switch {
	case errors.Is(err, luks.ErrWrongPassphrase):
		s.witnessed[a.key.Slot] = a.identity
		s.judged(a, "", fmt.Errorf("%w: it does not open slot %d", ErrRejected, a.key.Slot))
	case err != nil:
		s.judged(a, "", fmt.Errorf("%w: %w", ErrUnavailable, err))
	default:
		return s.fits(a, v)
	}
	return nil
}

// fits takes over the volume key that an answer opened, unless the answer was
// sealed for another volume.
func (s *Session) fits(a answer, v *luks.VolumeKey) error {
	prints, err := newFingerprinter(v, s.header.UUID())
	if err != nil {
		v.Wipe()
		return err
	}
	defer prints.key.Wipe()
	if a.identity != "" && a.identity != prints.identity() {
		v.Wipe()
		s.judged(a, "", fmt.Errorf("%w: it opens slot %d, and was sealed for a volume with another volume key", ErrDenied, a.key.Slot))
		return nil
	}
	s.judged(a, Derived, nil)
	return s.opened(a, v)
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

// unlockFormer tries the former keys, remote or others. What it returns beside an
// error says why they do not open the volume.
func (s *Session) unlockFormer(ctx context.Context, remote bool) (refused []error, err error) {
	for _, set := range s.opts.Former {
		set = slices.DeleteFunc(slices.Clone(set), func(k Key) bool { return k.Remote != remote })
		if len(set) == 0 {
			continue
		}
		v, err := Unlock(ctx, s.header, s.name, set, Options{Limits: s.opts.Limits, Log: s.opts.Log})
		if err == nil {
			s.opts.log().Warn("volume unlocked by a key of an earlier configuration", "volume", s.name, "slot", v.Slot())
			return nil, s.adopt(v)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		refused = append(refused, fmt.Errorf("an earlier configuration: %w", err))
	}
	return refused, nil
}

// unlockByPassphrase is for when no key opens, which is what errs say of the former
// ones.
func (s *Session) unlockByPassphrase(ctx context.Context, errs []error) error {
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
	return fmt.Errorf("%w: %w", ErrNoKey, errors.Join(append(errs, s.refusals()...)...))
}

// refusals says of each wanted key why it does not open the volume.
func (s *Session) refusals() (errs []error) {
	for _, k := range s.want {
		st, asked := s.states[k.Slot]
		if !asked {
			st.Err = errors.New("the slot does not exist yet")
		}
		errs = append(errs, fmt.Errorf("%s key of slot %d: %w", k.Kind, k.Slot, st.Err))
	}
	return errs
}
