package keys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"sync"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// enrolled is a new key that was seen to work: its provider recovered it again
// and its slot opened in memory.
type enrolled struct {
	key    Key
	sealed *luks.SealedKey
	token  json.RawMessage
	entry  recordEntry
}

// enroll makes and seals a key for each slot, the providers all at once and the
// derivations one after another. What fails is in errs, by slot.
func enroll(ctx context.Context, want []Key, volume *luks.VolumeKey, prints fingerprinter, request func(slot int) Request, opts Options) (made map[int]enrolled, errs map[int]error) {
	type fresh struct {
		passphrase *secret.Bytes
		token      json.RawMessage
		err        error
	}
	fresher := make([]fresh, len(want))
	var wg sync.WaitGroup
	for i, k := range want {
		wg.Go(func() {
			f := &fresher[i]
			req := request(k.Slot)
			req.Identity = prints.identity()
			f.passphrase, f.token, f.err = enrollOne(ctx, k, req)
		})
	}
	wg.Wait()
	made, errs = map[int]enrolled{}, map[int]error{}
	stretched := sync.OnceValues(func() (kdf.Cost, error) { return opts.cost(ctx) })
	for i, k := range want {
		f := fresher[i]
		if f.err == nil {
			var e enrolled
			e, f.err = seal(ctx, k, volume, prints, f.passphrase, f.token, stretched)
			made[k.Slot] = e
		}
		if f.err != nil {
			delete(made, k.Slot)
			errs[k.Slot] = f.err
		}
		f.passphrase.Wipe()
	}
	return made, errs
}

// enrollOne makes a passphrase and has the provider recover it again: one that
// cannot be had back would lock out its owner at the next boot.
func enrollOne(ctx context.Context, k Key, req Request) (*secret.Bytes, json.RawMessage, error) {
	var token json.RawMessage
	p, err := call(ctx, k, func(ctx context.Context) (p *secret.Bytes, err error) {
		var t json.RawMessage
		if p, t, err = k.Provider.Enroll(ctx, req); err == nil && ctx.Err() == nil {
			token = t
		}
		return p, err
	})
	if err != nil {
		return nil, nil, err
	}
	if err := k.checkToken(token); err != nil {
		p.Wipe()
		return nil, nil, fmt.Errorf("%w: the new key: %w", ErrMalformed, err)
	}
	again, identity, err := ask(ctx, k, Request{UUID: req.UUID, Volume: req.Volume, Slot: req.Slot}, token)
	switch {
	case err != nil:
	case !again.Equal(p):
		err = fmt.Errorf("%w: the new key came back different", ErrRejected)
	case identity != "" && identity != req.Identity:
		err = fmt.Errorf("%w: the new key came back as one for another volume", ErrRejected)
	}
	again.Wipe()
	if err != nil {
		p.Wipe()
		return nil, nil, fmt.Errorf("the new key cannot be recovered: %w", err)
	}
	return p, token, nil
}

// checkToken refuses a token that could not be stored, or not be found again: it
// would spoil the commit for all other keys.
func (k Key) checkToken(token json.RawMessage) error {
	if len(k.Tokens) == 0 || token == nil {
		if len(k.Tokens) > 0 || token != nil {
			return fmt.Errorf("a %s key came with a token where none belongs, or without one", k.Kind)
		}
		return nil
	}
	if err := luks.CheckToken(k.Slot, token); err != nil {
		return err
	}
	var t struct {
		Type     string   `json:"type"`
		Keyslots []string `json:"keyslots"`
	}
	if err := json.Unmarshal(token, &t); err != nil {
		return err
	}
	others := slices.ContainsFunc(t.Keyslots, func(id string) bool { return id != strconv.Itoa(k.Slot) })
	if !slices.Contains(k.Tokens, t.Type) || others {
		return fmt.Errorf("a token of type %q for keyslots %q cannot be that of a %s key in slot %d", t.Type, t.Keyslots, k.Kind, k.Slot)
	}
	return nil
}

func seal(ctx context.Context, k Key, volume *luks.VolumeKey, prints fingerprinter, p *secret.Bytes, token json.RawMessage, stretched func() (kdf.Cost, error)) (enrolled, error) {
	cost := kdf.Light()
	if !k.Random {
		var err error
		if cost, err = stretched(); err != nil {
			return enrolled{}, err
		}
	}
	sealed, err := volume.Seal(ctx, p, cost)
	if err != nil {
		return enrolled{}, err
	}
	if !k.Random {
		p = nil
	}
	return enrolled{k, sealed, token, prints.entry(k.Kind, k.Slot, sealed.Sum(), token, p)}, nil
}

// Apply plans and runs the plan. Everything that changes goes into one commit;
// when the keyslots area has no room for that, removals go first where a kept
// key allows it, then replacements and additions one by one. Where nothing is to
// be changed, what an interrupted change left is cleaned. Blocked slots are not
// errors: they are in the report, which is there also beside an error when
// something was changed.
//
// When the context ends before anything is written, Apply may be called again.
func (s *Session) Apply(ctx context.Context) (*Report, error) {
	st, err := s.State(ctx)
	if err != nil {
		return nil, err
	}
	r, err := s.run(ctx, s.notAgain(Plan(st, s.opts.Policy)))
	return r.after(s.early), err
}

