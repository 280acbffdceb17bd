package keys_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/keys"
)

// Dimensions of a slot and its key.
var (
	slotStates = map[string]keys.SlotState{
		"absent":  {Slot: -1},
		"managed": {Managed: true},
		"changed": {Changed: true},
		"foreign": {},
	}
	keyStates = map[string]keys.KeyState{
		"derived":     {Proof: keys.Derived},
		"fingerprint": {Proof: keys.Fingerprint},
		"unavailable": {Err: fmt.Errorf("%w: why", keys.ErrUnavailable)},
		"stale":       {Err: fmt.Errorf("%w: why", keys.ErrStale)},
		"rejected":    {Err: fmt.Errorf("%w: why", keys.ErrRejected)},
		"denied":      {Err: fmt.Errorf("%w: why", keys.ErrDenied)},
		"malformed":   {Err: fmt.Errorf("%w: why", keys.ErrMalformed)},
		"no token":    {Err: fmt.Errorf("%w: why", keys.ErrNoToken)},
		"unknown":     {Err: errors.New("why")},
		"not asked":   {},
		"outdated":    {Proof: keys.Fingerprint, Outdated: errors.New("why")},
		"vouched":     {Err: fmt.Errorf("%w: why", keys.ErrRejected), Vouched: true},
		"may heal":    {Err: fmt.Errorf("%w: why", keys.ErrStale), Reseal: true},
		"may not":     {Err: fmt.Errorf("%w: why", keys.ErrStale), NotResealed: errors.New("why not")},
	}
)

// planRow says what becomes of a configured key. Lists are separated by spaces;
// unless names the policy that it takes, all parts of it.
type planRow struct {
	slot, key, seal string
	want            keys.Action
	unless          string
	then            keys.Action
	reason          string // of want
}

// planRows cover the whole product, each case once.
var planRows = []planRow{
	{slot: "absent", key: "derived fingerprint not-asked outdated", seal: "plain sealed", want: keys.Add, reason: "configured, not there"},
	{slot: "absent", key: "unavailable stale may-heal may-not rejected vouched denied malformed no-token unknown", seal: "plain sealed", want: keys.Blocked, reason: "not added: "},

	{slot: "managed", key: "derived", seal: "plain sealed", want: keys.Keep, reason: "opens (derived)"},
	{slot: "managed", key: "fingerprint", seal: "plain sealed", want: keys.Keep, reason: "opens (fingerprint)"},
	{slot: "changed", key: "derived fingerprint", seal: "plain sealed", want: keys.Keep, reason: "changed by another tool"},
	{slot: "foreign", key: "derived fingerprint", seal: "plain sealed", want: keys.Keep, reason: "adopted"},

	{slot: "managed", key: "outdated", seal: "plain sealed", want: keys.Replace, reason: "opens, and is not as configured: why"},
	{slot: "changed foreign", key: "outdated", seal: "plain sealed", want: keys.Blocked, unless: "adopt", then: keys.Replace, reason: "not as configured: why"},

	{slot: "managed", key: "vouched", seal: "plain sealed", want: keys.Replace, reason: "the configured key does not open it"},
	{slot: "changed foreign", key: "vouched", seal: "plain sealed", want: keys.Blocked, unless: "adopt", then: keys.Replace, reason: "adopt replaces it"},
	{slot: "managed", key: "rejected", seal: "plain", want: keys.Replace, reason: "the configured key does not open it"},
	{slot: "changed foreign", key: "rejected", seal: "plain", want: keys.Blocked, unless: "adopt", then: keys.Replace, reason: "adopt replaces it"},
	{slot: "managed changed foreign", key: "rejected", seal: "sealed", want: keys.Blocked, reason: "the sender may be at fault"},

	{slot: "managed", key: "no-token", seal: "plain sealed", want: keys.Replace, reason: "no token: why"},
	{slot: "changed foreign", key: "no-token", seal: "plain sealed", want: keys.Blocked, unless: "adopt", then: keys.Replace, reason: "adopt replaces it"},

	{slot: "managed", key: "stale", seal: "plain sealed", want: keys.Blocked, unless: "reseal", then: keys.Replace, reason: "not allowed by the policy"},
	{slot: "changed foreign", key: "stale", seal: "plain sealed", want: keys.Blocked, unless: "adopt reseal", then: keys.Replace, reason: "stale: why"},

	{slot: "managed", key: "may-heal", seal: "plain sealed", want: keys.Replace, reason: "stale: why"},
	{slot: "changed foreign", key: "may-heal", seal: "plain sealed", want: keys.Blocked, unless: "adopt", then: keys.Replace, reason: "stale: why"},
	{slot: "managed", key: "may-not", seal: "plain sealed", want: keys.Blocked, unless: "reseal", then: keys.Replace, reason: "not sealed anew: why not"},
	{slot: "changed foreign", key: "may-not", seal: "plain sealed", want: keys.Blocked, unless: "adopt reseal", then: keys.Replace, reason: "stale: why"},

	{slot: "managed changed foreign", key: "unavailable denied malformed unknown", seal: "plain sealed", want: keys.Blocked, reason: "could not be checked: "},
	{slot: "managed changed foreign", key: "not-asked", seal: "plain sealed", want: keys.Blocked, reason: "could not be checked: not asked"},
}

