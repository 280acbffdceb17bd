package keys_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// served is the key of a sealer that stands for a server.
func served(slot int, s *keystest.Sealer) keys.Key {
	k := s.Key(slot)
	k.Kind, k.Remote, k.Timeout = "kms", true, time.Hour
	return k
}

// local runs ApplyLocal, which must take no time.
func local(t *testing.T, s *keys.Session, want string, asking ...int) *keys.Report {
	t.Helper()
	var r *keys.Report
	var err error
	if took := elapsed(func() { r, err = s.ApplyLocal(t.Context()) }); took != 0 || err != nil {
		t.Fatalf("ApplyLocal took %s: %v", took, err)
	}
	wantOutcome(t, r, want)
	if len(r.Asking) != len(asking) {
		t.Errorf("asking %v, want %v", r.Asking, asking)
	}
	for i := range r.Asking {
		if r.Asking[i] != asking[i] {
			t.Errorf("asking %v, want %v", r.Asking, asking)
		}
	}
	return r
}

// rest runs Apply, which must take that long.
func rest(t *testing.T, s *keys.Session, took time.Duration, want string) *keys.Report {
	t.Helper()
	var r *keys.Report
	var err error
	if is := elapsed(func() { r, err = s.Apply(t.Context()) }); is != took || err != nil {
		t.Fatalf("Apply took %s: %v", is, err)
	}
	wantOutcome(t, r, want)
	if len(r.Asking) > 0 || !r.Changed {
		t.Errorf("the last report: %+v", r)
	}
	return r
}

// TestApplyLocal: servers that are slow take no time from what goes on without
// them, and what they are asked for is done when they answer. What could not be
// made without them is not tried again.
func TestApplyLocal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there, missing, here, broken := keystest.NewSealer(), keystest.NewSealer(), keystest.NewSealer(), keystest.NewSealer()
		d := format(t, static(0, "zero"), served(1, there), static(3, "three"))
		there.Fail(keystest.Fault{Delay: time.Minute})
		missing.Fail(keystest.Fault{Delay: time.Minute})
		broken.FailEnroll(keystest.Fault{Err: down()})
		want := []keys.Key{static(0, "zero"), served(1, there), served(2, missing), here.Key(4), broken.Key(5)}
		s := open(t, d, keys.Options{}, want...)
		r := local(t, s, "0 kept, 1 blocked, 2 blocked, 3 removed, 4 added, 5 blocked", 1, 2)
		wantReason(t, r, 1, "has not answered yet")
		wantReason(t, r, 2, "not made yet")
		if n, _ := missing.Calls(); n > 0 {
			t.Error("a server was asked for a key")
		}
		sound(t, d)

		broken.FailEnroll(keystest.Fault{})
		r = rest(t, s, time.Minute+2*time.Minute, "0 kept, 1 kept, 2 added, 3 removed, 4 added, 5 blocked")
		wantReason(t, r, 5, "could not add: unavailable: the server is down")
		s.Close()
		if n := there.Unwiped() + missing.Unwiped() + here.Unwiped(); n > 0 {
			t.Errorf("%d passphrases are not wiped", n)
		}
		sound(t, d)
		wantOutcome(t, reconcile(t, d, keys.Options{}, want[:4]...), "0 kept, 1 kept, 2 kept, 4 kept")
	})
}

// TestApplyLocalAnswered: a server that has answered is not waited for, and there
// is nothing left to do.
func TestApplyLocalAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sealer := keystest.NewSealer()
		want := []keys.Key{static(0, "zero"), served(1, sealer)}
		d := format(t, want...)
		s := open(t, d, keys.Options{}, want...)
		synctest.Wait()
		local(t, s, "0 kept, 1 kept")
	})
}

// TestServersRefuse: whatever a server answers late, its slot stays.
func TestServersRefuse(t *testing.T) {
	for name, fault := range map[string]keystest.Fault{
		"unavailable": {Err: down()}, "denied": {Err: keys.ErrDenied}, "does not open the slot, which stays": {Other: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			sealer := keystest.NewSealer()
			want := []keys.Key{static(0, "zero"), served(1, sealer)}
			d := format(t, want...)
			before := read(t, d).SeqID()
			fault.Delay = time.Minute
			sealer.Fail(fault)
			s := open(t, d, keys.Options{}, want...)
			local(t, s, "0 kept, 1 blocked", 1)
			r, err := s.Apply(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			wantOutcome(t, r, "0 kept, 1 blocked")
			wantReason(t, r, 1, name)
			if r.SeqID != before {
				t.Errorf("%s: the header was written", name)
			}
		})
	}
}

// TestServersLast: keys of a former configuration are tried before a server is
// waited for, and those that a server has are after it.
func TestServersLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		silent, former := keystest.NewSealer(), keystest.NewSealer()
		d := format(t, static(0, "zero"), served(1, silent), served(2, former))
		silent.Fail(keystest.Fault{Delay: time.Minute, Err: down()})
		want := []keys.Key{static(0, "another"), served(1, silent)}
		for _, test := range []struct {
			former []keys.Key
			slot   int
			took   time.Duration
		}{
			{[]keys.Key{served(2, former), static(0, "zero")}, 0, 0},
			{[]keys.Key{served(2, former), static(0, "wrong")}, 2, time.Minute},
		} {
			var s *keys.Session
			var err error
			took := elapsed(func() {
				s, err = keys.Open(t.Context(), read(t, d), volume, want, light(keys.Options{Former: [][]keys.Key{test.former}}))
			})
			if err != nil {
				t.Fatal(err)
			}
			if took != test.took || s.VolumeKey().Slot() != test.slot {
				t.Errorf("opened by slot %d after %s, want %d after %s", s.VolumeKey().Slot(), took, test.slot, test.took)
			}
			s.Close()
		}
	})
}

// TestApplyInterrupted: the end of a context ends the wait, and no more: neither
// what was asked before is lost, nor what was judged.
func TestApplyInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sealer := keystest.NewSealer()
		want := []keys.Key{static(0, "zero"), served(1, sealer), static(2, "two")}
		d := format(t, want[:2]...)
		sealer.Fail(keystest.Fault{Delay: time.Minute})
		opening, opened := context.WithCancel(t.Context())
		s, err := keys.Open(opening, read(t, d), volume, want, light(keys.Options{}))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		opened()
		local(t, s, "0 kept, 1 blocked, 2 added", 1)
		for range 2 {
			ctx, stop := context.WithTimeout(t.Context(), 25*time.Second)
			if r, err := s.Apply(ctx); r != nil || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v, %v", r, err)
			}
			stop()
		}
		r := rest(t, s, 10*time.Second, "0 kept, 1 kept, 2 added")
		if _, asked := sealer.Calls(); asked != 2 || !strings.Contains(reason(r, 2), "configured, not there") { // once when it was made
			t.Errorf("the server was asked %d times; %s", asked, table(t, r))
		}
	})
}

// TestInterruptedDerivation: a passphrase that was being tried when the context
// ended is tried again.
func TestInterruptedDerivation(t *testing.T) {
	want := statics("zero", "one")
	d := format(t, want...)
	s := open(t, d, keys.Options{}, want...)
	ctx, stop := context.WithCancel(t.Context())
	ctx = kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { stop() }})
	if r, err := s.Apply(ctx); r != nil || !errors.Is(err, context.Canceled) {
		t.Fatalf("%v, %v", r, err)
	}
	r, err := s.Apply(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantOutcome(t, r, "0 kept, 1 kept")
}
