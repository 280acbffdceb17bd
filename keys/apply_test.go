package keys_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/secret"
)

// words are the passphrases "word 0", "word 1", ....
func words(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprint("word ", i))
	}
	return all
}

func sealedKeys(s *keystest.Sealer, n int) (want []keys.Key) {
	for i := range n {
		want = append(want, s.Key(i))
	}
	return want
}

// TestCosts is what syncs cost in key derivations, and that one with nothing to
// do writes nothing.
func TestCosts(t *testing.T) {
	sealer := keystest.NewSealer()
	small, large := layout(16<<10, 16), layout(64<<10, 40)
	tests := []struct {
		name        string
		layout      luks.FormatOptions
		have, want  []keys.Key
		derivations int32
		writes      bool
	}{
		{"8 passphrases, nothing to do", small, statics(words(8)...), statics(words(8)...), 8, false},
		{"32 sealed keys, nothing to do", large, sealedKeys(sealer, 32), sealedKeys(sealer, 32), 1, false},
		{"4 sealed keys and a passphrase, nothing to do", small, append(sealedKeys(sealer, 4), static(4, "four")), append(sealedKeys(sealer, 4), static(4, "four")), 2, false},
		{"add to one sealed key", small, sealedKeys(sealer, 1), append(sealedKeys(sealer, 1), static(1, "one")), 2, true},
		{"add three to one", small, statics(words(1)...), statics(words(4)...), 4, true},
		{"remove", small, sealedKeys(sealer, 3), sealedKeys(sealer, 1), 1, true},
		{"replace", small, append(sealedKeys(sealer, 1), static(1, "old")), append(sealedKeys(sealer, 1), static(1, "new")), 3, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := formatOn(t, test.layout, test.have...)
			before := d.Bytes()
			ctx, derived := counted(t.Context())
			h := read(t, d)
			s, err := keys.Open(ctx, h, volume, test.want, light(keys.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			r, err := s.Apply(ctx)
			if err != nil {
				t.Fatal(err)
			}
			// Which of a passphrase and a sealed key opens first is open: if it is
			// the passphrase, the sealed ones cost nothing at all.
			if got := derived.Load(); got > test.derivations || got < test.derivations-1 || test.have[0].Kind == test.have[len(test.have)-1].Kind && got != test.derivations {
				t.Errorf("%d derivations, want %d", got, test.derivations)
			}
			if r.Changed != test.writes || (r.SeqID != h.SeqID()) != test.writes || (writes(d) > 0) != test.writes {
				t.Errorf("changed %v, seqid %d to %d, %d writes", r.Changed, h.SeqID(), r.SeqID, writes(d))
			}
			if !test.writes && !bytes.Equal(before, d.Bytes()) {
				t.Error("the disk was changed")
			}
			if r.Blocked() > 0 {
				t.Errorf("blocked:\n%s", table(t, r))
			}
			sound(t, d)
			t.Logf("%d derivations", derived.Load())
		})
	}
}

// TestApply is what one sync makes of a volume.
func TestApply(t *testing.T) {
	sealer := keystest.NewSealer()
	tests := []struct {
		name       string
		have, want []keys.Key
		opts       keys.Options
		outcome    string
		opens      string // of the words below, after it
		tokens     string
	}{
		{
			"nothing to do", statics("zero", "one"), statics("zero", "one"),
			keys.Options{},
			"0 kept, 1 kept", "zero:0 one:1", "31 cryptctl",
		},
		{
			"add", statics("zero"), append(statics("zero", "one"), sealer.Key(2)),
			keys.Options{},
			"0 kept, 1 added, 2 added", "zero:0 one:1", "2 cryptctl-test, 31 cryptctl",
		},
		{
			"remove", append(statics("zero", "one"), sealer.Key(2)), statics("zero"),
			keys.Options{},
			"0 kept, 1 removed, 2 removed", "zero:0", "31 cryptctl",
		},
		{
			"replace", statics("zero", "one"), statics("zero", "new"),
			keys.Options{},
			"0 kept, 1 replaced", "zero:0 new:1", "31 cryptctl",
		},
		{
			"a passphrase becomes a sealed key", statics("zero", "one"), append(statics("zero"), sealer.Key(1)),
			keys.Options{},
			"0 kept, 1 replaced", "zero:0", "1 cryptctl-test, 31 cryptctl",
		},
		{
			"a sealed key becomes a passphrase", append(statics("zero"), sealer.Key(1)), statics("zero", "one"),
			keys.Options{},
			"0 kept, 1 replaced", "zero:0 one:1", "31 cryptctl",
		},
		{
			"a key moves to another slot", statics("zero", "one"),
			[]keys.Key{static(5, "zero"), static(1, "one")},
			keys.Options{},
			"0 removed, 1 kept, 5 added", "zero:5 one:1", "31 cryptctl",
		},
		{
			"two keys change places", statics("zero", "one", "two"), statics("one", "zero", "two"),
			keys.Options{},
			"0 replaced, 1 replaced, 2 kept", "zero:1 one:0 two:2", "31 cryptctl",
		},
		{
			"all at once", append(statics("zero", "one"), sealer.Key(2), static(3, "two")), append(statics("zero", "new"), static(4, "one"), sealer.Key(5)),
			keys.Options{},
			"0 kept, 1 replaced, 2 removed, 3 removed, 4 added, 5 added", "zero:0 one:4 new:1", "5 cryptctl-test, 31 cryptctl",
		},
		{
			"rotation of the only key with the old passphrase", statics("zero"), statics("new"),
			keys.Options{Passphrases: []*secret.Bytes{phrase("zero")}},
			"0 replaced", "new:0", "31 cryptctl",
		},
		{
			"rotation of the only key into another slot", statics("zero"),
			[]keys.Key{static(1, "new")},
			keys.Options{Passphrases: []*secret.Bytes{phrase("zero")}},
			"0 removed, 1 added", "new:1", "31 cryptctl",
		},
		{
			"rotation of all keys", append(statics("zero", "one"), sealer.Key(2)),
			[]keys.Key{static(0, "new"), sealer.Key(1), static(7, "two")},
			keys.Options{Passphrases: []*secret.Bytes{phrase("one")}},
			"0 replaced, 1 replaced, 2 removed, 7 added", "two:7 new:0", "1 cryptctl-test, 31 cryptctl",
		},
		{
			"rotation from passphrases to sealed keys", statics("zero", "one"),
			[]keys.Key{sealer.Key(2), sealer.Key(3)},
			keys.Options{Passphrases: []*secret.Bytes{phrase("wrong"), phrase("one")}},
			"0 removed, 1 removed, 2 added, 3 added", "", "2 cryptctl-test, 3 cryptctl-test, 31 cryptctl",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := format(t, test.have...)
			r := reconcile(t, d, test.opts, test.want...)
			wantOutcome(t, r, test.outcome)
			wantOpens(t, d, test.opens, "zero", "one", "two", "new")
			if got := tokens(t, d); got != test.tokens {
				t.Errorf("tokens %q, want %q", got, test.tokens)
			}
			again(t, d, test.want...)
		})
	}
}