func lists(list, word string) bool {
	return slices.Contains(strings.Fields(list), strings.ReplaceAll(word, " ", "-"))
}

// TestPlanOfOneKey tries every case of a configured key under every policy.
func TestPlanOfOneKey(t *testing.T) {
	for slotName, slot := range slotStates {
		for keyName, key := range keyStates {
			for _, seal := range []string{"plain", "sealed"} {
				i := slices.IndexFunc(planRows, func(r planRow) bool {
					return lists(r.slot, slotName) && lists(r.key, keyName) && lists(r.seal, seal)
				})
				if i < 0 {
					t.Errorf("no row for %s, %s, %s", slotName, keyName, seal)
					continue
				}
				row := planRows[i]
				key := key
				key.Slot, key.Kind, key.Sealed = 5, "kind", seal == "sealed"
				for _, policy := range policies() {
					want := row.want
					if row.unless != "" && (!lists(row.unless, "adopt") || policy.Adopt) && (!lists(row.unless, "reseal") || policy.Reseal) {
						want = row.then
					}
					// Another key opens, so that nothing is blocked for want of one.
					state := keys.State{
						Slots: []keys.SlotState{{Slot: 9, Managed: true}},
						Keys:  []keys.KeyState{key, {Slot: 9, Kind: "other", Proof: keys.Derived}},
					}
					if slotName != "absent" {
						slot.Slot = 5
						state.Slots = append(state.Slots, slot)
					}
					got := keys.Plan(state, policy)
					if len(got) != 2 || got[0].Slot != 5 || got[0].Kind != "kind" || got[0].Action != want {
						t.Errorf("%s, %s, %s, %+v: %+v, want %s", slotName, keyName, seal, policy, got[0], want)
					} else if want == row.want && !policy.Adopt && !policy.Reseal && !strings.Contains(got[0].Reason, row.reason) {
						t.Errorf("%s, %s, %s: reason %q, must contain %q", slotName, keyName, seal, got[0].Reason, row.reason)
					}
				}
			}
		}
	}
}

func policies() (all []keys.Policy) {
	for i := range 8 {
		all = append(all, keys.Policy{Adopt: i&1 > 0, Prune: i&2 > 0, Reseal: i&4 > 0})
	}
	return all
}

