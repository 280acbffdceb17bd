package keys_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/secret"
)

// able is a sealer that remembers which volume its token is for, and whose tokens
// can be out of date. Of another volume it says so when it is asked to lie.
type able struct {
	*keystest.Sealer
	identity *string
	outdated error
}

func (a able) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	if req.Identity == "" {
		return nil, nil, errors.New("Enroll without an identity")
	}
	*a.identity = req.Identity
	p, token, err := a.Sealer.Enroll(ctx, req)
	return p, token, err
}

func (a able) RecoverFor(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, string, error) {
	if req.Identity != "" {
		return nil, "", errors.New("an identity before the volume is open")
	}
	p, err := a.Recover(ctx, req, token)
	return p, *a.identity, err
}

func (a able) CheckToken(json.RawMessage) error { return a.outdated }

func (a able) key(slot int) keys.Key {
	k := a.Sealer.Key(slot)
	k.Provider = a
	return k
}

func newAble() able { return able{keystest.NewSealer(), new(string), nil} }

// TestWitness: a key that was sealed for another volume does not open this one,
// wherever its passphrase does.
func TestWitness(t *testing.T) {
	t.Parallel()
	for _, salted := range []bool{false, true} {
		a := newAble()
		k := a.key(1)
		if salted {
			k.Provider = keys.Salted{Provider: a, Salt: secret.Copy([]byte(strings.Repeat("s", keys.SaltSize)))}
		}
		d := format(t, static(0, "zero"), k)
		wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), k), "0 kept, 1 kept")
		if v, err := keys.Unlock(t.Context(), read(t, d), volume, []keys.Key{k}, keys.Options{}); err != nil {
			t.Errorf("its own volume: %v", err)
		} else {
			v.Wipe()
		}
		own := *a.identity
		*a.identity = strings.Repeat("0", len(own))
		_, err := keys.Unlock(t.Context(), read(t, d), volume, []keys.Key{k}, keys.Options{})
		if !errors.Is(err, keys.ErrNoKey) || !errors.Is(err, keys.ErrDenied) || !strings.Contains(err.Error(), "another volume key") {
			t.Errorf("salted %v, another volume's: %v", salted, err)
		}
		r := reconcile(t, d, keys.Options{Policy: keys.Policy{Reseal: true, Adopt: true}}, static(0, "zero"), k)
		wantOutcome(t, r, "0 kept, 1 blocked")
		if reason := r.Slots[1].Reason; !strings.Contains(reason, "another volume key") {
			t.Errorf("reason %q", reason)
		}
	}
}

// TestOutdated: a key that opens and is not as configured is made anew, once.
func TestOutdated(t *testing.T) {
	t.Parallel()
	for _, salted := range []bool{false, true} {
		a := newAble()
		wrap := func(a able) keys.Key {
			k := a.key(1)
			if salted {
				k.Provider = keys.Salted{Provider: a, Salt: secret.Copy([]byte(strings.Repeat("s", keys.SaltSize)))}
			}
			return k
		}
		d := format(t, static(0, "zero"), wrap(a))
		a.outdated = errors.New("sealed to PCR 7, and 0 is configured")
		r := reconcile(t, d, keys.Options{}, static(0, "zero"), wrap(a))
		wantOutcome(t, r, "0 kept, 1 replaced")
		if !strings.Contains(r.Slots[1].Reason, "and 0 is configured") {
			t.Errorf("reason %q", r.Slots[1].Reason)
		}
		a.outdated = nil
		wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), wrap(a)), "0 kept, 1 kept")
		// One that cannot be made anew stays.
		a.outdated = errors.New("old")
		a.FailEnroll(keystest.Fault{Err: errors.New("latch closed")})
		wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), wrap(a)), "0 kept, 1 blocked")
		v, err := keys.Unlock(t.Context(), read(t, d), volume, []keys.Key{wrap(a)}, keys.Options{})
		if err != nil {
			t.Errorf("the key that could not be made anew: %v", err)
		}
		v.Wipe()
	}
}

// TestSaltComesLater: a key whose token is for this volume, and which does not
// open it for the salt that it has since, is made anew.
func TestSaltComesLater(t *testing.T) {
	t.Parallel()
	a := newAble()
	d := format(t, static(0, "zero"), a.key(1))
	salted := a.key(1)
	salted.Provider = keys.Salted{Provider: a, Salt: secret.Copy([]byte(strings.Repeat("s", keys.SaltSize)))}
	wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), salted), "0 kept, 1 replaced")
	wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), salted), "0 kept, 1 kept")
	// Of a sender who does not vouch for the volume it stays.
	*a.identity = ""
	wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), a.key(1)), "0 kept, 1 blocked")
}

// TestReconfigure: the same keys with other settings, and no others.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	a := newAble()
	d := format(t, static(0, "zero"), a.key(1))
	s := open(t, d, keys.Options{}, static(0, "zero"), a.key(1))
	for name, want := range map[string][]keys.Key{
		"fewer": {static(0, "zero")}, "another slot": {static(0, "zero"), a.key(2)},
		"another kind": {static(0, "zero"), static(1, "one")}, "none": nil,
	} {
		if s.Reconfigure(want) == nil {
			t.Errorf("%s were taken", name)
		}
	}
	a.outdated = errors.New("configured otherwise")
	if err := s.Reconfigure([]keys.Key{a.key(1), static(0, "zero")}); err != nil {
		t.Fatal(err)
	}
	r, err := s.Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, r, "0 kept, 1 replaced")
}

// TestResealIsAsked: only of a stale key, and its answer counts.
func TestResealIsAsked(t *testing.T) {
	t.Parallel()
	s := keystest.NewSealer()
	k := s.Key(1)
	asked, answer := 0, errors.New("Secure Boot is off")
	k.Reseal = func(stale error) error {
		if !errors.Is(stale, keys.ErrStale) {
			t.Errorf("asked about %v", stale)
		}
		asked++
		return answer
	}
	d := format(t, static(0, "zero"), k)
	wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), k), "0 kept, 1 kept")
	if asked != 0 {
		t.Errorf("asked %d times about a key that opens", asked)
	}
	s.Change(keystest.Stale)
	r := reconcile(t, d, keys.Options{}, static(0, "zero"), k)
	wantOutcome(t, r, "0 kept, 1 blocked")
	if reason := r.Slots[1].Reason; !strings.Contains(reason, "not sealed anew: Secure Boot is off") {
		t.Errorf("reason %q", reason)
	}
	answer = nil
	wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), k), "0 kept, 1 replaced")
	wantOutcome(t, reconcile(t, d, keys.Options{}, static(0, "zero"), k), "0 kept, 1 kept")
}