// again syncs once more, without the options of the first time: then there must
// be nothing left to do.
func again(t testing.TB, d *lukstest.Disk, want ...keys.Key) {
	t.Helper()
	before := d.Bytes()
	r := reconcile(t, d, keys.Options{}, want...)
	for _, s := range r.Slots {
		if s.Outcome != keys.Kept && s.Outcome != keys.StayedForeign && s.Outcome != keys.WasBlocked {
			t.Errorf("the next sync: slot %d %s, %s", s.Slot, s.Outcome, s.Reason)
		}
	}
	if r.Changed || !bytes.Equal(before, d.Bytes()) {
		t.Error("the next sync writes")
	}
}

// TestSessionGoesOn: what Apply did is known to the session afterwards.
func TestSessionGoesOn(t *testing.T) {
	sealer := keystest.NewSealer()
	d := format(t, statics("zero", "old", "gone")...)
	s := open(t, d, keys.Options{}, static(0, "zero"), static(1, "new"), sealer.Key(3))
	if _, err := s.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := d.Bytes()
	ctx, derived := counted(t.Context())
	r, err := s.Apply(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, r, "0 kept, 1 kept, 3 kept")
	if r.Changed || !bytes.Equal(before, d.Bytes()) || derived.Load() > 0 {
		t.Errorf("the second Apply writes, or derives %d keys", derived.Load())
	}
	reconcile(t, d, keys.Options{}, static(0, "zero"), static(1, "new"), sealer.Key(3))
}

// TestNeverLockedOut: nothing is removed while no configured key opens or comes
// in its place.
func TestNeverLockedOut(t *testing.T) {
	sealer := keystest.NewSealer()
	operator := keys.Options{Passphrases: []*secret.Bytes{phrase("operator's")}, Policy: keys.Policy{Prune: true, Adopt: true, Reseal: true}}
	start := format(t, statics("zero", "one")...)
	tamper(t, start, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
		return []luks.Change{luks.AddKeyslot(9, seal(t, key, "operator's"), nil)}
	})
	tests := []struct {
		name    string
		want    []keys.Key
		outcome string
		slot    int
		reason  string
	}{
		{
			"all providers down",
			[]keys.Key{failing(2, keystest.NewSealer(), keystest.Fault{Err: down()}), failing(3, keystest.NewSealer(), keystest.Fault{Err: down()})},
			"0 blocked, 1 blocked, 2 blocked, 3 blocked, 9 blocked", 2, "could not add: unavailable: the server is down",
		},
		{
			"the new key is not accepted by its own provider",
			[]keys.Key{{Slot: 2, Kind: "nodeID", Provider: keys.NodeID{UUID: "fefefefe-fefe-fefe-fefe-fefefefefefe", Strict: true}}},
			"0 blocked, 1 blocked, 2 blocked, 9 blocked", 2, "could not add: denied: the node UUID fefefefe-fefe-fefe-fefe-fefefefefefe is a firmware default",
		},
		{
			"the replacement cannot be made",
			[]keys.Key{failing(0, keystest.NewSealer(), keystest.Fault{Err: down()})},
			"0 blocked, 1 blocked, 9 blocked", 1, "not removed: no configured key that stays was seen to open the volume",
		},
		{
			"the provider gives other bytes",
			[]keys.Key{failing(4, keystest.NewSealer(), keystest.Fault{Other: true})},
			"0 blocked, 1 blocked, 4 blocked, 9 blocked", 4, "could not add: the new key cannot be recovered: rejected: the new key came back different",
		},
		{
			"one of the new keys can be made",
			[]keys.Key{failing(2, keystest.NewSealer(), keystest.Fault{Err: down()}), sealer.Key(3)},
			"0 removed, 1 removed, 2 blocked, 3 added, 9 removed", 2, "could not add: unavailable",
		},
		{
			"one of the keys opens",
			[]keys.Key{failing(2, keystest.NewSealer(), keystest.Fault{Err: down()}), static(1, "one")},
			"0 removed, 1 kept, 2 blocked, 9 removed", 0, "not configured any more",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := start.Clone()
			r := reconcile(t, d, operator, test.want...)
			wantOutcome(t, r, test.outcome)
			wantReason(t, r, test.slot, test.reason)
			if r.Blocked() != strings.Count(test.outcome, "blocked") {
				t.Errorf("Blocked gives %d", r.Blocked())
			}
			if !strings.Contains(test.outcome, "removed") {
				wantOpens(t, d, "zero:0 one:1 operator's:9", "zero", "one", "operator's")
				if r.Changed || writes(d) > 0 {
					t.Errorf("wrote %d times although nothing was to be done", writes(d))
				}
			}
		})
	}
}

