package keystest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/secret"
)

func sealerOptions() keystest.Options {
	failing := func(name string, class error) keystest.Failing {
		return keystest.Failing{Name: name, Class: class, New: func() keys.Provider {
			s := keystest.NewSealer()
			s.Fail(keystest.Fault{Err: fmt.Errorf("%w: told to", class)})
			return s
		}}
	}
	return keystest.Options{
		Tokens: []string{keystest.TokenType}, Random: true, Bound: true, Waits: true,
		Silent: func() keys.Provider {
			s := keystest.NewSealer()
			s.Fail(keystest.Fault{Delay: time.Hour})
			return s
		},
		Failing: []keystest.Failing{
			failing("down", keys.ErrUnavailable), failing("stale", keys.ErrStale), failing("denied", keys.ErrDenied),
			failing("malformed", keys.ErrMalformed), failing("rejected", keys.ErrRejected),
		},
	}
}

func TestSealer(t *testing.T) {
	s := keystest.NewSealer()
	keystest.Provider(t, func() keys.Provider { return s }, sealerOptions())
}

// broken is a provider whose two methods can be spoilt.
type broken struct {
	*keystest.Sealer
	enroll func(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error)
	redo   func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error)
}

func (b broken) Enroll(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
	if b.enroll != nil {
		return b.enroll(ctx, req)
	}
	return b.Sealer.Enroll(ctx, req)
}

func (b broken) Recover(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
	if b.redo != nil {
		return b.redo(ctx, req, token)
	}
	return b.Sealer.Recover(ctx, req, token)
}

