package keys_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// failing is the key of a sealer that fails.
func failing(slot int, s *keystest.Sealer, f keystest.Fault) keys.Key {
	s.Fail(f)
	return s.Key(slot)
}

func down() error { return fmt.Errorf("%w: the server is down", keys.ErrUnavailable) }

// TestOpen counts what opening costs: one derivation, if the first answer is
// right.
func TestOpen(t *testing.T) {
	sealer := keystest.NewSealer()
	d := format(t, append(statics("zero", "one"), sealer.Key(2))...)
	brokenSealer := keystest.NewSealer()
	tests := []struct {
		name        string
		want        []keys.Key
		passphrases []string
		slot        int
		derivations int32 // at most: which of two answers comes first is open
	}{
		{"the only key", statics("zero"), nil, 0, 1},
		{"a sealed key", []keys.Key{sealer.Key(2)}, nil, 2, 1},
		{"the second of two", statics("wrong", "one"), nil, 1, 2},
		{"one of which the others fail", []keys.Key{failing(0, brokenSealer, keystest.Fault{Err: down()}), static(1, "one")}, nil, 1, 1},
		{"one of which the others do not exist", []keys.Key{static(7, "seven"), static(1, "one"), sealer.Key(9)}, nil, 1, 1},
		{"a passphrase, no key exists", []keys.Key{static(7, "seven")}, []string{"one"}, 1, 2},
		{"a passphrase, no key opens", statics("wrong", "wrong"), []string{"zero"}, 0, 3},
		{"the second passphrase", []keys.Key{static(7, "seven")}, []string{"wrong", "zero"}, 0, 4},
		{"no passphrase is tried while a key opens", statics("zero"), []string{"one"}, 0, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			opts := light(keys.Options{})
			for _, p := range test.passphrases {
				opts.Passphrases = append(opts.Passphrases, phrase(p))
			}
			ctx, derived := counted(t.Context())
			d := d.Clone()
			s, err := keys.Open(ctx, read(t, d), volume, test.want, opts)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.VolumeKey().Slot() != test.slot || derived.Load() > test.derivations {
				t.Errorf("opened by slot %d with %d derivations, want %d with %d", s.VolumeKey().Slot(), derived.Load(), test.slot, test.derivations)
			}
			if _, err := read(t, d).WithKey(s.VolumeKey().Bytes()); err != nil {
				t.Error(err)
			}
			if writes(d) > 0 {
				t.Errorf("opening wrote: %v", d.Ops())
			}
		})
	}
}

// TestOpenCheapest: while a costly wrong passphrase is tried the other answers
// come in, and the cheapest of them goes first.
func TestOpenCheapest(t *testing.T) {
	tried := make(chan struct{}) // the first answer is
	late := func(slot int, word string) keys.Key {
		return keys.Key{Slot: slot, Kind: "late", Provider: after{keys.Static{Passphrase: phrase(word)}, tried}}
	}
	key := luks.NewVolumeKey(keySize)
	defer key.Wipe()
	var changes []luks.Change
	for i, iterations := range []uint32{5000, 3000, 2000, 4000} {
		s, err := key.Seal(t.Context(), phrase(fmt.Sprint("word ", i)), kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: iterations})
		if err != nil {
			t.Fatal(err)
		}
		changes = append(changes, luks.AddKeyslot(i, s, nil))
	}
	l := layout(16<<10, 8)
	d := newDisk(l)
	if _, err := luks.Format(d, key, l, changes...); err != nil {
		t.Fatal(err)
	}
	var order []uint32
	ctx := kdf.WithTrace(t.Context(), kdf.Trace{Start: func(c kdf.Cost) {
		if order = append(order, c.Iterations); len(order) == 1 {
			close(tried)
			time.Sleep(500 * time.Millisecond) // for the others to come in, on a slow machine too
		}
	}})
	s, err := keys.Open(ctx, read(t, d), volume, []keys.Key{
		{Slot: 0, Kind: "static", Provider: keys.Static{Passphrase: phrase("wrong")}}, late(1, "word 1"), late(2, "word 2"), late(3, "word 3"),
	}, keys.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if d := cmp.Diff([]uint32{5000, 2000}, order); d != "" {
		t.Errorf("iterations of the derivations (-want +got):\n%s", d)
	}
}