// TestSealedGoneWrong is a sealed key in slot 1 whose other side fails, beside a
// passphrase in slot 0 that opens.
func TestSealedGoneWrong(t *testing.T) {
	malformed := func(token string) func(t *testing.T, d luks.Device, s *keystest.Sealer) {
		return func(t *testing.T, d luks.Device, _ *keystest.Sealer) {
			tamper(t, d, "zero", func(*luks.Header, *luks.VolumeKey) []luks.Change {
				if token == "" {
					return []luks.Change{luks.RemoveToken(1)}
				}
				return []luks.Change{luks.SetToken(1, json.RawMessage(token))}
			})
		}
	}
	fault := func(f keystest.Fault) func(*testing.T, luks.Device, *keystest.Sealer) {
		return func(_ *testing.T, _ luks.Device, s *keystest.Sealer) { s.FailRecover(f) }
	}
	change := func(a keystest.Answer) func(*testing.T, luks.Device, *keystest.Sealer) {
		return func(_ *testing.T, _ luks.Device, s *keystest.Sealer) { s.Change(a) }
	}
	reseal, adopt := keys.Policy{Reseal: true}, keys.Policy{Adopt: true}
	tests := []struct {
		name    string
		wrong   func(t *testing.T, d luks.Device, s *keystest.Sealer)
		policy  keys.Policy
		outcome string
		reason  string
	}{
		{"unavailable", fault(keystest.Fault{Err: down()}), keys.Policy{}, "0 kept, 1 blocked", "stays, but could not be checked: unavailable: the server is down"},
		{"unavailable, may be resealed", fault(keystest.Fault{Err: down()}), reseal, "0 kept, 1 blocked", "stays, but could not be checked: unavailable: the server is down"},
		{"denied", fault(keystest.Fault{Err: fmt.Errorf("%w: not your node", keys.ErrDenied)}), reseal, "0 kept, 1 blocked", "stays, but could not be checked: denied: not your node"},
		{"an error without a class", fault(keystest.Fault{Err: errors.New("oops")}), reseal, "0 kept, 1 blocked", "stays, but could not be checked: oops"},
		{"stale", change(keystest.Stale), keys.Policy{}, "0 kept, 1 blocked", "stale: sealed to state 1, this is state 2; sealing it anew is not allowed by the policy"},
		{"stale, may be resealed", change(keystest.Stale), reseal, "0 kept, 1 replaced", "stale: sealed to state 1, this is state 2"},
		{"random bytes, as the reference KMS gives", change(keystest.OtherBytes), keys.Policy{}, "0 kept, 1 blocked", "the passphrase that came back does not open the slot, which stays: the sender may be at fault"},
		{"random bytes, whatever the policy", change(keystest.OtherBytes), keys.Policy{Reseal: true, Adopt: true, Prune: true}, "0 kept, 1 blocked", "the sender may be at fault"},
		{"an empty passphrase", fault(keystest.Fault{Empty: true}), adopt, "0 kept, 1 blocked", "stays, but could not be checked: unavailable: the provider gave an empty passphrase"},
		{"token gone", malformed(""), keys.Policy{}, "0 kept, 1 blocked", "adopt replaces it"},
		{"token gone, adopted", malformed(""), adopt, "0 kept, 1 replaced", "no token: slot 1 needs one of type cryptctl-test"},
		{"token of another type", malformed(`{"type":"clevis","keyslots":["1"]}`), adopt, "0 kept, 1 replaced", `no token: token 1 is of type "clevis"`},
		{"token without a body", malformed(`{"type":"cryptctl-test","keyslots":[]}`), adopt, "0 kept, 1 blocked", "stays, but could not be checked: malformed: not a token of this sealer"},
		{"no token, as the provider says", fault(keystest.Fault{Err: keys.ErrNoToken}), adopt, "0 kept, 1 blocked", "stays, but could not be checked: malformed: no token"},
		{"token of another slot", func(t *testing.T, d luks.Device, s *keystest.Sealer) {
			_, token, _ := s.Enroll(t.Context(), keys.Request{UUID: uuid, Volume: volume, Slot: 2})
			malformed(string(token))(t, d, s)
		}, adopt, "0 kept, 1 blocked", "denied: the token is not of slot 1 of STATE"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := keystest.NewSealer()
			want := []keys.Key{static(0, "zero"), s.Key(1)}
			d := format(t, want...)
			test.wrong(t, d, s)
			before := read(t, d).SeqID()
			enrolled, _ := s.Calls()
			r := reconcile(t, d, keys.Options{Policy: test.policy}, want...)
			wantOutcome(t, r, test.outcome)
			wantReason(t, r, 1, test.reason)
			if strings.HasSuffix(test.outcome, "blocked") {
				if slot, ok := read(t, d).Keyslot(1); !ok || r.Changed || read(t, d).SeqID() != before {
					t.Errorf("the slot was touched: %v", slot)
				}
				if n, _ := s.Calls(); n > enrolled {
					t.Error("a new key was asked for")
				}
				return
			}
			s.Fail(keystest.Fault{})
			again(t, d, want...)
		})
	}
}

