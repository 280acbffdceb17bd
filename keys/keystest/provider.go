package keystest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
)

// Options says what a provider claims of itself. The zero value is for one that
// needs no token, gives whoever asks the same bytes and waits for nothing.
type Options struct {
	// Tokens are the types of its tokens, as in [keys.Key]. Without any it must
	// give no token, and recover from none.
	Tokens []string
	// Random: every enrolment has a passphrase of its own, of 32 bytes or more.
	Random bool
	// Bound: what was enrolled for one request is not recovered for another.
	Bound bool
	// Waits: it asks someone, so a context that has ended must be an error.
	Waits bool
	// Silent is a provider whose other side never answers: its calls must end
	// when their context does. Default none.
	Silent func() keys.Provider
	// Failing are providers that cannot work: one whose server is down, say. All
	// their calls must fail with the class given.
	Failing []Failing
	// Secrets are what the provider was made from and must never show, beside
	// the passphrases themselves.
	Secrets []string
	// Patience is how long a call may take after its context ended. Default 2 s.
	Patience time.Duration
}

// Failing is a provider that cannot work.
type Failing struct {
	Name  string
	New   func() keys.Provider
	Class error // keys.ErrDenied, ...
}

// Provider runs the suite. newProvider returns the provider as it is after a
// restart: a new value, or the same, that has all that would still be there.
func Provider(t *testing.T, newProvider func() keys.Provider, opts Options) {
	t.Helper()
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			if err := c.do(t.Context(), newProvider, opts); err != nil {
				t.Error(err)
			}
		})
	}
}

// Check runs the suite and returns all that the provider does wrong.
func Check(ctx context.Context, newProvider func() keys.Provider, opts Options) error {
	var errs []error
	for _, c := range checks() {
		if err := c.do(ctx, newProvider, opts); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.name, err))
		}
	}
	return errors.Join(errs...)
}

type check struct {
	name string
	run  func(*trial)
}

func checks() []check {
	return []check{
		{"recovers", recovers},
		{"requests", requests},
		{"restart", restart},
		{"copies", copies},
		{"token", tokenForm},
		{"rewritten token", rewrittenToken},
		{"damaged token", damagedToken},
		{"ended context", endedContext},
		{"silent", silent},
		{"failing", failing},
		{"concurrent", concurrent},
		{"formatted", formatted},
	}
}

func (c check) do(ctx context.Context, newProvider func() keys.Provider, opts Options) error {
	if opts.Patience == 0 {
		opts.Patience = 2 * time.Second
	}
	t := &trial{Options: opts, ctx: ctx, new: newProvider}
	for _, s := range opts.Secrets {
		t.secrets = append(t.secrets, []byte(s))
	}
	c.run(t)
	t.leaks()
	return errors.Join(t.wrong...)
}

// demand gives requests that differ in one thing each.
func demand() []keys.Request {
	const uuid = "6f8a7f0e-0e0c-4c39-a3e4-2f1c1a1d0001"
	return []keys.Request{
		{UUID: uuid, Volume: "STATE", Slot: 0},
		{UUID: uuid, Volume: "STATE", Slot: 31},
		{UUID: uuid, Volume: "EPHEMERAL", Slot: 0},
		{UUID: "6f8a7f0e-0e0c-4c39-a3e4-2f1c1a1d0002", Volume: "STATE", Slot: 0},
		{UUID: uuid, Volume: "u-data", Slot: 7},
	}
}

func recovers(t *trial) {
	p := t.new()
	for _, req := range demand() {
		e, ok := t.enroll(p, req)
		if !ok {
			return
		}
		for _, when := range []string{"first", "second"} {
			t.same(p, e, "the "+when+" time")
		}
	}
}

// requests enrolls for all before it recovers for any.
func requests(t *trial) {
	p := t.new()
	var all []enrolment
	for _, req := range demand() {
		e, ok := t.enroll(p, req)
		if !ok {
			return
		}
		for _, other := range all {
			if t.Random && string(other.passphrase) == string(e.passphrase) {
				t.fail("the passphrases of %+v and %+v are the same", other.req, req)
			}
		}
		if t.Random && len(e.passphrase) < 32 {
			t.fail("a random passphrase has only %d bytes", len(e.passphrase))
		}
		all = append(all, e)
	}
	for _, e := range all {
		t.same(p, e, "after all others were enrolled")
		for _, other := range all {
			if !t.Bound || other.req == e.req {
				continue
			}
			got, err := p.Recover(t.ctx, other.req, e.token)
			if t.saw(got, err); err == nil && string(got.Bytes()) == string(e.passphrase) {
				t.fail("the token of %+v recovers its passphrase for %+v too", e.req, other.req)
			}
			got.Wipe()
		}
	}
}

