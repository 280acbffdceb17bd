package keys_test

import (
	"bytes"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/secret"
)

// record is the record as it stands in a header.
type record struct {
	Type     string                 `json:"type"`
	Keyslots []string               `json:"keyslots"`
	Version  int                    `json:"version"`
	Slots    map[string]recordEntry `json:"slots"`
}

type recordEntry struct {
	Kind   string `json:"kind"`
	Slot   []byte `json:"slot"`
	Secret []byte `json:"secret,omitempty"`
}

// recordOf reads a header's record, and says where it stands: a token's id, or
// -1 for the config object.
func recordOf(t testing.TB, h *luks.Header) (at int, r record) {
	t.Helper()
	at = -1
	raw, found := h.Config("cryptctl")
	for _, token := range h.Tokens() {
		if token.Type == "cryptctl" {
			if found {
				t.Error("the header has more than one record")
			}
			at, raw, found = token.ID, token.JSON, true
		}
	}
	if err := json.Unmarshal(raw, &r); err != nil || !found {
		t.Fatalf("no record: %v", err)
	}
	return at, r
}

// TestRecordFormat recomputes a record from its description: one written by one
// version must be known to the next.
func TestRecordFormat(t *testing.T) {
	sealer := keystest.NewSealer()
	d := format(t, static(0, "zero"), sealer.Key(1))
	h := read(t, d)
	volumeKey, err := h.Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer volumeKey.Wipe()
	token, _ := h.Token(1)
	passphrase, err := sealer.Recover(t.Context(), keys.Request{UUID: uuid, Volume: volume, Slot: 1}, token.JSON)
	if err != nil {
		t.Fatal(err)
	}

	key, err := hkdf.Key(sha256.New, volumeKey.Bytes().Bytes(), nil, "cryptctl slot fingerprint v1 "+uuid, 32)
	if err != nil {
		t.Fatal(err)
	}
	mac := func(use string, slot int, kind, token string, passphrase []byte) []byte {
		sum, err := h.KeyslotSum(slot)
		if err != nil {
			t.Fatal(err)
		}
		m := hmac.New(sha256.New, key)
		for _, part := range [][]byte{[]byte(use), []byte(fmt.Sprint(slot)), []byte(kind), sum[:], []byte(token), passphrase} {
			binary.Write(m, binary.BigEndian, uint64(len(part)))
			m.Write(part)
		}
		return m.Sum(nil)[:16]
	}
	var members map[string]any
	if err := json.Unmarshal(token.JSON, &members); err != nil {
		t.Fatal(err)
	}
	sorted, _ := json.Marshal(members) // members by name, no spaces
	want := record{Type: "cryptctl", Keyslots: []string{}, Version: 1, Slots: map[string]recordEntry{
		"0": {Kind: "static", Slot: mac("slot", 0, "static", "", nil)},
		"1": {Kind: "sealed", Slot: mac("slot", 1, "sealed", string(sorted), nil), Secret: mac("secret", 1, "sealed", string(sorted), passphrase.Bytes())},
	}}
	at, got := recordOf(t, h)
	if d := cmp.Diff(want, got); d != "" || at != 31 {
		t.Errorf("record in token %d (-want +got):\n%s", at, d)
	}
	if d := cmp.Diff(map[int]string{0: "static", 1: "sealed"}, keys.Recorded(h)); d != "" {
		t.Errorf("Recorded (-want +got):\n%s", d)
	}
}