// TestOneStaleKeyAlone: the policy does not help where nothing opens.
func TestOneStaleKeyAlone(t *testing.T) {
	s := keystest.NewSealer()
	d := format(t, s.Key(1))
	s.Change(keystest.Stale)
	_, err := keys.Open(t.Context(), read(t, d), volume, sealedKeys(s, 2)[1:], light(keys.Options{}))
	if !errors.Is(err, keys.ErrNoKey) || !errors.Is(err, keys.ErrStale) {
		t.Errorf("error %v, must wrap %v and %v", err, keys.ErrNoKey, keys.ErrStale)
	}
}

// TestEnrollGoesWrong: a new key that cannot be had back is not written, and the
// others are.
func TestEnrollGoesWrong(t *testing.T) {
	token := func(text string) keystest.Fault { return keystest.Fault{Token: json.RawMessage(text)} }
	tests := []struct {
		name            string
		enroll, recover keystest.Fault
		reason          string
	}{
		{"down", keystest.Fault{Err: down()}, keystest.Fault{}, "could not add: unavailable: the server is down"},
		{"cannot be recovered", keystest.Fault{}, keystest.Fault{Err: fmt.Errorf("%w: not your node", keys.ErrDenied)}, "could not add: the new key cannot be recovered: denied: not your node"},
		{"comes back different", keystest.Fault{}, keystest.Fault{Other: true}, "could not add: the new key cannot be recovered: rejected: the new key came back different"},
		{"comes back empty", keystest.Fault{}, keystest.Fault{Empty: true}, "could not add: the new key cannot be recovered: unavailable: the provider gave an empty passphrase"},
		{"empty passphrase", keystest.Fault{Empty: true}, keystest.Fault{}, "could not add: unavailable: the provider gave an empty passphrase"},
		{"no token", keystest.Fault{Token: keystest.NoToken}, keystest.Fault{}, "could not add: malformed: "},
		{"a token that is no JSON", token("{"), keystest.Fault{}, "could not add: malformed: "},
		{"a token that is no object", token("[]"), keystest.Fault{}, "could not add: malformed: "},
		{"a token of another type", token(`{"type":"other","keyslots":[]}`), keystest.Fault{}, "could not add: malformed: "},
		{"a token without keyslots", token(`{"type":"cryptctl-test"}`), keystest.Fault{}, "could not add: malformed: "},
		{"a token that names a keyslot that is not there", token(`{"type":"cryptctl-test","keyslots":["8"]}`), keystest.Fault{}, "could not add: malformed: "},
		{"a token with a member twice", token(`{"type":"cryptctl-test","keyslots":[],"a":1,"a":2}`), keystest.Fault{}, "could not add: malformed: "},
		{"a token that is not UTF-8", token("{\"type\":\"cryptctl-test\",\"keyslots\":[],\"a\":\"\xff\"}"), keystest.Fault{}, "could not add: malformed: "},
		{"a token and more", token(`{"type":"cryptctl-test","keyslots":[]}{}`), keystest.Fault{}, "could not add: malformed: "},
		{"a token that nests too deep", token(`{"type":"cryptctl-test","keyslots":[],"a":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`), keystest.Fault{}, "could not add: malformed: "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := keystest.NewSealer()
			s.FailEnroll(test.enroll)
			s.FailRecover(test.recover)
			d := format(t, statics("zero")...)
			key := s.Key(1)
			if len(test.enroll.Token) > 0 {
				key.Provider = anyToken{s}
			}
			r := reconcile(t, d, keys.Options{}, static(0, "zero"), key, static(2, "two"))
			wantOutcome(t, r, "0 kept, 1 blocked, 2 added")
			wantReason(t, r, 1, test.reason)
			wantOpens(t, d, "zero:0 two:2", "zero", "two")
			if got := tokens(t, d); got != "31 cryptctl" {
				t.Errorf("tokens %q", got)
			}
			if n := s.Unwiped(); n > 0 {
				t.Errorf("%d passphrases are not wiped", n)
			}
		})
	}
}

// anyToken recovers whatever the token says: the token's form alone is wrong.
type anyToken struct{ *keystest.Sealer }

func (anyToken) Recover(_ context.Context, req keys.Request, _ json.RawMessage) (*secret.Bytes, error) {
	return phrase("the same each time"), nil
}

func (a anyToken) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	p, token, err := a.Sealer.Enroll(ctx, req)
	p.Wipe()
	return phrase("the same each time"), token, err
}

