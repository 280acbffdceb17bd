package keys

import (
	"context"
	"errors"

	"github.com/cryptctl/cryptctl/luks"
)

// State waits for the providers that have not answered, proves what they gave,
// and returns what a plan needs. A passphrase that the record confirms costs
// nothing, any other one key derivation.
func (s *Session) State(ctx context.Context) (State, error) { return s.state(ctx, true) }

// state is State, which does not wait for remote keys unless it is to.
func (s *Session) state(ctx context.Context, remote bool) (State, error) {
	if err := s.prove(ctx, remote); err != nil {
		return State{}, err
	}
	var st State
	for _, k := range s.header.Keyslots() {
		if k.ID >= luks.MaxSlots {
			continue
		}
		slot, err := s.slotState(k.ID)
		if err != nil {
			return State{}, err
		}
		st.Slots = append(st.Slots, slot)
	}
	for _, k := range s.want {
		st.Keys = append(st.Keys, s.keyState(k))
	}
	return st, nil
}

// prove judges the answers.
func (s *Session) prove(ctx context.Context, remote bool) error {
	for {
		a, ok, err := s.next(ctx, remote)
		if err != nil || !ok {
			return err
		}
		if s.confirmed(a) {
			s.judged(a, Fingerprint, nil)
			a.passphrase.Wipe()
			continue
		}
		if err := s.try(ctx, a); err != nil {
			return err
		}
	}
}

// keyState is what is known of a key.
func (s *Session) keyState(k Key) KeyState {
	ks, asked := s.states[k.Slot]
	if !asked {
		ks = KeyState{Slot: k.Slot, Kind: k.Kind, Sealed: len(k.Tokens) > 0, Err: s.taken(k)}
	}
	s.consult(k, &ks)
	if asked {
		s.states[k.Slot] = ks // what may not be made anew is not asked about again
	}
	return ks
}

// consult asks what a key itself knows of the state it is in.
func (s *Session) consult(k Key, ks *KeyState) {
	ks.Vouched = ks.Err != nil && s.witnessed[k.Slot] != "" && s.witnessed[k.Slot] == s.prints.identity()
	if ks.Proof != "" {
		ks.Outdated = checkToken(k.Provider, TokenOf(s.header, k.Slot))
	}
	if errors.Is(ks.Err, ErrStale) && k.Reseal != nil && ks.NotResealed == nil {
		ks.NotResealed = k.Reseal(ks.Err)
		ks.Reseal = ks.NotResealed == nil
	}
}

// confirmed reports whether the record shows that the passphrase opens the slot.
func (s *Session) confirmed(a answer) bool {
	e, ok := s.record.entry(a.key.Slot)
	if !ok || a.err != nil || !a.key.Random || s.header.Usable(a.key.Slot, s.opts.Limits) != nil {
		return false
	}
	sum, err := s.header.KeyslotSum(a.key.Slot)
	if a.identity != "" && a.identity != s.prints.identity() {
		return false // and deriving its key tells why
	}
	return err == nil && s.prints.opens(e, a.key.Slot, sum, TokenOf(s.header, a.key.Slot), a.passphrase)
}

// slotState fails only when the slot was changed since the header was read. One
// that cannot be read, or is not like any of ours, is a changed one.
func (s *Session) slotState(slot int) (SlotState, error) {
	e, ours := s.record.entry(slot)
	if !ours {
		return SlotState{Slot: slot}, nil
	}
	sum, err := s.header.KeyslotSum(slot)
	if errors.Is(err, luks.ErrConflict) {
		return SlotState{}, err
	}
	same := err == nil && s.header.Usable(slot, s.opts.Limits) == nil &&
		s.prints.unchanged(e, slot, sum, TokenOf(s.header, slot))
	return SlotState{Slot: slot, Managed: same, Changed: !same}, nil
}