// TestRecordPlace: the record keeps off the ids that Talos looks at.
func TestRecordPlace(t *testing.T) {
	all := func(except ...int) (want []keys.Key) {
		for i := range 32 {
			if !slices.Contains(except, i) {
				want = append(want, recordSealer.Key(i))
			}
		}
		return want
	}
	zero := static(0, "zero")
	tests := []struct {
		name   string
		have   []keys.Key
		tokens []int // of another tool
		want   []keys.Key
		before int
		after  int
	}{
		{"the highest id", statics("zero"), nil, statics("zero"), 31, 31},
		{"31 is configured", []keys.Key{zero, static(31, "x")}, nil, []keys.Key{zero, static(31, "x")}, 30, 30},
		{"31 is another tool's", nil, []int{31, 30}, statics("zero"), -2, 29},
		{"31 becomes configured", statics("zero"), nil, []keys.Key{zero, static(31, "x")}, 31, 30},
		{"31 becomes a sealed key", statics("zero"), nil, []keys.Key{zero, recordSealer.Key(31)}, 31, 30},
		{"31 becomes configured, 30 is another tool's", statics("zero"), []int{30}, []keys.Key{zero, static(31, "x")}, 31, 29},
		{"31 is not configured any more", []keys.Key{zero, static(31, "x")}, nil, statics("zero"), 30, 30},
		{"31 is not a sealed key any more", []keys.Key{zero, recordSealer.Key(31)}, nil, statics("zero"), 30, 30},
		{"all are configured", all(), nil, all(), -1, -1},
		{"17 is the last to become configured", all(17), nil, all(), 17, -1},
		{"one of 32 is not configured any more", all(), nil, all(4), -1, -1}, // its token was there until now
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			l := layout(64<<10, 40)
			var d *lukstest.Disk
			if test.have == nil {
				d = foreign(t, l, "zero")
			} else {
				d = formatOn(t, l, test.have...)
				if at, _ := recordOf(t, read(t, d)); at != test.before {
					t.Errorf("the record stands at %d before, want %d", at, test.before)
				}
			}
			for _, id := range test.tokens {
				tamper(t, d, "zero", func(*luks.Header, *luks.VolumeKey) []luks.Change {
					return []luks.Change{luks.SetToken(id, json.RawMessage(`{"type":"other","keyslots":[]}`))}
				})
			}
			r := reconcile(t, d, keys.Options{}, test.want...)
			if r.Blocked() > 0 {
				t.Errorf("report:\n%s", table(t, r))
			}
			at, stored := recordOf(t, read(t, d))
			if at != test.after || len(stored.Slots) != len(test.want) {
				t.Errorf("the record stands at %d, want %d, and names %d slots, want %d", at, test.after, len(stored.Slots), len(test.want))
			}
			ctx, derived := counted(t.Context())
			s, err := keys.Open(ctx, read(t, d), volume, test.want, light(keys.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			r, err = s.Apply(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if r.Changed || test.want[0].Random && derived.Load() != 1 {
				t.Errorf("the next sync writes: %v; it costs %d derivations", r.Changed, derived.Load())
			}
		})
	}
}

// recordSealer is shared by rows that are written down before they run.
var recordSealer = keystest.NewSealer()

// TestRecordTampered: whatever is done to the record, without the volume key, no
// slot counts as ours that was not. The volume has slots 0 and 1 of ours, 2 of
// another tool; 0 is configured.
func TestRecordTampered(t *testing.T) {
	_, others := recordOf(t, read(t, format(t, statics("zero", "one", "two")...))) // same UUID, passphrases and slots
	start := formatOn(t, layout(32<<10, 8), statics("zero", "one")...)
	tamper(t, start, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
		return []luks.Change{luks.AddKeyslot(2, seal(t, key, "two"), nil)}
	})
	set := func(r any) func(record) []luks.Change {
		return func(record) []luks.Change {
			text, err := json.Marshal(r)
			if err != nil {
				panic(err)
			}
			return []luks.Change{luks.SetToken(31, text)}
		}
	}
	raw := func(text string) func(record) []luks.Change {
		return func(record) []luks.Change { return []luks.Change{luks.SetToken(31, json.RawMessage(text))} }
	}
	edit := func(change func(r *record)) func(record) []luks.Change {
		return func(r record) []luks.Change { change(&r); return set(r)(r) }
	}
	entry := func(slot string, change func(e *recordEntry)) func(record) []luks.Change {
		return edit(func(r *record) { e := r.Slots[slot]; change(&e); r.Slots[slot] = e })
	}
	tests := []struct {
		name   string
		change func(record) []luks.Change
		ours   bool // slot 1 still counts as ours, so it is removed
	}{
		{"not at all", func(record) []luks.Change { return nil }, true},
		{"removed", func(record) []luks.Change { return []luks.Change{luks.RemoveToken(31)} }, false},
		{"moved to another id", func(r record) []luks.Change {
			text, _ := json.Marshal(r)
			return []luks.Change{luks.RemoveToken(31), luks.SetToken(20, text)}
		}, true},
		{"no slots", raw(`{"type":"cryptctl","keyslots":[],"version":1}`), false},
		{"slots null", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":null}`), false},
		{"slots a text", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":"0"}`), false},
		{"slots an array", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":[1]}`), false},
		{"entries null", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":{"0":null,"1":null,"2":null}}`), false},
		{"entries empty", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":{"0":{},"1":{},"2":{}}}`), false},
		{"MACs empty", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":{"1":{"kind":"static","slot":"","secret":""}}}`), false},
		{"MACs no base64", raw(`{"type":"cryptctl","keyslots":[],"version":1,"slots":{"1":{"kind":"static","slot":"!"}}}`), false},
		{"no version", edit(func(r *record) { r.Version = 0 }), false},
		{"another version", edit(func(r *record) { r.Version = 2 }), false},
		{"of another volume", set(others), false},
		{"entry of another volume", entry("1", func(e *recordEntry) { *e = others.Slots["1"] }), false},
		{"entry of another slot", edit(func(r *record) { r.Slots["1"] = r.Slots["0"] }), false},
		{"kind changed", entry("1", func(e *recordEntry) { e.Kind = "kms" }), false},
		{"one bit of a MAC", entry("1", func(e *recordEntry) { e.Slot[15] ^= 1 }), false},
		{"MAC shortened", entry("1", func(e *recordEntry) { e.Slot = e.Slot[:15] }), false},
		{"MAC cut to nothing", entry("1", func(e *recordEntry) { e.Slot = nil }), false},
		{"MAC longer", entry("1", func(e *recordEntry) { e.Slot = append(e.Slot, 0) }), false},
		{"secret for slot", entry("1", func(e *recordEntry) { e.Slot = others.Slots["1"].Secret }), false},
		{"another tool's slot claimed", edit(func(r *record) { r.Slots["2"] = r.Slots["1"] }), true},
		{"slots that are not there claimed", edit(func(r *record) { r.Slots["9"], r.Slots["x"], r.Slots["-1"] = r.Slots["1"], r.Slots["1"], r.Slots["1"] }), true},
		{"a second record, a true one", func(r record) []luks.Change {
			text, _ := json.Marshal(r)
			return []luks.Change{luks.SetToken(12, text)}
		}, true},
		{"a second record, garbage", func(record) []luks.Change {
			return []luks.Change{luks.SetToken(12, json.RawMessage(`{"type":"cryptctl","keyslots":[]}`))}
		}, false},
		{"one in the config object beside it", func(record) []luks.Change {
			return []luks.Change{luks.SetConfig("cryptctl", json.RawMessage(`{"slots":{}}`))}
		}, true},
		{"slots beyond number", edit(func(r *record) {
			for i := range 200 {
				r.Slots[fmt.Sprint(i)] = recordEntry{Kind: strings.Repeat("k", 10)}
			}
		}), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := start.Clone()
			h := read(t, d)
			_, stored := recordOf(t, h)
			if _, err := h.Commit(test.change(stored)...); err != nil {
				t.Fatal(err)
			}
			keys.Recorded(read(t, d)) // must not panic
			want, opensWant := "0 kept, 1 foreign, 2 foreign", "zero:0 one:1 two:2"
			if test.ours {
				want, opensWant = "0 kept, 1 removed, 2 foreign", "zero:0 two:2"
			}
			r := reconcile(t, d, keys.Options{}, statics("zero")...)
			wantOutcome(t, r, want)
			wantOpens(t, d, opensWant, "zero", "one", "two")

			// What was proven stands in the record again.
			_, stored = recordOf(t, read(t, d))
			for slot := range stored.Slots {
				if !slices.Contains([]string{"0", "1", "2"}, slot) || test.ours && slot == "1" {
					t.Errorf("the record names slot %s", slot)
				}
			}
			s := open(t, d, keys.Options{}, statics("zero")...)
			st, err := s.State(t.Context())
			if err != nil || !st.Slots[0].Managed {
				t.Errorf("slot 0 is not ours afterwards: %+v, %v", st.Slots, err)
			}
			again(t, d, statics("zero")...)
		})
	}
}

// TestRecordOfSecretsTampered: a fingerprint that was changed is no proof, and
// then the slot is derived.
func TestRecordOfSecretsTampered(t *testing.T) {
	sealer := keystest.NewSealer()
	want := sealedKeys(sealer, 3)
	tests := []struct {
		name        string
		change      func(r *record)
		derivations int32
	}{
		{"not at all", func(*record) {}, 1},
		{"removed", func(r *record) { r.Slots = map[string]recordEntry{} }, 3},
		{"secrets removed", func(r *record) {
			for id, e := range maps.Clone(r.Slots) {
				r.Slots[id] = recordEntry{e.Kind, e.Slot, nil}
			}
		}, 3},
		{"secrets changed", func(r *record) {
			for _, e := range r.Slots {
				e.Secret[0] ^= 1
			}
		}, 3},
		{"secrets in place of slots, and the other way round", func(r *record) {
			for id, e := range maps.Clone(r.Slots) {
				r.Slots[id] = recordEntry{e.Kind, e.Secret, e.Slot}
			}
		}, 3},
		{"secrets shortened", func(r *record) {
			for id, e := range maps.Clone(r.Slots) {
				r.Slots[id] = recordEntry{e.Kind, e.Slot, e.Secret[:8]}
			}
		}, 3},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := format(t, want...)
			h := read(t, d)
			at, r := recordOf(t, h)
			test.change(&r)
			text, _ := json.Marshal(r)
			if _, err := h.Commit(luks.SetToken(at, text)); err != nil {
				t.Fatal(err)
			}
			for _, derivations := range []int32{test.derivations, 1} { // the second time it is mended
				ctx, derived := counted(t.Context())
				s, err := keys.Open(ctx, read(t, d), volume, want, light(keys.Options{}))
				if err != nil {
					t.Fatal(err)
				}
				r, err := s.Apply(ctx)
				s.Close()
				if err != nil {
					t.Fatal(err)
				}
				wantOutcome(t, r, "0 kept, 1 kept, 2 kept")
				// Any of the three may be the one that opens.
				if derived.Load() != derivations {
					t.Errorf("%d derivations, want %d", derived.Load(), derivations)
				}
			}
		})
	}
}

// TestRecordKeepsPassphrases: a passphrase that could be guessed has no
// fingerprint; whoever finds the volume key would learn it.
func TestRecordKeepsPassphrases(t *testing.T) {
	d := format(t, static(0, "zero"), recordSealer.Key(1), keys.Key{Slot: 2, Kind: "nodeID", Provider: keys.NodeID{UUID: nodeUUID}})
	_, r := recordOf(t, read(t, d))
	for slot, wanted := range map[string]bool{"0": false, "1": true, "2": false} {
		if got := len(r.Slots[slot].Secret) > 0; got != wanted {
			t.Errorf("slot %s has a fingerprint of its passphrase: %v", slot, got)
		}
	}
}

// TestNoEmptyRecord: nothing is written to another tool's disk on which nothing
// of ours is.
func TestNoEmptyRecord(t *testing.T) {
	d := foreign(t, layout(16<<10, 4), "zero")
	before := d.Bytes()
	want := failing(1, keystest.NewSealer(), keystest.Fault{Err: down()})
	r := reconcile(t, d, keys.Options{Passphrases: []*secret.Bytes{phrase("zero")}}, want)
	wantOutcome(t, r, "0 foreign, 1 blocked")
	if r.Changed || !bytes.Equal(before, d.Bytes()) {
		t.Error("the header was written")
	}
}