// after is a provider that answers when something has happened.
type after struct {
	keys.Provider
	event <-chan struct{}
}

func (a after) Recover(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	select {
	case <-a.event:
		return a.Provider.Recover(ctx, req, token)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// TestOpenError reads the whole text: it is all that an operator has when a
// machine does not come up.
func TestOpenError(t *testing.T) {
	sealer := keystest.NewSealer()
	d := format(t, static(0, "zero"), sealer.Key(1), sealer.Key(2), sealer.Key(3), static(4, "four"))
	tamper(t, d, "zero", func(*luks.Header, *luks.VolumeKey) []luks.Change {
		return []luks.Change{luks.RemoveToken(2), luks.SetToken(3, []byte(`{"type":"evil\u001b[2J","keyslots":[]}`))}
	})
	want := []keys.Key{static(0, "wrong"), failing(1, keystest.NewSealer(), keystest.Fault{Err: down()}), sealer.Key(2), sealer.Key(3), {Slot: 4, Kind: "nodeID", Provider: keys.NodeID{}}, static(9, "nine")}
	_, err := keys.Open(t.Context(), read(t, d), volume, want, light(keys.Options{Passphrases: []*secret.Bytes{phrase("operator's")}}))
	if !errors.Is(err, keys.ErrNoKey) {
		t.Fatal(err)
	}
	text := []string{
		"no key opens the volume: the passphrase given: no keyslot opens with this passphrase (tried 0, 1, 2, 3, 4)",
		"static key of slot 0: rejected: it does not open slot 0",
		"sealed key of slot 1: unavailable: the server is down",
		"sealed key of slot 2: no token: slot 2 needs one of type cryptctl-test",
		`sealed key of slot 3: no token: token 3 is of type "evil\x1b[2J", a sealed key needs cryptctl-test`,
		"nodeID key of slot 4: denied: the node has no UUID; give one with --node-uuid, or use another kind of key",
		"static key of slot 9: the slot does not exist yet",
	}
	if d := cmp.Diff(text, strings.Split(err.Error(), "\n")); d != "" {
		t.Errorf("error (-want +got):\n%s", d)
	}
	for _, class := range []error{keys.ErrRejected, keys.ErrUnavailable, keys.ErrNoToken, keys.ErrDenied} {
		if !errors.Is(err, class) {
			t.Errorf("the error does not wrap %v", class)
		}
	}
	for _, secret := range []string{"wrong", "operator's", "nine"} {
		if strings.Contains(fmt.Sprintf("%+v %#v", err, err), secret) {
			t.Errorf("the error shows %q", secret)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	d := format(t, statics("zero")...)
	for name, want := range map[string][]keys.Key{"no keys": nil, "a slot twice": {static(0, "zero"), static(0, "zero")}, "slot 32": {static(32, "zero")}} {
		if _, err := keys.Open(t.Context(), read(t, d), volume, want, keys.Options{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestHeaderLimits: a slot that costs too much is not tried, the others are.
func TestHeaderLimits(t *testing.T) {
	d := format(t, statics("zero", "one")...)
	s := open(t, d, keys.Options{Limits: kdf.Limits{MaxIterations: 1000}}, statics("zero", "one")...)
	if _, err := s.State(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := keys.Open(t.Context(), read(t, d), volume, statics("zero"), keys.Options{Limits: kdf.Limits{MaxIterations: 999}})
	if !errors.Is(err, keys.ErrNoKey) || !errors.Is(err, luks.KDFCost) {
		t.Errorf("error %v, must wrap %v and %v", err, keys.ErrNoKey, luks.KDFCost)
	}
}

// TestFingerprintLimits: a record is no way around the limits.
func TestFingerprintLimits(t *testing.T) {
	sealer := keystest.NewSealer()
	want := []keys.Key{static(0, "zero"), sealer.Key(1)}
	d := format(t, want...)
	r := reconcile(t, d, keys.Options{Limits: kdf.Limits{MaxMemoryKiB: 16}}, want...)
	wantOutcome(t, r, "0 kept, 1 blocked")
	wantReason(t, r, 1, "argon2id with 32 KiB of memory: more than the limit of 16 KiB")
	again(t, d, want...)
}

// elapsed runs f and returns what it took, in the bubble's time.
func elapsed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

// TestHanging: a provider that never answers, and does not heed its context,
// costs its limit where its answer is needed and nothing where it is not. The
// bubble fails the test when a goroutine is left in the end.
func TestHanging(t *testing.T) {
	tests := []struct {
		name  string
		limit time.Duration // of the hanging key; 0 is the default
		costs time.Duration
	}{
		{"with a limit", 300 * time.Millisecond, 300 * time.Millisecond},
		{"with the default limit", 0, 20 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good, bad := keystest.NewSealer(), keystest.NewSealer()
				want := []keys.Key{bad.Key(0), good.Key(1), static(2, "two")}
				want[0].Timeout = test.limit
				d := format(t, want...)
				hang := make(chan struct{})
				bad.Fail(keystest.Fault{Hang: hang})
				good.Fail(keystest.Fault{Delay: 100 * time.Millisecond})

				var s *keys.Session
				var err error
				if took := elapsed(func() { s, err = keys.Open(t.Context(), read(t, d), volume, want, light(keys.Options{})) }); took != 0 {
					t.Errorf("Open took %s although slot 2 opens at once", took)
				}
				if err != nil {
					t.Fatal(err)
				}
				var r *keys.Report
				if took := elapsed(func() { r, err = s.Apply(t.Context()) }); took != test.costs {
					t.Errorf("Apply took %s, must take %s", took, test.costs)
				}
				if err != nil {
					t.Fatal(err)
				}
				wantOutcome(t, r, "0 blocked, 1 kept, 2 kept")
				wantReason(t, r, 0, fmt.Sprintf("unavailable: no answer within %s", test.costs))
				s.Close()

				// With the hanging key alone the limit is what Open costs.
				if took := elapsed(func() { _, err = keys.Open(t.Context(), read(t, d), volume, want[:1], light(keys.Options{})) }); took != test.costs {
					t.Errorf("Open of the hanging key alone took %s, must take %s", took, test.costs)
				}
				if !errors.Is(err, keys.ErrNoKey) || !strings.Contains(err.Error(), "no answer within") {
					t.Error(err)
				}
				close(hang)
				synctest.Wait()
				if n := bad.Unwiped() + good.Unwiped(); n > 0 {
					t.Errorf("%d passphrases are not wiped, those that came too late included", n)
				}
			})
		})
	}
}

// TestHangingEnroll: the same for a key that is to be made.
func TestHangingEnroll(t *testing.T) {
	for _, test := range []struct {
		name string
		hang func(s *keystest.Sealer, c chan struct{})
	}{
		{"enroll", func(s *keystest.Sealer, c chan struct{}) { s.FailEnroll(keystest.Fault{Hang: c}) }},
		{"recover", func(s *keystest.Sealer, c chan struct{}) { s.FailRecover(keystest.Fault{Hang: c}) }},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := format(t, statics("zero")...)
				hang := make(chan struct{})
				bad := keystest.NewSealer()
				test.hang(bad, hang)
				key := bad.Key(1)
				key.Timeout = time.Second
				s := open(t, d, keys.Options{}, static(0, "zero"), key, static(2, "two"))
				var r *keys.Report
				var err error
				if took := elapsed(func() { r, err = s.Apply(t.Context()) }); took != time.Second || err != nil {
					t.Errorf("Apply took %s, error %v", took, err)
				}
				wantOutcome(t, r, "0 kept, 1 blocked, 2 added")
				wantReason(t, r, 1, "no answer within 1s")
				s.Close()
				close(hang)
				synctest.Wait()
				if n := bad.Unwiped(); n > 0 {
					t.Errorf("%d passphrases are not wiped", n)
				}
			})
		})
	}
}

// TestCloseWhileAsked: Close does not wait for providers, and what they give
// afterwards is wiped.
func TestCloseWhileAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		polite, rude := keystest.NewSealer(), keystest.NewSealer()
		want := []keys.Key{static(0, "zero"), polite.Key(1), rude.Key(2), polite.Key(3)}
		d := format(t, want...)
		hang := make(chan struct{})
		polite.Fail(keystest.Fault{Delay: time.Second})
		rude.Fail(keystest.Fault{Hang: hang})
		s, err := keys.Open(t.Context(), read(t, d), volume, want, light(keys.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		key := s.VolumeKey()
		if took := elapsed(s.Close); took != 0 {
			t.Errorf("Close took %s", took)
		}
		if key.Bytes().Len() != 0 {
			t.Error("the volume key is not wiped")
		}
		s.Close() // again, for deferred ones
		close(hang)
		synctest.Wait()
		if n := polite.Unwiped() + rude.Unwiped(); n > 0 {
			t.Errorf("%d passphrases are not wiped", n)
		}
	})
}

// TestWiped: every passphrase that a provider gave is wiped in the end, whatever
// became of it, and the volume key with it.
func TestWiped(t *testing.T) {
	tests := []struct {
		name string
		do   func(t *testing.T, s *keys.Session)
	}{
		{"nothing is asked of the session", func(*testing.T, *keys.Session) {}},
		{"the answers are there, and nobody takes them", func(*testing.T, *keys.Session) { time.Sleep(time.Second) }},
		{"State", func(t *testing.T, s *keys.Session) {
			if _, err := s.State(t.Context()); err != nil {
				t.Error(err)
			}
		}},
		{"Apply", func(t *testing.T, s *keys.Session) {
			if _, err := s.Apply(t.Context()); err != nil {
				t.Error(err)
			}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				good, other, fresh := keystest.NewSealer(), keystest.NewSealer(), keystest.NewSealer()
				d := format(t, good.Key(0), good.Key(1), other.Key(2), static(3, "three"))
				other.FailRecover(keystest.Fault{Other: true})
				s, err := keys.Open(t.Context(), read(t, d), volume, []keys.Key{good.Key(0), good.Key(1), other.Key(2), fresh.Key(3), fresh.Key(4)}, light(keys.Options{Policy: keys.Policy{Adopt: true}}))
				if err != nil {
					t.Fatal(err)
				}
				key := s.VolumeKey()
				test.do(t, s)
				s.Close()
				synctest.Wait()
				if n := good.Unwiped() + other.Unwiped() + fresh.Unwiped(); n > 0 || key.Bytes().Len() > 0 {
					t.Errorf("%d passphrases are not wiped; of the volume key %d bytes", n, key.Bytes().Len())
				}
			})
		})
	}
	t.Run("no key opens", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			other := keystest.NewSealer()
			d := format(t, static(0, "zero"), other.Key(1), other.Key(2))
			other.FailRecover(keystest.Fault{Other: true})
			if _, err := keys.Open(t.Context(), read(t, d), volume, []keys.Key{other.Key(1), other.Key(2)}, light(keys.Options{})); !errors.Is(err, keys.ErrNoKey) {
				t.Error(err)
			}
			synctest.Wait()
			if n := other.Unwiped(); n > 0 {
				t.Errorf("%d passphrases are not wiped", n)
			}
		})
	})
}