// run runs a plan.
func (s *Session) run(ctx context.Context, steps []Step) (*Report, error) {
	made, errs := enroll(ctx, s.toEnroll(steps), s.volume, s.prints, s.request, s.opts)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for i, step := range steps {
		if err, failed := errs[step.Slot]; failed {
			steps[i] = Step{step.Slot, Blocked, step.Kind, fmt.Sprintf("could not %s: %v", step.Action, err)}
		}
	}
	steps = guard(steps)
	before := s.header.SeqID()
	err := s.commit(steps, made, func(Step) bool { return true })
	if noArea(err) {
		err = s.commitOneByOne(steps, made)
	}
	changed := before != s.header.SeqID()
	if err == nil && !changed {
		changed, err = s.clean()
	}
	if err != nil && !changed && !errors.Is(err, luks.ErrNotWiped) {
		return nil, err
	}
	return s.report(steps, changed), err
}

// clean ends what an interrupted change left to do, such as wiping a key that it
// removed: where there is nothing to change, no commit does it.
func (s *Session) clean() (changed bool, err error) {
	_, done, err := s.header.Repair()
	if err != nil {
		return false, fmt.Errorf("%w: %w", luks.ErrNotWiped, err)
	}
	for _, what := range done {
		s.opts.log().Warn("header cleaned", "volume", s.name, "what", what)
	}
	return len(done) > 0, nil
}

func noArea(err error) bool {
	var room *luks.RoomError
	return errors.As(err, &room) && room.What == luks.KeyslotsArea
}

func (s *Session) toEnroll(steps []Step) []Key {
	return slices.DeleteFunc(slices.Clone(s.want), func(k Key) bool {
		return !slices.ContainsFunc(steps, func(st Step) bool {
			return st.Slot == k.Slot && makes(st.Action)
		})
	})
}

// commit writes the chosen steps, and the record as it is after them.
func (s *Session) commit(steps []Step, made map[int]enrolled, chosen func(Step) bool) error {
	r := newRecord()
	var expect, changes []luks.Change
	for _, step := range steps {
		e := made[step.Slot]
		entry, ours := s.record.entry(step.Slot)
		switch {
		case step.Action == Keep:
			expect = append(expect, luks.ExpectKeyslot(step.Slot))
			entry, ours = s.keptEntry(step.Slot, entry), true
		case !chosen(step):
		case step.Action == Add:
			changes = append(changes, luks.AddKeyslot(step.Slot, e.sealed, e.token))
			entry, ours = e.entry, true
		case step.Action == Replace:
			changes = append(changes, luks.ReplaceKeyslot(step.Slot, e.sealed, e.token))
			entry, ours = e.entry, true
		case step.Action == Remove:
			changes = append(changes, luks.RemoveKeyslot(step.Slot))
			ours = false
		}
		if chosen(step) && losesToken(step.Action) {
			changes = append(changes, dropTokens(s.header, step.Slot, e.token != nil)...)
		}
		if ours {
			r.Slots[strconv.Itoa(step.Slot)] = entry
		}
	}
	store, err := s.storeRecord(r, len(changes) > 0)
	if err != nil {
		return err
	}
	h, err := s.header.Commit(slices.Concat(expect, store, changes)...)
	if h == nil {
		return err
	}
	s.header, s.record = h, readRecord(h)
	if err != nil && !errors.Is(err, luks.ErrNotWiped) {
		return err
	}
	for _, step := range steps {
		if e, ok := made[step.Slot]; ok && chosen(step) && step.Action != Blocked {
			s.states[step.Slot] = KeyState{Slot: step.Slot, Kind: step.Kind, Sealed: len(e.key.Tokens) > 0, Proof: Derived}
			s.proved[step.Slot] = e.entry
		}
	}
	return err
}

// storeRecord returns the changes for a new record; none when nothing changes,
// so that a header to which nothing is done stays as it is.
func (s *Session) storeRecord(r record, changed bool) ([]luks.Change, error) {
	if !changed && reflect.DeepEqual(r.Slots, s.record.Slots) {
		return nil, nil
	}
	_, inConfig := s.header.Config(recordType)
	return r.store(s.header.Tokens(), inConfig, s.want)
}

// losesToken: a slot that is new, renewed or gone has the token of its new key
// or none.
func losesToken(a Action) bool { return a == Add || a == Replace || a == Remove }

// keptEntry is the record of a slot that was seen to open: as it was when the
// record itself was the proof, else made from the derivation.
func (s *Session) keptEntry(slot int, old recordEntry) recordEntry {
	if e, ok := s.proved[slot]; ok {
		return e
	}
	return old
}

// commitOneByOne is for headers whose keyslots area cannot hold old and new keys
// at once. Steps that still find no room become blocked. Replacements come before
// additions: each gives back the room it takes.
func (s *Session) commitOneByOne(steps []Step, made map[int]enrolled) error {
	order := []Action{Replace, Add}
	if slices.ContainsFunc(steps, func(st Step) bool { return st.Action == Keep }) {
		order = []Action{Remove, Replace, Add}
	}
	var failed error // but for lack of room
	stopped, done := false, map[int]bool{}
	why := "not removed: no configured key opens the volume, and none found room"
	for _, action := range order {
		for i, step := range steps {
			if step.Action != action || stopped {
				continue
			}
			err := s.commit(steps, made, func(st Step) bool { return st == step })
			if noArea(err) {
				steps[i] = Step{step.Slot, Blocked, step.Kind, err.Error()}
				continue
			}
			failed = errors.Join(failed, err)
			if err != nil && !errors.Is(err, luks.ErrNotWiped) {
				stopped, why = true, fmt.Sprintf("not done: %v", err)
				continue
			}
			done[step.Slot] = true
			why = "not removed: run again, now that the new keys are in place"
		}
	}
	for i, step := range steps {
		if losesToken(step.Action) && !done[step.Slot] {
			steps[i] = Step{step.Slot, Blocked, step.Kind, why}
		}
	}
	return failed
}