// TestCheckFinds breaks a good provider in one way after the other: a suite that
// passes everything proves nothing.
func TestCheckFinds(t *testing.T) {
	s := keystest.NewSealer()
	one := keys.Request{Slot: 1, Volume: "V"}
	shared, sharedToken, err := s.Enroll(t.Context(), one)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, by string) func(context.Context, keys.Request) (*secret.Bytes, json.RawMessage, error) {
		return func(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
			p, token, err := s.Enroll(ctx, req)
			return p, json.RawMessage(strings.Replace(string(token), old, by, 1)), err
		}
	}
	mend := func(old, by string) func(context.Context, keys.Request, json.RawMessage) (*secret.Bytes, error) {
		return func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
			return s.Recover(ctx, req, json.RawMessage(strings.Replace(string(token), old, by, 1)))
		}
	}
	recoverWith := func(change func(*secret.Bytes, error) (*secret.Bytes, error)) func(context.Context, keys.Request, json.RawMessage) (*secret.Bytes, error) {
		return func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
			return change(s.Recover(ctx, req, token))
		}
	}
	options := sealerOptions()
	tests := []struct {
		name  string
		p     func() keys.Provider
		check string // that must complain
		text  string
	}{
		{"other bytes", func() keys.Provider {
			return broken{s, nil, recoverWith(func(p *secret.Bytes, err error) (*secret.Bytes, error) { return secret.Random(44), err })}
		}, "recovers", "other bytes than Enroll gave"},
		{"works once", func() keys.Provider {
			var used sync.Map
			return broken{s, nil, func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
				if _, again := used.LoadOrStore(string(token), true); again {
					return nil, keys.ErrDenied
				}
				return s.Recover(ctx, req, token)
			}}
		}, "recovers", "the second time"},
		{"forgets at a restart", func() keys.Provider { return keystest.NewSealer() }, "restart", "denied"},
		{"one passphrase for all", func() keys.Provider {
			return broken{
				s, func(context.Context, keys.Request) (*secret.Bytes, json.RawMessage, error) {
					return shared.Clone(), sharedToken, nil
				},
				func(context.Context, keys.Request, json.RawMessage) (*secret.Bytes, error) {
					return shared.Clone(), nil
				},
			}
		}, "requests", "are the same"},
		{"does not bind", func() keys.Provider {
			return broken{
				s, func(ctx context.Context, _ keys.Request) (*secret.Bytes, json.RawMessage, error) {
					return s.Enroll(ctx, one)
				},
				func(ctx context.Context, _ keys.Request, token json.RawMessage) (*secret.Bytes, error) {
					return s.Recover(ctx, one, token)
				},
			}
		}, "requests", "recovers its passphrase for"},
		{"empty passphrase", func() keys.Provider {
			return broken{s, func(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
				_, token, err := s.Enroll(ctx, req)
				return secret.New(0), token, err
			}, nil}
		}, "recovers", "an empty passphrase"},
		{"hands out its own copy", func() keys.Provider {
			var once sync.Once // the others are for the concurrent callers
			var own *secret.Bytes
			var first string
			return broken{
				s, func(ctx context.Context, req keys.Request) (p *secret.Bytes, token json.RawMessage, err error) {
					p, token, err = s.Enroll(ctx, req)
					once.Do(func() { own, first = p, string(token) })
					return p, token, err
				},
				func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
					if string(token) == first {
						return own, nil
					}
					return s.Recover(ctx, req, token)
				},
			}
		}, "copies", "wiping one passphrase changes another"},
		{"no token", func() keys.Provider {
			return broken{s, func(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
				p, _, err := s.Enroll(ctx, req)
				return p, nil, err
			}, nil}
		}, "token", "not a JSON object"},
		{"token of another type", func() keys.Provider {
			return broken{s, replace(keystest.TokenType, "other"), mend("other", keystest.TokenType)}
		}, "token", `type is "other"`},
		{"token without keyslots", func() keys.Provider { return broken{s, replace(`"keyslots":[],`, ""), nil} }, "token", "no keyslots"},
		{"token too long", func() keys.Provider {
			return broken{s, replace(`"keyslots"`, `"pad":"`+strings.Repeat("x", 1024)+`","keyslots"`), nil}
		}, "token", "do not fit a header"},
		{"passphrase in the token", func() keys.Provider {
			return broken{s, func(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
				p, token, err := s.Enroll(ctx, req)
				return p, json.RawMessage(strings.Replace(string(token), `"keyslots"`, `"x":"`+string(p.Bytes())+`","keyslots"`, 1)), err
			}, nil}
		}, "token", "stands in the token"},
		{"wants its token byte for byte", func() keys.Provider {
			return broken{s, nil, func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
				if !strings.HasPrefix(string(token), `{"type":`) {
					return nil, keys.ErrMalformed
				}
				return s.Recover(ctx, req, token)
			}}
		}, "rewritten token", "sorted and indented"},
		{"error without a class", func() keys.Provider {
			return broken{s, nil, recoverWith(func(p *secret.Bytes, err error) (*secret.Bytes, error) {
				if err != nil {
					return nil, errors.New("oops")
				}
				return p, nil
			})}
		}, "damaged token", "names no class"},
		{"takes any token", func() keys.Provider {
			return broken{s, nil, func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
				p, err := s.Recover(ctx, req, token)
				if errors.Is(err, keys.ErrMalformed) {
					return shared.Clone(), nil
				}
				return p, err
			}}
		}, "damaged token", "must be malformed"},
		{"ignores its context", func() keys.Provider {
			return broken{
				s, func(ctx context.Context, req keys.Request) (*secret.Bytes, json.RawMessage, error) {
					return s.Enroll(context.WithoutCancel(ctx), req)
				},
				func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
					return s.Recover(context.WithoutCancel(ctx), req, token)
				},
			}
		}, "ended context", "answers although its context had ended"},
		{"passphrase in an error", func() keys.Provider {
			return broken{s, nil, func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
				p, err := s.Recover(context.WithoutCancel(ctx), req, token)
				if ctx.Err() != nil {
					return nil, fmt.Errorf("%w: %s came too late", keys.ErrUnavailable, p.Bytes())
				}
				return p, err
			}}
		}, "ended context", "an error shows a passphrase"},
		{"passphrase beside an error", func() keys.Provider {
			return broken{s, nil, func(ctx context.Context, req keys.Request, token json.RawMessage) (*secret.Bytes, error) {
				p, err := s.Recover(context.WithoutCancel(ctx), req, token)
				return p, errors.Join(err, ctx.Err())
			}}
		}, "ended context", "beside an error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := keystest.Check(t.Context(), test.p, options)
			if err == nil || !containsLine(err.Error(), test.check+":", test.text) {
				t.Errorf("the suite says %v,\nmust say %s: ...%s", err, test.check, test.text)
			}
		})
	}
}