// TestCancelled: every call ends at once with the reason of its context.
func TestCancelled(t *testing.T) {
	because := errors.New("the machine is going down")
	setUp := func(t *testing.T) (d luks.Device, s *keystest.Sealer, want []keys.Key) {
		s = keystest.NewSealer()
		want = []keys.Key{static(0, "zero"), s.Key(1)}
		return format(t, want...), s, want
	}
	in := func(d time.Duration) context.Context {
		ctx, cancel := context.WithCancelCause(context.Background())
		time.AfterFunc(d, func() { cancel(because) })
		return ctx
	}
	check := func(t *testing.T, took time.Duration, err error) {
		t.Helper()
		if took != time.Second {
			t.Errorf("took %s", took)
		}
		if !errors.Is(err, because) || errors.Is(err, keys.ErrNoKey) {
			t.Errorf("error %v, must be %v", err, because)
		}
	}
	t.Run("before Open", func(t *testing.T) {
		d, _, want := setUp(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(because)
		ctx, derived := counted(ctx)
		_, err := keys.Open(ctx, read(t, d), volume, want, light(keys.Options{Passphrases: []*secret.Bytes{phrase("zero")}}))
		if !errors.Is(err, because) || errors.Is(err, keys.ErrNoKey) || derived.Load() > 0 {
			t.Errorf("error %v after %d derivations", err, derived.Load())
		}
	})
	t.Run("Open", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, s, want := setUp(t)
			s.Fail(keystest.Fault{Delay: time.Hour})
			var err error
			took := elapsed(func() { _, err = keys.Open(in(time.Second), read(t, d), volume, want[1:], light(keys.Options{})) })
			check(t, took, err)
		})
	})
	t.Run("State", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, s, want := setUp(t)
			s.Fail(keystest.Fault{Delay: time.Hour})
			session := open(t, d, keys.Options{}, want...)
			var err error
			took := elapsed(func() { _, err = session.State(in(time.Second)) })
			check(t, took, err)
		})
	})
	t.Run("Apply, while asked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, s, want := setUp(t)
			s.Fail(keystest.Fault{Delay: time.Hour})
			session := open(t, d, keys.Options{}, want...)
			var err error
			took := elapsed(func() { _, err = session.Apply(in(time.Second)) })
			check(t, took, err)
		})
	})
	t.Run("Apply, while enrolling", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			d, s, want := setUp(t)
			session := open(t, d, keys.Options{}, append(want, s.Key(2), static(3, "three"))...)
			if _, err := session.State(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.FailEnroll(keystest.Fault{Delay: time.Hour})
			before := read(t, d).SeqID()
			var err error
			took := elapsed(func() { _, err = session.Apply(in(time.Second)) })
			check(t, took, err)
			if read(t, d).SeqID() != before {
				t.Error("the header was written")
			}
		})
	})
	t.Run("Format", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := keystest.NewSealer()
			s.FailEnroll(keystest.Fault{Delay: time.Hour})
			l := layout(16<<10, 4)
			d := newDisk(l)
			key := luks.NewVolumeKey(keySize)
			defer key.Wipe()
			var err error
			took := elapsed(func() {
				_, err = keys.Format(in(time.Second), d, volume, []keys.Key{static(0, "zero"), s.Key(1)}, key, l, light(keys.Options{}))
			})
			check(t, took, err)
			if writes(d) > 0 {
				t.Errorf("wrote %v", d.Ops())
			}
		})
	})
}