func restart(t *trial) {
	for _, req := range demand() {
		if e, ok := t.enroll(t.new(), req); ok {
			t.same(t.new(), e, "after a restart")
		}
	}
}

// copies: what was handed out belongs to the caller, who wipes it.
func copies(t *trial) {
	p, req := t.new(), demand()[0]
	first, token, err := p.Enroll(t.ctx, req)
	if t.saw(first, err); err != nil {
		t.fail("Enroll: %v", err)
		return
	}
	e := enrolment{req, append([]byte(nil), first.Bytes()...), token}
	second, err := p.Recover(t.ctx, req, token)
	if t.saw(second, err); err != nil {
		t.fail("Recover: %v", err)
		return
	}
	first.Wipe()
	if string(second.Bytes()) != string(e.passphrase) {
		t.fail("wiping one passphrase changes another that was handed out")
	}
	second.Wipe()
	t.same(p, e, "after what was handed out was wiped")
}

func endedContext(t *trial) {
	p, req := t.new(), demand()[0]
	e, ok := t.enroll(p, req)
	if !ok {
		return
	}
	ended, cancel := context.WithCancel(t.ctx)
	cancel()
	t.both(p, e, ended, func(name string, got *secret.Bytes, err error) {
		if t.Waits && err == nil {
			t.fail("%s answers although its context had ended", name)
		}
		if err != nil && !classed(err) && !errors.Is(err, context.Canceled) {
			t.fail("%s under a context that had ended: neither a class nor the context's error: %v", name, err)
		}
	})
}

func silent(t *trial) {
	e, ok := t.enroll(t.new(), demand()[0])
	if !ok || t.Silent == nil {
		return
	}
	for name, end := range map[string]func() (context.Context, context.CancelFunc){
		"cancelled": func() (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(t.ctx)
			time.AfterFunc(20*time.Millisecond, cancel)
			return ctx, cancel
		},
		"timed out": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.ctx, 20*time.Millisecond)
		},
	} {
		ctx, cancel := end()
		t.both(t.Silent(), e, ctx, func(call string, _ *secret.Bytes, err error) {
			if err == nil {
				t.fail("%s, %s, of a side that never answers, gives an answer", call, name)
			} else if keys.Class(err) != keys.ErrUnavailable {
				t.fail("%s, %s: of class %v: %v", call, name, keys.Class(err), err)
			}
		})
		cancel()
	}
}

func failing(t *trial) {
	e, ok := t.enroll(t.new(), demand()[0])
	if !ok {
		return
	}
	for _, f := range t.Failing {
		t.both(f.New(), e, t.ctx, func(call string, _ *secret.Bytes, err error) {
			switch {
			case err == nil:
				t.fail("%s: %s works", f.Name, call)
			case !errors.Is(err, f.Class):
				t.fail("%s: the error of %s is of class %v, must be %v: %v", f.Name, call, keys.Class(err), f.Class, err)
			}
		})
	}
}

// concurrent is for the race detector, and for state that calls share.
func concurrent(t *trial) {
	const callers = 8
	p := t.new()
	done := make(chan error, callers)
	for i := range callers {
		req := demand()[i%len(demand())]
		go func() {
			done <- func() error {
				p1, token, err := p.Enroll(t.ctx, req)
				if err != nil {
					return fmt.Errorf("Enroll: %w", err)
				}
				defer p1.Wipe()
				for range 3 {
					p2, err := p.Recover(t.ctx, req, token)
					if err != nil {
						return fmt.Errorf("Recover: %w", err)
					}
					same := p2.Equal(p1)
					if p2.Wipe(); !same {
						return errors.New("Recover gives other bytes than Enroll")
					}
				}
				return nil
			}()
		}()
	}
	for range callers {
		if err := <-done; err != nil {
			t.fail("%d callers at once: %w", callers, err)
		}
	}
}

// formatted: a provider may end up in a log.
func formatted(t *trial) {
	p := t.new()
	for _, req := range demand() {
		t.enroll(p, req)
	}
	for _, verb := range verbs {
		t.shown = append(t.shown, "the provider: "+fmt.Sprintf(verb, p))
	}
}