// TestPlanOfOtherSlots is about slots that no configured key has.
func TestPlanOfOtherSlots(t *testing.T) {
	opens := keys.KeyState{Slot: 0, Kind: "static", Proof: keys.Derived}
	down := keys.KeyState{Slot: 0, Kind: "kms", Sealed: true, Err: fmt.Errorf("%w: down", keys.ErrUnavailable)}
	tests := []struct {
		name   string
		slot   keys.SlotState
		key    keys.KeyState
		policy keys.Policy
		want   keys.Step
	}{
		{"managed", keys.SlotState{Managed: true}, opens, keys.Policy{}, keys.Step{Action: keys.Remove, Reason: "not configured any more"}},
		{"managed, to be pruned", keys.SlotState{Managed: true}, opens, keys.Policy{Prune: true}, keys.Step{Action: keys.Remove, Reason: "not configured any more"}},
		{"foreign", keys.SlotState{}, opens, keys.Policy{Adopt: true, Reseal: true}, keys.Step{Action: keys.Foreign, Reason: "not made by this tool"}},
		{"foreign, to be pruned", keys.SlotState{}, opens, keys.Policy{Prune: true}, keys.Step{Action: keys.Remove, Reason: "not made by this tool, and foreign slots are to be pruned"}},
		{"changed", keys.SlotState{Changed: true}, opens, keys.Policy{Adopt: true, Reseal: true}, keys.Step{Action: keys.Foreign, Reason: "was changed by another tool since this one made it"}},
		{"changed, to be pruned", keys.SlotState{Changed: true}, opens, keys.Policy{Prune: true}, keys.Step{Action: keys.Remove, Reason: "not made by this tool, and foreign slots are to be pruned"}},
		{"managed, and no key opens", keys.SlotState{Managed: true}, down, keys.Policy{}, keys.Step{Action: keys.Blocked, Reason: "not removed: no configured key that stays was seen to open the volume"}},
		{"foreign, to be pruned, and no key opens", keys.SlotState{}, down, keys.Policy{Prune: true}, keys.Step{Action: keys.Blocked, Reason: "not removed: no configured key that stays was seen to open the volume"}},
		{"foreign, and no key opens", keys.SlotState{}, down, keys.Policy{}, keys.Step{Action: keys.Foreign, Reason: "not made by this tool"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.slot.Slot, test.want.Slot = 7, 7
			got := keys.Plan(keys.State{Slots: []keys.SlotState{test.slot, {Slot: 0, Managed: true}}, Keys: []keys.KeyState{test.key}}, test.policy)
			if d := cmp.Diff(test.want, got[len(got)-1]); d != "" {
				t.Errorf("step (-want +got):\n%s", d)
			}
		})
	}
}

// TestPlanWhole is a plan with all actions in it.
func TestPlanWhole(t *testing.T) {
	state := keys.State{
		Slots: []keys.SlotState{{Slot: 12}, {Slot: 3, Managed: true}, {Slot: 1, Managed: true}, {Slot: 20, Managed: true}, {Slot: 4, Managed: true}},
		Keys: []keys.KeyState{
			{Slot: 30, Kind: "nodeID"},
			{Slot: 1, Kind: "static", Proof: keys.Derived},
			{Slot: 4, Kind: "tpm", Sealed: true, Err: fmt.Errorf("%w: PCR 7 differs", keys.ErrStale)},
			{Slot: 3, Kind: "static", Err: fmt.Errorf("%w: it does not open slot 3", keys.ErrRejected)},
		},
	}
	want := []keys.Step{
		{Slot: 1, Action: keys.Keep, Kind: "static", Reason: "opens (derived)"},
		{Slot: 3, Action: keys.Replace, Kind: "static", Reason: "the configured key does not open it"},
		{Slot: 4, Action: keys.Blocked, Kind: "tpm", Reason: "stale: PCR 7 differs; sealing it anew is not allowed by the policy"},
		{Slot: 12, Action: keys.Foreign, Reason: "not made by this tool"},
		{Slot: 20, Action: keys.Remove, Reason: "not configured any more"},
		{Slot: 30, Action: keys.Add, Kind: "nodeID", Reason: "configured, not there"},
	}
	got := keys.Plan(state, keys.Policy{})
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("plan (-want +got):\n%s", d)
	}
	if !keys.Pending(got) || keys.Pending(slices.DeleteFunc(got, func(s keys.Step) bool {
		return s.Action == keys.Add || s.Action == keys.Replace || s.Action == keys.Remove
	})) {
		t.Error("Pending is not about add, replace and remove")
	}
}

