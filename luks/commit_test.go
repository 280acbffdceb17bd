package luks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks"
)

func note(slots, text string) json.RawMessage {
	return json.RawMessage(`{"type":"test","keyslots":[` + slots + `],"note":"` + text + `"}`)
}

// tokens gives the tokens of a header as one text.
func tokens(h *luks.Header) string {
	var all []string
	for _, t := range h.Tokens() {
		all = append(all, string(t.JSON))
	}
	return strings.Join(all, "\n")
}

func TestAddKeyslot(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	sealed := seal(t, key, "new")
	sealed.Priority = luks.PriorityPrefer
	next := commit(t, h, luks.AddKeyslot(luks.AnySlot, sealed, note(`"2"`, "of slot 2")))
	if sealed.Slot() != 2 || next.SeqID() != h.SeqID()+1 {
		t.Errorf("slot %d, sequence %d", sealed.Slot(), next.SeqID())
	}
	now := sound(t, d)
	if diff := cmp.Diff(string(next.JSON()), string(now.JSON())); diff != "" {
		t.Errorf("what Commit returned and what is there (-returned +there):\n%s", diff)
	}
	if got := opens(t, now, "zero", "one", "new"); got != "zero:0 one:1 new:2" {
		t.Errorf("opens %q", got)
	}
	if got := tokens(now); got != string(note(`"1"`, "of slot 1"))+"\n"+string(note(`"2"`, "of slot 2")) {
		t.Errorf("tokens:\n%s", got)
	}
	if k, _ := now.Keyslot(2); k.Priority != luks.PriorityPrefer {
		t.Errorf("priority %v", k.Priority)
	}
	// The header that was planned on stays as it was.
	if got := opens(t, h, "new"); got != "" || len(h.Keyslots()) != 2 {
		t.Errorf("the old header opens %q", got)
	}
	if sum, err := now.KeyslotSum(2); err != nil || sum != sealed.Sum() {
		t.Errorf("KeyslotSum differs from the sum of the sealed key: %v", err)
	}
}

// TestAnySlotLeavesTokens: the id of a new slot with a token is one that no
// token has, since other tools number theirs as they like.
func TestAnySlotLeavesTokens(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	h = commit(t, h, luks.SetToken(2, note(`"1"`, "of another tool")))
	sealed := seal(t, key, "new")
	commit(t, h, luks.AddKeyslot(luks.AnySlot, sealed, note(`"0"`, "ours")))
	now := sound(t, d)
	if token, _ := now.Token(2); sealed.Slot() != 3 || !strings.Contains(string(token.JSON), "of another tool") {
		t.Errorf("slot %d; token 2 is %s", sealed.Slot(), token.JSON)
	}
}

func TestReplaceKeyslot(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	h = commit(t, h, luks.SetPriority(0, luks.PriorityPrefer))
	was, _ := h.Keyslot(0)
	sum, _ := h.KeyslotSum(0)
	old := bytes.Clone(d.data[was.Area.Offset:][:areaBytes])

	sealed := seal(t, key, "new")
	commit(t, h, luks.ReplaceKeyslot(0, sealed, note(`"0"`, "of slot 0")))
	h = sound(t, d)
	if got := opens(t, h, "zero", "new", "one"); got != "new:0 one:1" || sealed.Slot() != 0 {
		t.Errorf("opens %q, slot %d", got, sealed.Slot())
	}
	is, _ := h.Keyslot(0)
	if is.Area.Offset == was.Area.Offset || is.Priority != luks.PriorityPrefer || h.Keyslots()[0].ID != 0 {
		t.Errorf("keyslot %+v, was %+v", is, was)
	}
	if bytes.Contains(d.data, old[:512]) {
		t.Error("the old key material is still on the disk")
	}
	if now, _ := h.KeyslotSum(0); now == sum || now != sealed.Sum() {
		t.Error("the sum of the slot did not change with its key")
	}
	if token, _ := h.Token(0); string(token.JSON) != string(note(`"0"`, "of slot 0")) {
		t.Errorf("token 0 is %s", token.JSON)
	}
	if d := h.Digests()[0].Keyslots; len(d) != 2 || !slices.Contains(d, 0) || !slices.Contains(d, 1) {
		t.Errorf("the digest names %v", d)
	}
	// The token stays when none is given.
	h = commit(t, h, luks.ReplaceKeyslot(0, seal(t, key, "newer"), nil))
	if token, _ := h.Token(0); string(token.JSON) != string(note(`"0"`, "of slot 0")) {
		t.Errorf("token 0 is %s", token.JSON)
	}
}