// TestTokenOfAPassphrase: a key that needs no token must not come with one.
func TestTokenOfAPassphrase(t *testing.T) {
	d := format(t, statics("zero")...)
	key := keystest.NewSealer().Key(1)
	key.Tokens = nil
	r := reconcile(t, d, keys.Options{}, static(0, "zero"), key)
	wantOutcome(t, r, "0 kept, 1 blocked")
	wantReason(t, r, 1, "could not add: malformed: ")
}

// TestForeign is about slots that another tool made.
func TestForeign(t *testing.T) {
	sealer := keystest.NewSealer()
	start := format(t, static(0, "zero"), static(1, "one"))
	tamper(t, start, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
		return []luks.Change{
			luks.AddKeyslot(2, seal(t, key, "theirs"), json.RawMessage(`{"type":"clevis","keyslots":["2"]}`)),
			luks.AddKeyslot(3, seal(t, key, "three"), nil),
			luks.SetPriority(2, luks.PriorityIgnore),
		}
	})
	tests := []struct {
		name    string
		want    []keys.Key
		policy  keys.Policy
		outcome string
		opens   string
		tokens  string
		reasons map[int]string
	}{
		{
			"kept", statics("zero", "one"),
			keys.Policy{Adopt: true, Reseal: true},
			"0 kept, 1 kept, 2 foreign, 3 foreign", "zero:0 one:1 theirs:2 three:3", "2 clevis, 31 cryptctl",
			map[int]string{2: "not made by this tool"},
		},
		{
			"pruned", statics("zero", "one"),
			keys.Policy{Prune: true},
			"0 kept, 1 kept, 2 removed, 3 removed", "zero:0 one:1", "31 cryptctl",
			map[int]string{2: "foreign slots are to be pruned"},
		},
		{
			"configured, and opens", statics("zero", "one", "theirs"),
			keys.Policy{},
			"0 kept, 1 kept, 2 kept, 3 foreign", "zero:0 one:1 theirs:2 three:3", "2 clevis, 31 cryptctl",
			map[int]string{2: "opens (derived); adopted"},
		},
		{
			"configured, and does not open", statics("zero", "one", "new"),
			keys.Policy{},
			"0 kept, 1 kept, 2 blocked, 3 foreign", "zero:0 one:1 theirs:2 three:3", "2 clevis, 31 cryptctl",
			map[int]string{2: "the configured key does not open it, and the slot or its token is not as this tool made it; adopt replaces it"},
		},
		{
			"configured, does not open and is adopted", statics("zero", "one", "new"),
			keys.Policy{Adopt: true},
			"0 kept, 1 kept, 2 replaced, 3 foreign", "zero:0 one:1 three:3 new:2", "31 cryptctl",
			map[int]string{2: "the configured key does not open it"},
		},
		{
			"a sealed key in its place", append(statics("zero", "one"), sealer.Key(2)),
			keys.Policy{},
			"0 kept, 1 kept, 2 blocked, 3 foreign", "zero:0 one:1 theirs:2 three:3", "2 clevis, 31 cryptctl",
			map[int]string{2: "adopt replaces it"},
		},
		{
			"a sealed key in its place, adopted", append(statics("zero", "one"), sealer.Key(2)),
			keys.Policy{Adopt: true},
			"0 kept, 1 kept, 2 replaced, 3 foreign", "zero:0 one:1 three:3", "2 cryptctl-test, 31 cryptctl",
			nil,
		},
		{
			"everything but one key", statics("zero"),
			keys.Policy{Prune: true},
			"0 kept, 1 removed, 2 removed, 3 removed", "zero:0", "31 cryptctl", nil,
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := start.Clone()
			r := reconcile(t, d, keys.Options{Policy: test.policy}, test.want...)
			wantOutcome(t, r, test.outcome)
			wantOpens(t, d, test.opens, "zero", "one", "theirs", "three", "new")
			if got := tokens(t, d); got != test.tokens {
				t.Errorf("tokens %q, want %q", got, test.tokens)
			}
			for slot, text := range test.reasons {
				wantReason(t, r, slot, text)
			}
			if k, ok := read(t, d).Keyslot(2); ok && k.Priority != luks.PriorityIgnore {
				t.Errorf("slot 2 has priority %s", k.Priority)
			}
			again(t, d, test.want...)
		})
	}
}

