package kdf_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

var word = secret.Copy([]byte("password"))

func TestSalted(t *testing.T) {
	a, b := kdf.Light().Salted(), kdf.Light().Salted()
	if len(a.Salt) != kdf.SaltSize || bytes.Equal(a.Salt, b.Salt) || a.Cost != kdf.Light() {
		t.Errorf("salts %x and %x", a.Salt, b.Salt)
	}
}

// TestDeriveRefuses: what Check refuses is not started. Package argon2 would
// panic, or not come back.
func TestDeriveRefuses(t *testing.T) {
	ctx := kdf.WithTrace(t.Context(), kdf.Trace{Start: func(c kdf.Cost) { t.Errorf("%v was started", c) }})
	for _, c := range []kdf.Cost{
		{},
		argon2(kdf.Argon2id, 0, 32, 1), argon2(kdf.Argon2id, 4, 32, 0), argon2(kdf.Argon2id, 4, 1<<31, 4),
		argon2(kdf.Argon2i, 1<<32-1, 32, 1), pbkdf2("md5", 1), pbkdf2("sha256", 0), pbkdf2("sha256", 1<<32-1),
	} {
		if key, err := c.Salted().Derive(ctx, word, 32, kdf.Limits{}); key != nil || err == nil {
			t.Errorf("%v was derived", c)
		}
	}
	if _, err := kdf.Light().Salted().Derive(ctx, word, 32, kdf.Limits{MaxMemoryKiB: 31}); !errors.Is(err, kdf.ErrTooCostly) {
		t.Errorf("above the caller's limit: %v", err)
	}
}

func TestDeriveSize(t *testing.T) {
	for _, c := range []kdf.Cost{pbkdf2("sha256", 1), kdf.Light()} {
		for _, size := range []int{16, 32, 64, 100} {
			key, err := c.Salted().Derive(t.Context(), word, size, kdf.Limits{})
			if err != nil || key.Len() != size {
				t.Errorf("%v: %d bytes, %v; want %d", c, key.Len(), err, size)
			}
			key.Wipe()
		}
	}
}

func TestDeriveCancelled(t *testing.T) {
	why := errors.New("shutting down")
	for _, c := range []kdf.Cost{pbkdf2("sha256", 1), kdf.Light(), argon2(kdf.Argon2id, 1, 16*mib, 1)} {
		ctx, cancel := context.WithCancelCause(t.Context())
		started := 0
		ctx = kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { started++; cancel(why) }})
		if key, err := c.Salted().Derive(ctx, word, 32, kdf.Limits{}); key != nil || !errors.Is(err, why) || started != 1 {
			t.Errorf("%v, cancelled while it runs: %v", c, err)
		}
		if key, err := c.Salted().Derive(ctx, word, 32, kdf.Limits{}); key != nil || !errors.Is(err, why) || started != 1 {
			t.Errorf("%v, cancelled before: %v", c, err)
		}
	}
}

// TestDeriveCancelledWaiting: who waits for another heavy derivation to end
// stops waiting when its context ends.
func TestDeriveCancelledWaiting(t *testing.T) {
	heavy := argon2(kdf.Argon2id, 1, 16*mib, 1).Salted()
	running, goOn := make(chan struct{}), make(chan struct{})
	first := make(chan error)
	go func() {
		ctx := kdf.WithTrace(t.Context(), kdf.Trace{Start: func(kdf.Cost) { close(running); <-goOn }})
		_, err := heavy.Derive(ctx, word, 32, kdf.Limits{})
		first <- err
	}()
	<-running

	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	second := make(chan error)
	go func() {
		ctx := kdf.WithTrace(ctx, kdf.Trace{Start: func(kdf.Cost) { t.Error("two heavy derivations at a time") }})
		_, err := heavy.Derive(ctx, word, 32, kdf.Limits{})
		second <- err
	}()
	select {
	case err := <-second:
		t.Fatalf("the second did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	// A light one does not wait.
	if _, err := kdf.Light().Salted().Derive(t.Context(), word, 32, kdf.Limits{}); err != nil {
		t.Error(err)
	}
	cancel(why)
	if err := <-second; !errors.Is(err, why) || err.Error() != "key derivation not started: shutting down" {
		t.Errorf("the second: %v", err)
	}
	close(goOn)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
	// The turn was given back by both.
	if _, err := heavy.Derive(t.Context(), word, 32, kdf.Limits{}); err != nil {
		t.Error(err)
	}
}

// TestHeavyOneAtATime: from 16 MiB on, derivations run one after the other.
func TestHeavyOneAtATime(t *testing.T) {
	var mu sync.Mutex
	running, most := 0, 0
	step := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		running += n
		most = max(most, running)
	}
	ctx := kdf.WithTrace(t.Context(), kdf.Trace{Start: func(kdf.Cost) { step(1) }, Done: func(kdf.Cost, time.Duration) { step(-1) }})
	var all sync.WaitGroup
	for i := range 6 {
		kind := []kdf.Kind{kdf.Argon2id, kdf.Argon2i}[i%2]
		all.Go(func() {
			if _, err := argon2(kind, 1, 16*mib, 1).Salted().Derive(ctx, word, 32, kdf.Limits{}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if most != 1 || running != 0 {
		t.Errorf("%d at a time", most)
	}
}

// TestTrace: traces on one context add up, and either of their functions may be
// missing.
func TestTrace(t *testing.T) {
	var calls []string
	trace := func(name string) kdf.Trace {
		return kdf.Trace{
			Start: func(c kdf.Cost) { calls = append(calls, name+" starts "+c.String()) },
			Done: func(c kdf.Cost, took time.Duration) {
				if took > 0 {
					calls = append(calls, name+" is done with "+c.String())
				}
			},
		}
	}
	ctx := kdf.WithTrace(t.Context(), trace("outer"))
	ctx = kdf.WithTrace(ctx, kdf.Trace{})
	ctx = kdf.WithTrace(ctx, trace("inner"))
	if _, err := pbkdf2("sha256", 1000).Salted().Derive(ctx, word, 32, kdf.Limits{}); err != nil {
		t.Fatal(err)
	}
	const c = "pbkdf2-sha256, 1000 iterations"
	want := []string{"outer starts " + c, "inner starts " + c, "outer is done with " + c, "inner is done with " + c}
	if !slices.Equal(calls, want) {
		t.Errorf("got %q, want %q", calls, want)
	}
}
