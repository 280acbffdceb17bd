package keys

import (
	"context"
	"slices"
)

// ApplyLocal is Apply without waiting for anyone: what remote keys have not
// answered yet is left out, none of them is made, and their slots stay. The report
// names them as Asking; where it does, Apply does the rest, also when keys that are
// not remote can be had no longer by then.
func (s *Session) ApplyLocal(ctx context.Context) (*Report, error) {
	st, err := s.state(ctx, false)
	if err != nil {
		return nil, err
	}
	steps, asking := s.postponed(Plan(st, s.opts.Policy))
	r, err := s.run(ctx, slices.Clone(steps))
	if s.early = r; r == nil {
		return nil, err
	}
	for _, step := range steps {
		at := slices.IndexFunc(r.Slots, func(res Result) bool { return res.Slot == step.Slot && res.Outcome == WasBlocked })
		if at >= 0 && makes(step.Action) {
			s.failed[step.Slot] = Step{step.Slot, Blocked, step.Kind, r.Slots[at].Reason}
		}
	}
	r.Asking = asking
	return r, err
}

func makes(a Action) bool { return a == Add || a == Replace }

// postponed blocks the steps that need what remote keys have not answered, or
// that would ask them for more, and returns their slots.
func (s *Session) postponed(steps []Step) (out []Step, asking []int) {
	out = slices.Clone(steps)
	for i, step := range out {
		at := slices.IndexFunc(s.want, func(k Key) bool { return k.Slot == step.Slot && k.Remote })
		if at < 0 {
			continue
		}
		_, judged := s.states[step.Slot]
		_, there := s.header.Keyslot(step.Slot)
		switch {
		case makes(step.Action):
			out[i] = Step{step.Slot, Blocked, step.Kind, "not made yet: its server is asked later"}
		case there && !judged:
			out[i] = Step{step.Slot, Blocked, step.Kind, "stays; its server has not answered yet"}
		default:
			continue
		}
		asking = append(asking, step.Slot)
	}
	return guard(out), asking
}

// notAgain leaves blocked what could not be made before: what it takes, such as a
// TPM whose latch is open, may be gone since.
func (s *Session) notAgain(steps []Step) []Step {
	for i, step := range steps {
		if old, failed := s.failed[step.Slot]; failed && makes(step.Action) {
			steps[i] = old
		}
	}
	return guard(steps)
}

// after is the report of two runs, this one and one before it: a slot that was
// changed then and only kept now was changed.
func (r *Report) after(early *Report) *Report {
	if r == nil || early == nil {
		return r
	}
	r.Changed = r.Changed || early.Changed
	for _, old := range early.Slots {
		i := slices.IndexFunc(r.Slots, func(n Result) bool { return n.Slot == old.Slot })
		switch {
		case i < 0:
			r.Slots = append(r.Slots, old)
		case r.Slots[i].Outcome == Kept && (old.Outcome == Added || old.Outcome == Replaced):
			r.Slots[i] = old
		}
	}
	slices.SortFunc(r.Slots, func(a, b Result) int { return a.Slot - b.Slot })
	return r
}