// TestForeignToken: another tool's token has an id of its own, which says
// nothing of the slot with that id. systemd-cryptenroll takes the lowest free
// one: token 0 for the keyslot 1 that it made.
func TestForeignToken(t *testing.T) {
	const theirs = `{"type":"systemd-tpm2","keyslots":["5"],"tpm2-blob":"AAAA"}`
	sealer := keystest.NewSealer()
	tests := []struct {
		name    string
		want    []keys.Key
		outcome string
		reason  string // of slot 1
	}{
		{"its id is a passphrase's", statics("zero", "one"), "0 kept, 1 kept, 5 foreign", "opens (derived)"},
		{"its id is a replaced passphrase's", statics("zero", "new"), "0 kept, 1 replaced, 5 foreign", "the configured key does not open it"},
		{"its id is a removed slot's", statics("zero"), "0 kept, 1 removed, 5 foreign", "not configured any more"},
		{"its id is where a sealed key belongs", append(statics("zero"), sealer.Key(1)), "0 kept, 1 blocked, 5 foreign", "token 1 belongs to keyslot 5"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := format(t, statics("zero", "one")...)
			tamper(t, d, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.AddKeyslot(5, seal(t, key, "theirs"), nil), luks.SetToken(1, json.RawMessage(theirs))}
			})
			r := reconcile(t, d, keys.Options{}, test.want...)
			wantOutcome(t, r, test.outcome)
			wantReason(t, r, 1, test.reason)
			if got, ok := read(t, d).Token(1); !ok || string(got.JSON) != theirs {
				t.Errorf("token 1 is now %s", got.JSON)
			}
			again(t, d, test.want...)
		})
	}
	t.Run("its id is where a sealed key is to be added", func(t *testing.T) {
		d := format(t, statics("zero")...)
		tamper(t, d, "zero", func(_ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.AddKeyslot(5, seal(t, key, "theirs"), nil), luks.SetToken(1, json.RawMessage(theirs))}
		})
		r := reconcile(t, d, keys.Options{}, static(0, "zero"), sealer.Key(1), sealer.Key(2))
		wantOutcome(t, r, "0 kept, 1 blocked, 2 added, 5 foreign")
		wantReason(t, r, 1, "token 1 belongs to keyslot 5")
		if got, ok := read(t, d).Token(1); !ok || string(got.JSON) != theirs {
			t.Errorf("token 1 is now %s", got.JSON)
		}
	})
}

// TestTokensOfARemovedSlot: with a slot go the tokens that are for it alone,
// whatever their ids; others keep theirs.
func TestTokensOfARemovedSlot(t *testing.T) {
	tests := []struct {
		name   string
		tokens map[int]string
		want   string // of the tokens, after slot 1 was removed
	}{
		{"of its id, for no slot", map[int]string{1: `{"type":"a","keyslots":[]}`}, "31 cryptctl"},
		{"of its id, for it", map[int]string{1: `{"type":"a","keyslots":["1"]}`}, "31 cryptctl"},
		{"of another id, for it", map[int]string{7: `{"type":"a","keyslots":["1"]}`}, "31 cryptctl"},
		{"of another id, for no slot", map[int]string{7: `{"type":"a","keyslots":[]}`}, "7 a, 31 cryptctl"},
		{"of its id, for another slot", map[int]string{1: `{"type":"a","keyslots":["2"]}`}, "1 a, 31 cryptctl"},
		{"of its id, for it and another slot", map[int]string{1: `{"type":"a","keyslots":["1","2"]}`}, "1 a, 31 cryptctl"},
		{"two for it", map[int]string{1: `{"type":"a","keyslots":["1"]}`, 8: `{"type":"b","keyslots":["1"]}`}, "31 cryptctl"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := format(t, statics("zero", "one", "two")...)
			h := read(t, d)
			var changes []luks.Change
			for id, token := range test.tokens {
				changes = append(changes, luks.SetToken(id, json.RawMessage(token)))
			}
			if _, err := h.Commit(changes...); err != nil {
				t.Fatal(err)
			}
			want := []keys.Key{static(0, "zero"), static(2, "two")}
			r := reconcile(t, d, keys.Options{Policy: keys.Policy{Prune: true}}, want...)
			wantOutcome(t, r, "0 kept, 1 removed, 2 kept")
			if got := tokens(t, d); got != test.want {
				t.Errorf("tokens %q, want %q", got, test.want)
			}
			again(t, d, want...)
		})
	}
}

// TestOtherToolsDisk: a disk without a record is adopted key by key, and what was
// adopted can be removed.
func TestOtherToolsDisk(t *testing.T) {
	l := layout(16<<10, 8)
	d := foreign(t, l, "zero", "one", "two")
	if r := reconcile(t, d, keys.Options{}, statics("zero")...); outcome(r) != "0 kept, 1 foreign, 2 foreign" {
		t.Errorf("first sync: %s", outcome(r))
	}
	if r := reconcile(t, d, keys.Options{}, statics("zero", "one")...); outcome(r) != "0 kept, 1 kept, 2 foreign" {
		t.Errorf("second sync: %s", outcome(r))
	}
	again(t, d, statics("zero", "one")...)
	r := reconcile(t, d, keys.Options{}, statics("zero")...)
	wantOutcome(t, r, "0 kept, 1 removed, 2 foreign")
	wantOpens(t, d, "zero:0 two:2", "zero", "one", "two")
	again(t, d, statics("zero")...)
}