func TestRemoveKeyslot(t *testing.T) {
	d, h := newVolume(t)
	was, _ := h.Keyslot(1)
	old := bytes.Clone(d.data[was.Area.Offset:][:512])
	commit(t, h, luks.RemoveKeyslot(1))
	h = sound(t, d)
	if got := opens(t, h, "zero", "one"); got != "zero:0" {
		t.Errorf("opens %q", got)
	}
	if bytes.Contains(d.data, old) {
		t.Error("the key material is still on the disk")
	}
	if got := tokens(h); got != string(note("", "of slot 1")) {
		t.Errorf("tokens %s", got)
	}
	if d := h.Digests()[0].Keyslots; !slices.Equal(d, []int{0}) {
		t.Errorf("the digest names %v", d)
	}
}

// TestOneCommit makes several changes in one: the sequence number says so.
func TestOneCommit(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	commit(t, h,
		luks.AddKeyslot(7, seal(t, key, "seven"), note(`"7"`, "seven")),
		luks.SetPriority(7, luks.PriorityIgnore),
		luks.RemoveKeyslot(0),
		luks.RemoveToken(1),
		luks.SetFlags("allow-discards", "no-read-workqueue"),
		luks.SetConfig("note", json.RawMessage(`{"by":"test"}`)),
	)
	h = sound(t, d)
	if h.SeqID() != 2 {
		t.Errorf("sequence %d", h.SeqID())
	}
	if got := opens(t, h, "zero", "one", "seven"); got != "one:1" {
		t.Errorf("opens %q", got)
	}
	unlock(t, h, "seven", 7)
	if k, _ := h.Keyslot(7); k.Priority != luks.PriorityIgnore {
		t.Errorf("priority %v", k.Priority)
	}
	if !slices.Equal(h.Flags(), []string{"allow-discards", "no-read-workqueue"}) {
		t.Errorf("flags %v", h.Flags())
	}
	if got := tokens(h); got != string(note(`"7"`, "seven")) {
		t.Errorf("tokens %s", got)
	}
	if note, _ := h.Config("note"); string(note) != `{"by":"test"}` {
		t.Errorf("note %s", note)
	}
	h = commit(t, h, luks.SetFlags(), luks.SetConfig("note", nil), luks.SetPriority(7, luks.PriorityNormal))
	if _, there := h.Config("note"); there || len(h.Flags()) != 0 || strings.Contains(string(h.JSON()), "priority") {
		t.Errorf("not taken back: %s", h.JSON())
	}
}

// TestKeyslotSum: the sum of a slot says whether its key changed, or its
// material, and nothing else.
func TestKeyslotSum(t *testing.T) {
	d, h := newVolume(t)
	was, _ := h.KeyslotSum(0)
	h = commit(t, h, luks.SetPriority(0, luks.PriorityPrefer))
	if now, err := h.KeyslotSum(0); now != was || err != nil {
		t.Errorf("another priority changed it: %v", err)
	}
	if other, _ := h.KeyslotSum(1); other == was {
		t.Error("two slots have one sum")
	}
	if _, err := h.KeyslotSum(5); !errors.Is(err, luks.ErrNoSlot) {
		t.Errorf("sum of a slot that is not there: %v", err)
	}
	d.data[2*metadataSize+200000] ^= 1
	if now, err := h.KeyslotSum(0); now == was || err != nil {
		t.Errorf("other material did not change it: %v", err)
	}
	d.edit(t, edits{"keyslots.1.kdf.iterations": "1001"})
	before, _ := h.KeyslotSum(1)
	if now, err := mustRead(t, d).KeyslotSum(1); now == before || err != nil {
		t.Errorf("another cost did not change it: %v", err)
	}
}

