package keys

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cryptctl/cryptctl/luks"
)

// Action is what becomes of one slot.
type Action string

// Actions.
const (
	Keep    Action = "keep"    // configured, and seen to open
	Add     Action = "add"     // configured, and not there
	Replace Action = "replace" // configured, and out of date
	Remove  Action = "remove"  // not configured any more
	Foreign Action = "foreign" // not configured and not ours: stays
	Blocked Action = "blocked" // something should be done and must not be
)

// SlotState is a keyslot of the header.
type SlotState struct {
	Slot int
	// Managed says that the record under the volume key names the slot and that
	// it is as we made it. Changed says that it was ours and is not as we made it.
	Managed, Changed bool
}

// KeyState is a configured key and what asking for it showed.
type KeyState struct {
	Slot   int
	Kind   string
	Sealed bool // the passphrase comes from a token, not from the configuration

	// How the key was seen to open its slot; empty when it was not.
	Proof Proof
	// Err says why it was not: a provider's class or [ErrRejected]. Of a slot that
	// is not there, why the key cannot be added.
	Err error

	// Outdated says how the token of a key that opens differs from what is
	// configured now.
	Outdated error
	// Reseal says that the key may be made anew when it is stale; NotResealed why
	// it may not, where that was asked.
	Reseal      bool
	NotResealed error
	// Vouched says of a passphrase that does not open its slot that the token is for
	// this very volume, so that it is not the sender's fault.
	Vouched bool
}

// Proof says how a key was seen to open its slot.
type Proof string

// Proofs.
const (
	Derived     Proof = "derived"     // its key derivation gave the volume key
	Fingerprint Proof = "fingerprint" // slot and passphrase are those recorded under the volume key
)

// State is all that a plan depends on.
type State struct {
	Slots []SlotState // of the header
	Keys  []KeyState  // as configured
}

// Policy says what a plan may do beyond the safe default.
type Policy struct {
	Adopt  bool // replace foreign slots that stand where a configured key belongs
	Prune  bool // remove foreign slots
	Reseal bool // make stale keys anew; foreign ones only with Adopt
}

// Step is what is planned for one slot.
type Step struct {
	Slot   int    `json:"slot"`
	Action Action `json:"action"`
	Kind   string `json:"kind,omitempty"`
	Reason string `json:"reason"`
}

// Plan says what to do with each slot, ordered by slot. It is a pure function.
func Plan(s State, p Policy) []Step {
	var steps []Step
	for _, k := range s.Keys {
		i := slices.IndexFunc(s.Slots, func(h SlotState) bool { return h.Slot == k.Slot })
		if i < 0 && k.Err != nil {
			steps = append(steps, Step{k.Slot, Blocked, k.Kind, "not added: " + errText(k.Err)})
			continue
		}
		if i < 0 {
			steps = append(steps, Step{k.Slot, Add, k.Kind, "configured, not there"})
			continue
		}
		action, reason := judge(k, s.Slots[i], p)
		steps = append(steps, Step{k.Slot, action, k.Kind, reason})
	}
	for _, h := range s.Slots {
		if slices.ContainsFunc(s.Keys, func(k KeyState) bool { return k.Slot == h.Slot }) {
			continue
		}
		switch {
		case h.Managed:
			steps = append(steps, Step{h.Slot, Remove, "", "not configured any more"})
		case p.Prune:
			steps = append(steps, Step{h.Slot, Remove, "", "not made by this tool, and foreign slots are to be pruned"})
		case h.Changed:
			steps = append(steps, Step{h.Slot, Foreign, "", "was changed by another tool since this one made it"})
		default:
			steps = append(steps, Step{h.Slot, Foreign, "", "not made by this tool"})
		}
	}
	slices.SortFunc(steps, func(a, b Step) int { return a.Slot - b.Slot })
	return guard(steps)
}

// judge decides about a configured key whose slot is in use.
func judge(k KeyState, h SlotState, p Policy) (Action, string) {
	ours, reseal := h.Managed || p.Adopt, p.Reseal || k.Reseal
	if k.Proof != "" {
		switch {
		case k.Outdated != nil && ours:
			return Replace, "opens, and is not as configured: " + k.Outdated.Error()
		case k.Outdated != nil:
			return Blocked, "opens, and is not as configured: " + k.Outdated.Error() + "; the slot or its token is not as this tool made it, adopt replaces it"
		case h.Managed:
			return Keep, "opens (" + string(k.Proof) + ")"
		case h.Changed:
			return Keep, "opens (" + string(k.Proof) + "); the slot or its token was changed by another tool"
		}
		return Keep, "opens (" + string(k.Proof) + "); adopted"
	}
	switch class := Class(k.Err); {
	case class == ErrRejected && (!k.Sealed || k.Vouched) && ours:
		return Replace, "the configured key does not open it"
	case class == ErrNoToken && ours:
		return Replace, errText(k.Err)
	case class == ErrStale && reseal && ours:
		return Replace, errText(k.Err)
	case class == ErrStale && reseal:
		return Blocked, errText(k.Err) + "; this tool did not make the slot, adopt lets it be sealed anew"
	case class == ErrStale && k.NotResealed != nil:
		return Blocked, errText(k.Err) + "; not sealed anew: " + k.NotResealed.Error()
	case class == ErrStale:
		return Blocked, errText(k.Err) + "; sealing it anew is not allowed by the policy"
	case class == ErrRejected && k.Sealed && !k.Vouched:
		return Blocked, "the passphrase that came back does not open the slot, which stays: the sender may be at fault"
	case class == ErrRejected || class == ErrNoToken:
		return Blocked, "the configured key does not open it, and the slot or its token is not as this tool made it; adopt replaces it"
	}
	return Blocked, "stays, but could not be checked: " + errText(k.Err)
}

func errText(err error) string {
	if err == nil {
		return "not asked"
	}
	return err.Error()
}

// guard blocks every loss unless a configured key opens, or will when the plan
// is done.
func guard(steps []Step) []Step {
	if slices.ContainsFunc(steps, func(s Step) bool { return s.Action == Keep || makes(s.Action) }) {
		return steps
	}
	for i, s := range steps {
		if s.Action == Remove {
			steps[i] = Step{s.Slot, Blocked, s.Kind, "not removed: no configured key that stays was seen to open the volume"}
		}
	}
	return steps
}

// Pending reports whether any step changes a slot.
func Pending(steps []Step) bool {
	return slices.ContainsFunc(steps, func(s Step) bool {
		return s.Action == Add || s.Action == Replace || s.Action == Remove
	})
}

// checkKeys finds mistakes in a list of wanted keys.
func checkKeys(want []Key) error {
	if len(want) == 0 {
		return errors.New("no keys are wanted; a volume needs at least one")
	}
	seen := map[int]string{}
	for _, k := range want {
		if k.Slot < 0 || k.Slot >= luks.MaxSlots {
			return fmt.Errorf("the %s key has slot %d; slots run from 0 to %d", k.Kind, k.Slot, luks.MaxSlots-1)
		}
		if other, dup := seen[k.Slot]; dup {
			return fmt.Errorf("slot %d is wanted by two keys, %s and %s", k.Slot, other, k.Kind)
		}
		seen[k.Slot] = k.Kind
	}
	return nil
}