// TestBehindOurBack: what another tool does to a slot of ours is noticed.
func TestBehindOurBack(t *testing.T) {
	sealer := keystest.NewSealer()
	all := []keys.Key{static(0, "zero"), static(1, "one"), sealer.Key(2)}
	edit := func(changes func(t *testing.T, h *luks.Header, key *luks.VolumeKey) []luks.Change) func(*testing.T, *lukstest.Disk) {
		return func(t *testing.T, d *lukstest.Disk) {
			tamper(t, d, "zero", func(h *luks.Header, key *luks.VolumeKey) []luks.Change { return changes(t, h, key) })
		}
	}
	material := func(slot int) func(*testing.T, *lukstest.Disk) {
		return func(t *testing.T, d *lukstest.Disk) {
			k, _ := read(t, d).Keyslot(slot)
			if _, err := d.WriteAt(bytes.Repeat([]byte{7}, 512), k.Area.Offset+4096); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name    string
		edit    func(*testing.T, *lukstest.Disk)
		want    []keys.Key
		outcome string
		slot    int
		reason  string
	}{
		{
			"same passphrase, new keyslot", edit(func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.ReplaceKeyslot(1, seal(t, key, "one"), nil)}
			}), all, "0 kept, 1 kept, 2 kept", 1, "opens (derived); the slot or its token was changed by another tool",
		},
		{
			"other passphrase, configured", edit(func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.ReplaceKeyslot(1, seal(t, key, "theirs"), nil)}
			}), all, "0 kept, 1 blocked, 2 kept", 1, "not as this tool made it",
		},
		{
			"other passphrase, not configured any more", edit(func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.ReplaceKeyslot(1, seal(t, key, "theirs"), nil)}
			}), []keys.Key{all[0], all[2]}, "0 kept, 1 foreign, 2 kept", 1, "was changed by another tool since this one made it",
		},
		{
			"removed and made anew", edit(func(t *testing.T, h *luks.Header, key *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.RemoveKeyslot(1), luks.AddKeyslot(1, seal(t, key, "theirs"), nil)}
			}), []keys.Key{all[0], all[2]}, "0 kept, 1 foreign, 2 kept", 1, "was changed by another tool since this one made it",
		},
		{
			"material changed, configured", material(1), all, "0 kept, 1 blocked, 2 kept", 1, "not as this tool made it",
		},
		{
			"material changed, not configured any more", material(1), []keys.Key{all[0], all[2]}, "0 kept, 1 foreign, 2 kept", 1, "was changed by another tool",
		},
		{
			"token edited", edit(func(_ *testing.T, h *luks.Header, _ *luks.VolumeKey) []luks.Change {
				token, _ := h.Token(2)
				return []luks.Change{luks.SetToken(2, json.RawMessage(strings.Replace(string(token.JSON), "{", `{"note":1,`, 1)))}
			}), all, "0 kept, 1 kept, 2 kept", 2, "opens (derived); the slot or its token was changed by another tool",
		},
		{
			"token edited, not configured any more", edit(func(_ *testing.T, h *luks.Header, _ *luks.VolumeKey) []luks.Change {
				token, _ := h.Token(2)
				return []luks.Change{luks.SetToken(2, json.RawMessage(strings.Replace(string(token.JSON), "{", `{"note":1,`, 1)))}
			}), all[:2], "0 kept, 1 kept, 2 foreign", 2, "was changed by another tool",
		},
		{
			"token written anew with the same meaning", edit(func(_ *testing.T, h *luks.Header, _ *luks.VolumeKey) []luks.Change {
				token, _ := h.Token(2)
				var v any
				if err := json.Unmarshal(token.JSON, &v); err != nil {
					panic(err)
				}
				text, _ := json.MarshalIndent(v, " ", " ")
				return []luks.Change{luks.SetToken(2, text)}
			}), all, "0 kept, 1 kept, 2 kept", 2, "opens (",
		},
		{
			"priority changed, which is no change of a key", edit(func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.SetPriority(1, luks.PriorityPrefer)}
			}), []keys.Key{all[0], all[2]}, "0 kept, 1 removed, 2 kept", 1, "not configured any more",
		},
		{
			"removed", edit(func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.RemoveKeyslot(1), luks.RemoveKeyslot(2), luks.RemoveToken(2)}
			}), all, "0 kept, 1 added, 2 added", 1, "configured, not there",
		},
		{
			"removed, its token left", edit(func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
				return []luks.Change{luks.RemoveKeyslot(2)}
			}), all, "0 kept, 1 kept, 2 added", 2, "configured, not there",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := format(t, all...)
			test.edit(t, d)
			r := reconcile(t, d, keys.Options{}, test.want...)
			wantOutcome(t, r, test.outcome)
			wantReason(t, r, test.slot, test.reason)
			again(t, d, test.want...)
			if strings.Contains(test.reason, "changed by another tool") && strings.Contains(test.outcome, fmt.Sprint(test.slot, " kept")) {
				r := reconcile(t, d, keys.Options{}, test.want...)
				if strings.Contains(reason(r, test.slot), "changed") {
					t.Errorf("the change is reported for ever: %s", reason(r, test.slot))
				}
			}
		})
	}
}