func TestClass(t *testing.T) {
	for _, class := range []error{keys.ErrUnavailable, keys.ErrStale, keys.ErrRejected, keys.ErrDenied, keys.ErrMalformed, keys.ErrNoToken} {
		if got := keys.Class(fmt.Errorf("slot 3: %w: why", class)); got != class {
			t.Errorf("the class of %v is %v", class, got)
		}
	}
	for _, err := range []error{errors.New("why"), nil} {
		if got := keys.Class(err); got != keys.ErrUnavailable {
			t.Errorf("the class of %v is %v", err, got)
		}
	}
}

func TestCheckKeys(t *testing.T) {
	key := func(slot int, kind string) keys.Key { return keys.Key{Slot: slot, Kind: kind} }
	tests := []struct {
		name string
		want []keys.Key
		text string // the error; empty for none
	}{
		{"one", []keys.Key{key(0, "static")}, ""},
		{"first and last", []keys.Key{key(31, "static"), key(0, "kms")}, ""},
		{"none", nil, "no keys are wanted; a volume needs at least one"},
		{"slot 32", []keys.Key{key(32, "tpm")}, "the tpm key has slot 32; slots run from 0 to 31"},
		{"slot -1", []keys.Key{key(-1, "tpm")}, "the tpm key has slot -1; slots run from 0 to 31"},
		{"twice", []keys.Key{key(4, "tpm"), key(3, "kms"), key(4, "static")}, "slot 4 is wanted by two keys, tpm and static"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := keys.CheckKeys(test.want)
			if err == nil && test.text != "" || err != nil && err.Error() != test.text {
				t.Errorf("error %v, want %q", err, test.text)
			}
		})
	}
}

// states draws what Session.State can give: slots and keys with ids of their
// own, and a proof only where there is a slot.
func states(t *rapid.T) keys.State {
	ids := rapid.SliceOfNDistinct(rapid.IntRange(0, 31), 0, 12, rapid.ID)
	var s keys.State
	for _, id := range ids.Draw(t, "slots") {
		name := rapid.SampledFrom([]string{"managed", "changed", "foreign"}).Draw(t, "slot state")
		slot := slotStates[name]
		slot.Slot = id
		s.Slots = append(s.Slots, slot)
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range keyStates {
			if !yield(name) {
				return
			}
		}
	})
	for _, id := range ids.Draw(t, "keys") {
		key := keyStates[rapid.SampledFrom(names).Draw(t, "key state")]
		if !hasSlot(s, id) {
			key = keyStates[rapid.SampledFrom([]string{"not asked", "not asked", "denied"}).Draw(t, "key state")]
		}
		key.Slot, key.Kind, key.Sealed = id, "kind", rapid.Bool().Draw(t, "sealed")
		s.Keys = append(s.Keys, key)
	}
	return s
}

func hasSlot(s keys.State, id int) bool {
	return slices.ContainsFunc(s.Slots, func(h keys.SlotState) bool { return h.Slot == id })
}

func hasKey(s keys.State, id int) bool {
	return slices.ContainsFunc(s.Keys, func(k keys.KeyState) bool { return k.Slot == id })
}

func drawPolicy(t *rapid.T) keys.Policy {
	return rapid.SampledFrom(policies()).Draw(t, "policy")
}

// TestPlanProperties is what holds of every plan.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p := states(t), drawPolicy(t)
		steps := keys.Plan(s, p)
		opens, loses := false, false
		last := -1
		for _, step := range steps {
			if step.Slot <= last {
				t.Fatalf("slot %d comes after %d", step.Slot, last)
			}
			last = step.Slot
			if step.Reason == "" || !hasSlot(s, step.Slot) && !hasKey(s, step.Slot) {
				t.Fatalf("%+v names nothing, or no reason", step)
			}
			opens = opens || slices.Contains([]keys.Action{keys.Keep, keys.Add, keys.Replace}, step.Action)
			loses = loses || step.Action == keys.Remove || step.Action == keys.Replace
			checkStep(t, s, p, step)
		}
		for i := range 32 {
			if named := slices.ContainsFunc(steps, func(step keys.Step) bool { return step.Slot == i }); named != (hasSlot(s, i) || hasKey(s, i)) {
				t.Fatalf("slot %d is named: %v", i, named)
			}
		}
		if loses && !opens {
			t.Fatalf("loses keys, and none opens: %+v", steps)
		}
	})
}