// TestNothingToChange writes nothing.
func TestNothingToChange(t *testing.T) {
	h := mustRead(t, goldenDisk(t).untouchable(t))
	for _, changes := range [][]luks.Change{
		nil,
		{luks.SetPriority(0, luks.PriorityNormal)},
		{luks.SetFlags()},
		{luks.SetToken(1, note(`"1"`, "of slot 1"))},
		{luks.SetConfig("nothing", nil)},
		{luks.ExpectKeyslot(0), luks.ExpectKeyslot(9)},
	} {
		if next, err := h.Commit(changes...); err != nil || next.SeqID() != 1 {
			t.Errorf("got %v, %v", next, err)
		}
	}
}

// TestChangesRefused: one change that cannot be made leaves the disk as it is.
func TestChangesRefused(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	other := luks.NewVolumeKey(64)
	defer other.Wipe()
	token := func(s string) json.RawMessage { return json.RawMessage(s) }
	deep := strings.Repeat(`{"a":`, 31) + "0" + strings.Repeat("}", 31) // legal by itself
	sealed, foreign, odd := seal(t, key, "new"), seal(t, other, "new"), seal(t, key, "new")
	odd.Priority = 2
	tests := []struct {
		name   string
		change luks.Change
		err    error
		text   string
	}{
		{"slot in use", luks.AddKeyslot(0, sealed, nil), luks.ErrSlotInUse, "keyslot 0: the keyslot is in use"},
		{"slot 32", luks.AddKeyslot(32, sealed, nil), nil, "keyslot 32: ids run from 0 to 31"},
		{"slot -2", luks.AddKeyslot(-2, sealed, nil), nil, "keyslot -2: ids run from 0 to 31"},
		{"key of another volume", luks.AddKeyslot(2, foreign, nil), luks.ErrConflict, "keyslot 2: the volume key: "},
		{"replace what is not there", luks.ReplaceKeyslot(2, sealed, nil), luks.ErrNoSlot, "keyslot 2: the keyslot is not in use"},
		{"replace with another volume's key", luks.ReplaceKeyslot(0, foreign, nil), luks.ErrConflict, "the volume key"},
		{"remove what is not there", luks.RemoveKeyslot(2), luks.ErrNoSlot, "keyslot 2: "},
		{"remove slot -1", luks.RemoveKeyslot(-1), luks.ErrNoSlot, "keyslot -1: "},
		{"priority of what is not there", luks.SetPriority(2, luks.PriorityPrefer), luks.ErrNoSlot, "keyslot 2: "},
		{"priority 7", luks.SetPriority(0, 7), nil, "keyslot 0: there is no priority 7"},
		{"priority -7", luks.SetPriority(0, -7), nil, "keyslot 0: there is no priority -7"},
		{"slot of priority 2", luks.AddKeyslot(2, odd, nil), nil, "keyslot 2: there is no priority 2"},
		{"token 32", luks.SetToken(32, note("", "x")), nil, "token 32: ids run from 0 to 31"},
		{"token -1", luks.SetToken(-1, note("", "x")), nil, "token -1: ids run"},
		{"token to remove not there", luks.RemoveToken(5), luks.ErrNoToken, "token 5: the token does not exist"},
		{"token no JSON", luks.SetToken(3, token(`{`)), nil, "token 3: unexpected EOF"},
		{"token empty", luks.SetToken(3, token(``)), nil, "token 3: "},
		{"token an array", luks.SetToken(3, token(`[]`)), nil, "token 3: not an object"},
		{"two tokens", luks.SetToken(3, token(`{"type":"x","keyslots":[]}{}`)), nil, "token 3: more text after the object"},
		{"token without a type", luks.SetToken(3, token(`{"keyslots":[]}`)), nil, "token 3: needs a type"},
		{"token of an empty type", luks.SetToken(3, token(`{"type":"","keyslots":[]}`)), nil, "token 3: needs a type"},
		{"token without slots", luks.SetToken(3, token(`{"type":"x"}`)), nil, "token 3: needs a type"},
		{"token of slot numbers", luks.SetToken(3, token(`{"type":"x","keyslots":[1]}`)), luks.BadStructure, "tokens.3.keyslots: must hold strings only"},
		{"token of a slot that is not there", luks.SetToken(3, note(`"9"`, "x")), luks.BadReference, `tokens.3.keyslots: "9" names nothing`},
		{"token with a member twice", luks.SetToken(3, token(`{"type":"x","type":"y","keyslots":[]}`)), nil, "token 3: member type occurs twice"},
		{"token of a reserved type", luks.SetToken(3, token(`{"type":"luks2-x","keyslots":[]}`)), nil, "types that begin with luks2- are reserved"},
		{"keyring token with a note", luks.SetToken(3, token(`{"type":"luks2-keyring","keyslots":[],"key_description":"d","x":1}`)), nil, "luks2-keyring has type, keyslots and key_description only"},
		{"token of a new slot", luks.AddKeyslot(2, sealed, token(`{}`)), nil, "token 2: needs a type"},
		{"unknown flag", luks.SetFlags("allow-discards", "fast"), nil, `flag "fast" is not one of allow-discards, `},
		{"config of the format", luks.SetConfig("keyslots_size", token(`{}`)), nil, "config.keyslots_size belongs to the format"},
		{"config json_size", luks.SetConfig("json_size", nil), nil, "belongs to the format"},
		{"config flags", luks.SetConfig("flags", nil), nil, "belongs to the format"},
		{"config requirements", luks.SetConfig("requirements", nil), nil, "belongs to the format"},
		{"config nested too deep in the header", luks.SetConfig("x", token(deep)), nil, "nested deeper than 32 levels"},
		{"token nested too deep in the header", luks.SetToken(3, token(`{"type":"x","keyslots":[],"deep":`+deep+`}`)), nil, "nested deeper than 32 levels"},
		{"config no object", luks.SetConfig("x", token(`"x"`)), nil, "config.x: not an object"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := d.untouchable(t)
			h := mustRead(t, c)
			next, err := h.Commit(luks.SetPriority(1, luks.PriorityIgnore), tt.change)
			if next != nil || err == nil || !strings.Contains(err.Error(), tt.text) || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v %q", err, tt.err, tt.text)
			}
		})
	}
	if got := luks.Flags(); !slices.Contains(got, "high_priority") || len(got) != 7 {
		t.Errorf("flags %v", got)
	}
}