// TestUnreadableSlot: a slot of ours that cannot even be read any more must not
// stop the others.
func TestUnreadableSlot(t *testing.T) {
	d := format(t, statics("zero", "one", "two")...)
	image := d.Bytes()
	k, _ := read(t, d).Keyslot(1)
	for _, want := range [][]keys.Key{statics("zero", "one", "two"), {static(0, "zero"), static(2, "two")}} {
		bad := &badSectors{Disk: lukstest.DiskOf(image), from: k.Area.Offset, to: k.Area.Offset + areaSize}
		s, err := keys.Open(t.Context(), read(t, bad), volume, want, light(keys.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		st, err := s.State(t.Context())
		if err != nil {
			t.Fatalf("State: %v", err)
		}
		wanted := []keys.SlotState{{Slot: 0, Managed: true}, {Slot: 1, Changed: true}, {Slot: 2, Managed: true}}
		if d := cmp.Diff(wanted, st.Slots); d != "" {
			t.Errorf("slots (-want +got):\n%s", d)
		}
	}
}

// badSectors is a disk that cannot be read in one place.
type badSectors struct {
	*lukstest.Disk
	from, to int64
}

func (d *badSectors) ReadAt(p []byte, off int64) (int, error) {
	if off < d.to && off+int64(len(p)) > d.from {
		return 0, errors.New("input/output error")
	}
	return d.Disk.ReadAt(p, off)
}

// TestConflict: whoever changes the header while a session is open wins, and
// nothing that the session planned is done.
func TestConflict(t *testing.T) {
	sealer := keystest.NewSealer()
	tests := []struct {
		name   string
		change func(t *testing.T, h *luks.Header, key *luks.VolumeKey) []luks.Change
	}{
		{"the slot to replace, its token", func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.SetToken(6, json.RawMessage(`{"type":"cryptctl-test","keyslots":[]}`))}
		}},
		{"the slot to replace", func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.ReplaceKeyslot(1, seal(t, key, "theirs"), nil)}
		}},
		{"the slot to remove", func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.ReplaceKeyslot(2, seal(t, key, "theirs"), nil)}
		}},
		{"the slot to remove, removed", func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.RemoveKeyslot(2)}
		}},
		{"the slot to remove, its priority", func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.SetPriority(2, luks.PriorityPrefer)}
		}},
		{"the slot to add", func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.AddKeyslot(3, seal(t, key, "theirs"), nil)}
		}},
		{"the token of the slot to add", func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.AddKeyslot(8, seal(t, key, "theirs"), json.RawMessage(`{"type":"clevis","keyslots":["8"]}`)), luks.SetToken(4, json.RawMessage(`{"type":"clevis","keyslots":["8"]}`))}
		}},
		{"the slot that was seen to open", func(t *testing.T, _ *luks.Header, key *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.AddKeyslot(8, seal(t, key, "theirs"), nil), luks.RemoveKeyslot(0)}
		}},
		{"the token of a key that was seen to open", func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.RemoveToken(5)}
		}},
		{"the record", func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.SetToken(31, json.RawMessage(`{"type":"cryptctl","keyslots":[],"version":1,"slots":{}}`))}
		}},
		{"the record, removed", func(*testing.T, *luks.Header, *luks.VolumeKey) []luks.Change {
			return []luks.Change{luks.RemoveToken(31)}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			stale := keystest.NewSealer()
			d := format(t, append(statics("zero", "one", "two"), sealer.Key(5), stale.Key(6))...)
			stale.Change(keystest.Stale)
			s := open(t, d, keys.Options{Policy: keys.Policy{Reseal: true}}, static(0, "zero"), static(1, "new"), static(3, "three"), sealer.Key(4), sealer.Key(5), stale.Key(6))
			if _, err := s.State(t.Context()); err != nil {
				t.Fatal(err)
			}
			tamper(t, d, "one", func(h *luks.Header, key *luks.VolumeKey) []luks.Change { return test.change(t, h, key) })
			before := d.Bytes()
			r, err := s.Apply(t.Context())
			if r != nil || !errors.Is(err, luks.ErrConflict) && !errors.Is(err, luks.ErrSlotInUse) && !errors.Is(err, luks.ErrNoSlot) {
				t.Errorf("Apply gives %v, %v", r, err)
			}
			if !bytes.Equal(before, d.Bytes()) {
				t.Error("the disk was changed")
			}
		})
	}
}

// TestTwoSessions: of two that want the same, one wins and the other says so.
func TestTwoSessions(t *testing.T) {
	d := format(t, statics("zero")...)
	want := statics("zero", "one")
	first, second := open(t, d, keys.Options{}, want...), open(t, d, keys.Options{}, want...)
	if _, err := first.Apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := second.Apply(t.Context()); !errors.Is(err, luks.ErrConflict) {
		t.Errorf("error %v", err)
	}
	wantOpens(t, d, "zero:0 one:1", "zero", "one")
	again(t, d, want...)
}

// TestOnFile is the whole life of a volume in a file, with real locks: made,
// changed, and changed by two at once.
func TestOnFile(t *testing.T) {
	l := layout(16<<10, 8)
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, make([]byte, l.DataOffset+4096), 0o600); err != nil {
		t.Fatal(err)
	}
	file := func() *luks.File {
		f, err := luks.OpenFile(path, luks.ReadWrite)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	sealer := keystest.NewSealer()
	key := luks.NewVolumeKey(keySize)
	defer key.Wipe()
	if _, err := keys.Format(t.Context(), file(), volume, append(statics("zero"), sealer.Key(1)), key, l, light(keys.Options{})); err != nil {
		t.Fatal(err)
	}
	want := [][]keys.Key{
		{static(0, "zero"), sealer.Key(1), static(2, "two")},
		{static(0, "zero"), sealer.Key(1), static(2, "other two")},
	}
	var sessions []*keys.Session
	for _, want := range want {
		sessions = append(sessions, open(t, file(), keys.Options{}, want...))
	}
	errs := make(chan error, len(want))
	for _, s := range sessions {
		go func() { _, err := s.Apply(t.Context()); errs <- err }()
	}
	first, second := <-errs, <-errs
	if first != nil {
		first, second = second, first
	}
	if first != nil || !errors.Is(second, luks.ErrConflict) {
		t.Errorf("errors %v and %v, must be none and %v", first, second, luks.ErrConflict)
	}
	r := reconcile(t, file(), keys.Options{}, statics("zero")...)
	wantOutcome(t, r, "0 kept, 1 removed, 2 removed")
	wantOpens(t, file(), "zero:0", "zero", "two", "other two")
}