// checkStep holds one step against what it must never be.
func checkStep(t *rapid.T, s keys.State, p keys.Policy, step keys.Step) {
	at := slices.IndexFunc(s.Slots, func(h keys.SlotState) bool { return h.Slot == step.Slot })
	of := slices.IndexFunc(s.Keys, func(k keys.KeyState) bool { return k.Slot == step.Slot })
	ours := at >= 0 && s.Slots[at].Managed
	touches := step.Action == keys.Remove || step.Action == keys.Replace
	switch {
	case step.Action == keys.Add && at >= 0, step.Action != keys.Add && step.Action != keys.Blocked && at < 0:
		t.Fatalf("%+v of a slot that is there: %v", step, at >= 0)
	case at >= 0 && !ours && of < 0 && touches && !p.Prune, at >= 0 && !ours && of >= 0 && touches && !p.Adopt:
		t.Fatalf("%+v of a foreign slot", step)
	case step.Action == keys.Remove && of >= 0:
		t.Fatalf("%+v of a configured key", step)
	case step.Action == keys.Keep && s.Keys[of].Proof == "":
		t.Fatalf("%+v without a proof", step)
	case of >= 0 && at >= 0 && s.Keys[of].Proof != "" && s.Keys[of].Outdated == nil && step.Action != keys.Keep:
		t.Fatalf("%+v of a key that opens", step)
	}
}

// TestPlanIsPure: the order of what is asked does not matter, and nothing of it
// is changed.
func TestPlanIsPure(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p := states(t), drawPolicy(t)
		before := keys.State{Slots: slices.Clone(s.Slots), Keys: slices.Clone(s.Keys)}
		first := keys.Plan(s, p)
		if d := cmp.Diff(before, s, cmp.Comparer(func(a, b error) bool { return a == b })); d != "" {
			t.Fatalf("the state was changed (-want +got):\n%s", d)
		}
		shuffled := keys.State{Slots: rapid.Permutation(s.Slots).Draw(t, "slot order"), Keys: rapid.Permutation(s.Keys).Draw(t, "key order")}
		if d := cmp.Diff(first, keys.Plan(shuffled, p)); d != "" {
			t.Fatalf("in another order (-want +got):\n%s", d)
		}
	})
}

// done is the state after a plan was run.
func done(s keys.State, steps []keys.Step) keys.State {
	var after keys.State
	for _, step := range steps {
		at := slices.IndexFunc(s.Slots, func(h keys.SlotState) bool { return h.Slot == step.Slot })
		of := slices.IndexFunc(s.Keys, func(k keys.KeyState) bool { return k.Slot == step.Slot })
		switch step.Action {
		case keys.Keep, keys.Add, keys.Replace:
			after.Slots = append(after.Slots, keys.SlotState{Slot: step.Slot, Managed: true})
			key := s.Keys[of]
			key.Proof, key.Err, key.Outdated = keys.Derived, nil, nil
			after.Keys = append(after.Keys, key)
		case keys.Foreign, keys.Blocked:
			if at >= 0 {
				after.Slots = append(after.Slots, s.Slots[at])
			}
			if of >= 0 {
				after.Keys = append(after.Keys, s.Keys[of])
			}
		case keys.Remove:
		}
	}
	return after
}

// TestPlanConverges: once a plan was run there is nothing more to do, and what
// was done is kept.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, p := states(t), drawPolicy(t)
		steps := keys.Plan(s, p)
		again := keys.Plan(done(s, steps), p)
		if keys.Pending(again) {
			t.Fatalf("the plan %+v\nis followed by %+v", steps, again)
		}
		for _, step := range again {
			was := steps[slices.IndexFunc(steps, func(b keys.Step) bool { return b.Slot == step.Slot })]
			if was.Action == keys.Add || was.Action == keys.Replace {
				was.Action = keys.Keep
			}
			if step.Action != was.Action {
				t.Fatalf("%+v is followed by %+v", was, step)
			}
		}
	})
}