// TestCheckFindsOptions: what the options say is asserted too.
func TestCheckFindsOptions(t *testing.T) {
	s := keystest.NewSealer()
	tests := []struct {
		name   string
		change func(*keystest.Options)
		check  string
		text   string
	}{
		{"tokens that were not announced", func(o *keystest.Options) { o.Tokens = nil }, "token", "that needs none"},
		{"a failing one that works", func(o *keystest.Options) {
			o.Failing = []keystest.Failing{{Name: "fine", New: func() keys.Provider { return s }, Class: keys.ErrDenied}}
		}, "failing", "fine: Enroll works"},
		{"another class", func(o *keystest.Options) { o.Failing[0].Class = keys.ErrDenied }, "failing", "of class unavailable, must be denied"},
		{"a silent one that answers", func(o *keystest.Options) { o.Silent = func() keys.Provider { return s } }, "silent", "gives an answer"},
		{"one that never returns", func(o *keystest.Options) {
			hang := make(chan struct{})
			t.Cleanup(func() { close(hang) })
			o.Patience = 50 * time.Millisecond
			o.Silent = func() keys.Provider {
				s := keystest.NewSealer()
				s.Fail(keystest.Fault{Hang: hang})
				return s
			}
		}, "silent", "no return within 50ms"},
		{"a secret in the errors", func(o *keystest.Options) { o.Secrets = []string{"told to"} }, "failing", "an error shows a passphrase"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			options := sealerOptions()
			test.change(&options)
			err := keystest.Check(t.Context(), func() keys.Provider { return s }, options)
			if err == nil || !containsLine(err.Error(), test.check+":", test.text) {
				t.Errorf("the suite says %v,\nmust say %s: ...%s", err, test.check, test.text)
			}
		})
	}
}

// containsLine reports whether the complaints of a check, which may have several
// lines, contain the text.
func containsLine(text, check, want string) bool {
	_, rest, found := strings.Cut("\n"+text, "\n"+check)
	return found && strings.Contains(rest, want)
}

// TestFaults: each fault does what its name says.
func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, req := t.Context(), keys.Request{Volume: "STATE", Slot: 3}
		s := keystest.NewSealer()
		p, token, err := s.Enroll(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		check := func(name string, wantSame bool, wantErr error) *secret.Bytes {
			t.Helper()
			got, err := s.Recover(ctx, req, token)
			if !errors.Is(err, wantErr) || err == nil && got.Equal(p) != wantSame {
				t.Errorf("%s: same %v, error %v", name, got.Equal(p), err)
			}
			return got
		}
		check("none", true, nil)
		s.FailRecover(keystest.Fault{Other: true})
		if got := check("other", false, nil); got.Len() != p.Len() {
			t.Errorf("the other passphrase has %d bytes", got.Len())
		}
		s.FailRecover(keystest.Fault{Empty: true})
		check("empty", false, nil)
		s.FailRecover(keystest.Fault{Delay: time.Minute})
		begin := time.Now()
		check("late", true, nil)
		if d := time.Since(begin); d != time.Minute {
			t.Errorf("answered after %s", d)
		}
		hang := make(chan struct{})
		s.FailRecover(keystest.Fault{Hang: hang})
		ended, cancel := context.WithCancel(ctx)
		cancel()
		done := make(chan *secret.Bytes)
		go func() { got, _ := s.Recover(ended, req, token); done <- got }()
		synctest.Wait()
		select {
		case <-done:
			t.Error("heeds its context")
		default:
		}
		close(hang)
		if got := <-done; !got.Equal(p) {
			t.Error("what hung does not answer in the end")
		}
		s.FailRecover(keystest.Fault{})
		s.Change(keystest.Stale)
		check("stale", false, keys.ErrStale)
		fresh, freshToken, err := s.Enroll(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.Recover(ctx, req, freshToken)
		if err != nil || !again.Equal(fresh) {
			t.Errorf("after the change: %v", err)
		}
		s.Change(keystest.OtherBytes)
		token = freshToken
		check("another key", false, nil)
		if enrolled, recovered := s.Calls(); enrolled != 2 || recovered != 8 {
			t.Errorf("counted %d and %d calls", enrolled, recovered)
		}
		if n := s.Unwiped(); n == 0 {
			t.Error("counts nothing as unwiped")
		}
	})
}
