package keystest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/secret"
)

// verbs are the ways in which errors and providers are printed.
var verbs = []string{"%v", "%+v", "%#v", "%s", "%q"}

// trial is one check of one provider.
type trial struct {
	Options
	ctx     context.Context
	new     func() keys.Provider
	wrong   []error
	secrets [][]byte // all that must not be shown
	shown   []string // all that was
}

// enrolment is what Enroll gave.
type enrolment struct {
	req        keys.Request
	passphrase []byte
	token      json.RawMessage
}

func (t *trial) fail(format string, args ...any) {
	t.wrong = append(t.wrong, fmt.Errorf(format, args...))
}

// saw takes note of what a call gave: passphrases are secret, errors are shown.
func (t *trial) saw(p *secret.Bytes, err error) {
	if p.Len() > 0 {
		t.secrets = append(t.secrets, bytes.Clone(p.Bytes()))
	}
	if err == nil {
		return
	}
	if p.Len() > 0 {
		t.fail("a passphrase beside an error, which nobody wipes: %v", err)
	}
	for _, verb := range verbs {
		t.shown = append(t.shown, fmt.Sprintf("an error: "+verb, err))
	}
}

func (t *trial) enroll(p keys.Provider, req keys.Request) (enrolment, bool) {
	got, token, err := p.Enroll(t.ctx, req)
	t.saw(got, err)
	defer got.Wipe()
	switch {
	case err != nil:
		t.fail("Enroll %+v: %w", req, err)
		return enrolment{}, false
	case got.Len() == 0:
		t.fail("Enroll %+v: an empty passphrase", req)
		return enrolment{}, false
	}
	return enrolment{req, bytes.Clone(got.Bytes()), token}, true
}

// same recovers and compares.
func (t *trial) same(p keys.Provider, e enrolment, when string) {
	got, err := p.Recover(t.ctx, e.req, e.token)
	t.saw(got, err)
	defer got.Wipe()
	if err != nil {
		t.fail("Recover %+v %s: %w", e.req, when, err)
	} else if !bytes.Equal(got.Bytes(), e.passphrase) {
		t.fail("Recover %+v %s: other bytes than Enroll gave", e.req, when)
	}
}

// both calls Enroll and Recover, which must return before the patience ends.
func (t *trial) both(p keys.Provider, e enrolment, ctx context.Context, judge func(call string, got *secret.Bytes, err error)) {
	type result struct {
		p   *secret.Bytes
		err error
	}
	for _, call := range []struct {
		name string
		do   func() (*secret.Bytes, error)
	}{
		{"Enroll", func() (*secret.Bytes, error) { got, _, err := p.Enroll(ctx, e.req); return got, err }},
		{"Recover", func() (*secret.Bytes, error) { return p.Recover(ctx, e.req, e.token) }},
	} {
		done := make(chan result, 1)
		go func() { got, err := call.do(); done <- result{got, err} }()
		select {
		case r := <-done:
			t.saw(r.p, r.err)
			judge(call.name, r.p, r.err)
			r.p.Wipe()
		case <-time.After(t.Patience):
			t.fail("%s: no return within %s", call.name, t.Patience)
		}
	}
}

// classed reports whether an error names its class, rather than falling into
// that of unknown errors.
func classed(err error) bool {
	return slices.ContainsFunc([]error{keys.ErrUnavailable, keys.ErrStale, keys.ErrRejected, keys.ErrDenied, keys.ErrMalformed},
		func(class error) bool { return errors.Is(err, class) })
}

// shortest is the length from which a secret is looked for: shorter ones occur
// by chance.
const shortest = 6

// leaks looks for secrets in what was shown: as they are, and in the forms that
// package fmt gives to byte slices. Its own complaint does not repeat the text.
func (t *trial) leaks() {
	var forms []string
	for _, s := range t.secrets {
		if len(s) >= shortest {
			forms = append(forms, formsOf(s)...)
		}
	}
	for _, text := range t.shown {
		what, _, _ := strings.Cut(text, ":")
		text = strings.ToLower(text)
		if slices.ContainsFunc(forms, func(f string) bool { return strings.Contains(text, f) }) {
			t.fail("%s shows a passphrase", what)
			return
		}
	}
}

// formsOf gives the ways in which a secret may be shown, in lower case.
func formsOf(s []byte) []string {
	forms := []string{
		string(s), hex.EncodeToString(s), base64.StdEncoding.EncodeToString(s),
		strings.Trim(fmt.Sprint(s), "[]"), strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", s), "[]byte"), "{}"),
	}
	for i, f := range forms {
		forms[i] = strings.ToLower(f)
	}
	return forms
}