// TestPassphraseBesideError: what a provider gives beside an error is wiped.
func TestPassphraseBesideError(t *testing.T) {
	p := phrase("beside an error")
	d := format(t, statics("zero")...)
	bad := keys.Key{Slot: 1, Kind: "bad", Provider: besideError{p}}
	r := reconcile(t, d, keys.Options{}, static(0, "zero"), bad)
	wantOutcome(t, r, "0 kept, 1 blocked")
	if p.Len() > 0 {
		t.Error("the passphrase is not wiped")
	}
}

type besideError struct{ p *secret.Bytes }

func (b besideError) Enroll(context.Context, keys.Request) (*secret.Bytes, json.RawMessage, error) {
	return b.p, nil, down()
}

func (b besideError) Recover(context.Context, keys.Request, json.RawMessage) (*secret.Bytes, error) {
	return b.p, down()
}

// TestLog: all that happens is logged, with the names that a query needs, and
// nothing that is secret.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	sealer := keystest.NewSealer()
	d := format(t, static(0, "zero's word"), sealer.Key(1))
	opts := keys.Options{Log: slog.New(slog.NewTextHandler(&log, nil)), Passphrases: []*secret.Bytes{phrase("zero's word")}}
	reconcile(t, d, opts, static(0, "wrong word"), failing(1, sealer, keystest.Fault{Err: down()}), static(2, "two's word"))
	for _, line := range []string{
		`level=WARN msg="key does not open its slot" volume=STATE slot=0 kind=static error="rejected: it does not open slot 0"`,
		`level=WARN msg="key does not open its slot" volume=STATE slot=1 kind=sealed error="unavailable: the server is down"`,
		`level=INFO msg="volume unlocked by a passphrase" volume=STATE slot=0`,
		`level=INFO msg="slot reconciled" volume=STATE slot=0 kind=static outcome=replaced reason="the configured key does not open it"`,
		`level=INFO msg="slot reconciled" volume=STATE slot=2 kind=static outcome=added reason="configured, not there"`,
	} {
		if !strings.Contains(log.String(), line) {
			t.Errorf("not logged: %s", line)
		}
	}
	if strings.Contains(log.String(), "word") && strings.Contains(log.String(), "'s word") || strings.Contains(log.String(), "wrong word") {
		t.Error("a passphrase is logged")
	}
	if t.Failed() {
		t.Log(log.String())
	}
}
