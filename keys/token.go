package keys

import (
	"encoding/json"
	"slices"

	"github.com/cryptctl/cryptctl/luks"
)

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

// dropTokens returns the changes that remove what tokens a slot's old key had: the
// one of its id, unless a new one stands there now, and those that name no other
// slot. One that stayed behind would pass for the token of the slot of its id.
func dropTokens(h *luks.Header, slot int, renewed bool) []luks.Change {
	var changes []luks.Change
	for _, t := range h.Tokens() {
		own := t.ID == slot && TokenOf(h, slot) != nil
		only := len(t.Keyslots) > 0 && len(owners(t, slot)) == 0
		if (own || only) && !(renewed && t.ID == slot) {
			changes = append(changes, luks.RemoveToken(t.ID))
		}
	}
	return changes
}

// RemoveSlot returns the changes that remove a slot by hand, its tokens included.
func RemoveSlot(h *luks.Header, slot int) []luks.Change {
	return append([]luks.Change{luks.RemoveKeyslot(slot)}, dropTokens(h, slot, false)...)
}

// ReplaceSlot returns the changes that give a slot another passphrase by hand;
// the tokens of the old one go.
func ReplaceSlot(h *luks.Header, slot int, key *luks.SealedKey) []luks.Change {
	return append([]luks.Change{luks.ReplaceKeyslot(slot, key, nil)}, dropTokens(h, slot, false)...)
}