func TestKeyringToken(t *testing.T) {
	_, h := newVolume(t)
	h = commit(t, h, luks.SetToken(0, json.RawMessage(`{"type":"luks2-keyring","keyslots":["0"],"key_description":"d"}`)))
	if token, ok := h.Token(0); !ok || token.Type != "luks2-keyring" || !slices.Equal(token.Keyslots, []int{0}) {
		t.Errorf("token %+v", token)
	}
}

func TestLastKeyslot(t *testing.T) {
	d, h := newVolume(t)
	key := unlock(t, h, "zero")
	c := d.untouchable(t)
	if _, err := mustRead(t, c).Commit(luks.RemoveKeyslot(0), luks.RemoveKeyslot(1)); !errors.Is(err, luks.ErrLastKeyslot) {
		t.Errorf("both: %v", err)
	}
	h = commit(t, h, luks.RemoveKeyslot(1))
	if _, err := h.Commit(luks.RemoveKeyslot(0)); !errors.Is(err, luks.ErrLastKeyslot) || !strings.Contains(err.Error(), "erase does that on purpose") {
		t.Errorf("the last: %v", err)
	}
	commit(t, h, luks.RemoveKeyslot(0), luks.AddKeyslot(0, seal(t, key, "new"), nil))
	if got := opens(t, sound(t, d), "zero", "new"); got != "new:0" {
		t.Errorf("opens %q", got)
	}
}

// TestLastKeyslotUnbound: a slot whose key opens no data is no way in.
func TestLastKeyslotUnbound(t *testing.T) {
	d := goldenDisk(t)
	unbound := strings.Replace(twoDigests, `"keyslots":[],"segments":["0"]`, `"keyslots":["1"],"segments":[]`, 1)
	d.edit(t, edits{"digests.0.keyslots": `["0"]`, "digests.1": unbound})
	if _, err := mustRead(t, d).Commit(luks.RemoveKeyslot(0)); !errors.Is(err, luks.ErrLastKeyslot) {
		t.Errorf("got %v", err)
	}
}
