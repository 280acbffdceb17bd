package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// TestFormat: a new volume opens with every key, costs one derivation for each,
// and needs no change afterwards.
func TestFormat(t *testing.T) {
	sealer := keystest.NewSealer()
	want := []keys.Key{
		sealer.Key(3), static(0, "zero"),
		{Slot: 31, Kind: "nodeID", Provider: keys.NodeID{UUID: nodeUUID}},
		{Slot: 7, Kind: "sealed", Provider: keys.Salted{Provider: sealer, Salt: salt(32)}, Tokens: []string{keystest.TokenType}, Random: true},
	}
	l := layout(16<<10, 8)
	d := newDisk(l)
	key := luks.NewVolumeKey(keySize)
	defer key.Wipe()
	ctx, derived := counted(t.Context())
	h, err := keys.Format(ctx, d, volume, want, key, l, light(keys.Options{}))
	if err != nil {
		t.Fatal(err)
	}
	if derived.Load() != 4 || h.UUID() != uuid || h.SeqID() != 1 || key.Bytes().Len() != keySize {
		t.Errorf("%d derivations, UUID %s, seqid %d, volume key of %d bytes", derived.Load(), h.UUID(), h.SeqID(), key.Bytes().Len())
	}
	sound(t, d)
	wantOpens(t, d, "zero:0 "+nodeUUID+volume+":31", "zero", nodeUUID+volume)
	if got := tokens(t, d); got != "3 cryptctl-test, 7 cryptctl-test, 30 cryptctl" {
		t.Errorf("tokens %q", got)
	}
	costs := map[int]kdf.Kind{}
	for _, k := range h.Keyslots() {
		costs[k.ID] = k.KDF.Kind
	}
	if d := cmp.Diff(map[int]kdf.Kind{0: kdf.PBKDF2, 3: kdf.Argon2id, 7: kdf.Argon2id, 31: kdf.PBKDF2}, costs); d != "" {
		t.Errorf("derivations of the slots (-want +got):\n%s", d)
	}
	if n := sealer.Unwiped(); n > 0 {
		t.Errorf("%d passphrases are not wiped", n)
	}
	again(t, d, want...)
}

// TestFormatWritesNothing: where one key fails the volume is not made, since one
// that the weaker keys open alone is not what was asked for.
func TestFormatWritesNothing(t *testing.T) {
	bad := func(slot int, f keystest.Fault) keys.Key { return failing(slot, keystest.NewSealer(), f) }
	l := layout(16<<10, 4)
	tooSmall := l
	tooSmall.DataOffset = 32 << 10
	tests := []struct {
		name   string
		want   []keys.Key
		layout luks.FormatOptions
		text   string
	}{
		{
			"one provider down",
			[]keys.Key{static(0, "zero"), bad(1, keystest.Fault{Err: down()})},
			l,
			"the volume was not formatted: sealed key of slot 1: unavailable: the server is down",
		},
		{
			"two providers fail",
			[]keys.Key{static(4, ""), static(0, "zero"), bad(1, keystest.Fault{Other: true})},
			l,
			"the volume was not formatted: static key of slot 4: denied: the passphrase is empty\nsealed key of slot 1: the new key cannot be recovered: rejected: the new key came back different",
		},
		{"a token that cannot be stored", []keys.Key{static(0, "zero"), bad(1, keystest.Fault{Token: json.RawMessage("[]")})}, l, "malformed"},
		{"a slot twice", []keys.Key{static(0, "zero"), static(0, "one")}, l, "slot 0 is wanted by two keys"},
		{"no keys", nil, l, "no keys are wanted"},
		{"no room for the keys", statics("zero", "one", "two", "three", "four"), l, "no room in the keyslots area"},
		{"no room for the header", statics("zero"), tooSmall, "leaves no room for the header"},
		{"a UUID that is none", statics("zero"), luks.FormatOptions{UUID: "x"}, `UUID "x"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := newDisk(l)
			key := luks.NewVolumeKey(keySize)
			defer key.Wipe()
			h, err := keys.Format(t.Context(), d, volume, test.want, key, test.layout, light(keys.Options{}))
			if h != nil || err == nil || !strings.Contains(err.Error(), test.text) {
				t.Errorf("gives %v, error %v, must contain %q", h, err, test.text)
			}
			if writes(d) > 0 {
				t.Errorf("wrote %v", d.Ops())
			}
		})
	}
}

// asked takes note of what a provider is asked for.
type asked struct {
	*keystest.Sealer
	mu   *sync.Mutex
	list *[]string
}

func (a asked) note(what string, req keys.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*a.list = append(*a.list, fmt.Sprintf("%s %s %s %d", what, req.UUID, req.Volume, req.Slot))
}

func (a asked) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	a.note("enroll", req)
	return a.Sealer.Enroll(ctx, req)
}

func (a asked) Recover(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	a.note("recover", req)
	return a.Sealer.Recover(ctx, req, token)
}

// TestRequests: providers bind what they seal to the request, so it must be the
// same whenever the same slot is meant.
func TestRequests(t *testing.T) {
	sealer := keystest.NewSealer()
	var list []string
	key := func(slot int) keys.Key {
		k := sealer.Key(slot)
		k.Provider = asked{sealer, new(sync.Mutex), &list}
		return k
	}
	l := layout(16<<10, 8)
	for _, id := range []string{uuid, ""} {
		t.Run("UUID "+id, func(t *testing.T) {
			list = nil
			l.UUID = id
			d := newDisk(l)
			volumeKey := luks.NewVolumeKey(keySize)
			defer volumeKey.Wipe()
			h, err := keys.Format(t.Context(), d, "u-data", []keys.Key{key(4)}, volumeKey, l, light(keys.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			s, err := keys.Open(t.Context(), h, "u-data", []keys.Key{key(4)}, light(keys.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			s.Close()
			s, err = keys.Open(t.Context(), h, "u-data", []keys.Key{key(4), static(9, "x")}, light(keys.Options{}))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Apply(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Close()
			of := " " + h.UUID() + " u-data 4"
			if d := cmp.Diff([]string{"enroll" + of, "recover" + of, "recover" + of, "recover" + of}, list); d != "" {
				t.Errorf("asked (-want +got):\n%s", d)
			}
			if h.UUID() == "" || id != "" && h.UUID() != id {
				t.Errorf("UUID %q", h.UUID())
			}
		})
	}
}

// TestFormatFaults: an error of the device is not taken for a volume.
func TestFormatFaults(t *testing.T) {
	l := layout(16<<10, 4)
	whole := newDisk(l)
	key := luks.NewVolumeKey(keySize)
	defer key.Wipe()
	if _, err := keys.Format(t.Context(), whole, volume, statics("zero"), key, l, light(keys.Options{})); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("input/output error")
	for n := range whole.Ops() {
		d := newDisk(l)
		d.Fail(faultAt(n, boom))
		h, err := keys.Format(t.Context(), d, volume, statics("zero"), key, l, light(keys.Options{}))
		if !errors.Is(err, boom) || h != nil {
			t.Errorf("with operation %d of %d failing: %v, %v", n+1, len(whole.Ops()), h, err)
		}
	}
}
