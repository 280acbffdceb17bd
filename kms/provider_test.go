package kms_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/keys/keystest"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/secret"
)

// says is a server that always answers with a code.
func says(t *testing.T, code codes.Code) string {
	f := newFake()
	f.answer = func(context.Context, int, call) (*wire.Response, error) { return nil, status.Error(code, "as told") }
	return "grpc://" + serve(t, f, nil)
}

// TestSuite: what every provider must do, over plaintext and TLS.
func TestSuite(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	plain := "grpc://" + serve(t, newFake(), nil)
	silent := "grpc://" + mute(t)
	failing := func(name, endpoint string, class error) keystest.Failing {
		return keystest.Failing{Name: name, Class: class, New: func() keys.Provider {
			return provider(t, within(300*time.Millisecond), endpoint)
		}}
	}
	options := keystest.Options{
		Tokens: kms.Tokens(), Random: true, Waits: true,
		Silent: func() keys.Provider { return provider(t, nil, silent) },
		Failing: []keystest.Failing{
			failing("down", "grpc://"+dead(t), keys.ErrUnavailable),
			failing("silent", silent, keys.ErrUnavailable),
			failing("busy", says(t, codes.ResourceExhausted), keys.ErrUnavailable),
			failing("denied", says(t, codes.PermissionDenied), keys.ErrDenied),
			failing("malformed", says(t, codes.InvalidArgument), keys.ErrMalformed),
		},
	}
	t.Run("plaintext", func(t *testing.T) {
		keystest.Provider(t, func() keys.Provider { return provider(t, nil, plain) }, options)
	})
	t.Run("TLS", func(t *testing.T) {
		with := options
		with.Secrets = strings.Split(strings.TrimSpace(string(ca.client.Key.Bytes())), "\n")[1:2]
		secure := "grpcs://" + serve(t, newFake(), ca.config(t))
		keystest.Provider(t, func() keys.Provider {
			return provider(t, func(o *kms.Options) {
				o.Authorities, o.Certificate, o.Key = ca.ca, ca.client.Cert, keyOf(ca.client)
			}, secure)
		}, with)
	})
}

// TestWire: what the server gets and what the slot gets, to the byte.
func TestWire(t *testing.T) {
	f := newFake()
	p := provider(t, nil, "grpc://"+serve(t, f, nil))
	pass, token, err := p.Enroll(t.Context(), keys.Request{UUID: "volume", Volume: "STATE", Slot: 3})
	if err != nil {
		t.Fatal(err)
	}
	calls := f.seen()
	if len(calls) != 1 || calls[0].method != "Seal" || calls[0].uuid != nodeUUID || len(calls[0].data) != 32 {
		t.Fatalf("the server got %v", calls)
	}
	if got := string(pass.Bytes()); got != base64.StdEncoding.EncodeToString(calls[0].data) || len(got) != 44 {
		t.Errorf("the passphrase of %d bytes is not the base64 of what was sealed", len(got))
	}
	if len(token) != 143 {
		t.Errorf("the token has %d bytes, Talos' has 143: %s", len(token), token)
	}
	again, err := p.Recover(t.Context(), keys.Request{}, token)
	if err != nil || !again.Equal(pass) {
		t.Errorf("recovered the same %v, %v", again.Equal(pass), err)
	}
	sealed, err := kms.ReadToken(token)
	if err != nil {
		t.Fatal(err)
	}
	calls = f.seen()
	if len(calls) != 2 || calls[1].method != "Unseal" || calls[1].uuid != nodeUUID || string(calls[1].data) != string(sealed) {
		t.Errorf("the server got %v", calls[1:])
	}
}

// TestRandomAnswer: as the reference server does it, other bytes come back for a
// blob of another server; the caller must see it, not we.
func TestRandomAnswer(t *testing.T) {
	one, two := provider(t, nil, "grpc://"+serve(t, newFake(), nil)), provider(t, nil, "grpc://"+serve(t, newFake(), nil))
	pass, token, err := one.Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Fatal(err)
	}
	other, err := two.Recover(t.Context(), keys.Request{}, token)
	if err != nil || other.Equal(pass) || other.Len() != 44 {
		t.Errorf("another server's answer: the same %v, %d bytes, %v", other.Equal(pass), other.Len(), err)
	}
}

// TestAnswers: what no honest server answers is refused, once, and never becomes
// a passphrase or a token.
func TestAnswers(t *testing.T) {
	t.Parallel()
	none := &wire.Response{}
	size := func(n int) func(call) *wire.Response {
		return func(call) *wire.Response { return &wire.Response{Data: make([]byte, n)} }
	}
	for _, test := range []struct {
		name   string
		unseal bool
		answer func(call) *wire.Response
		text   string
	}{
		{"seal: nothing", false, func(call) *wire.Response { return none }, "sealed a key to 0 bytes"},
		{"seal: too much", false, size(2049), "sealed a key to 2049 bytes"},
		{"seal: the key itself", false, func(c call) *wire.Response { return &wire.Response{Data: c.data} }, "returned the key itself"},
		{"seal: the key inside", false, func(c call) *wire.Response {
			return &wire.Response{Data: append([]byte("v1:"), append(c.data, "!"...)...)}
		}, "returned the key itself"},
		{"unseal: nothing", true, func(call) *wire.Response { return none }, "unsealed 0 bytes"},
		{"unseal: 31 bytes", true, size(31), "unsealed 31 bytes"},
		{"unseal: 33 bytes", true, size(33), "unsealed 33 bytes"},
		{"unseal: the base64", true, size(44), "unsealed 44 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFake()
			p := provider(t, nil, "grpc://"+serve(t, f, nil))
			_, token, err := p.Enroll(t.Context(), keys.Request{})
			if err != nil {
				t.Fatal(err)
			}
			f.answer = func(_ context.Context, _ int, c call) (*wire.Response, error) { return test.answer(c), nil }
			var pass *secret.Bytes
			if test.unseal {
				pass, err = p.Recover(t.Context(), keys.Request{}, token)
			} else {
				pass, token, err = p.Enroll(t.Context(), keys.Request{})
			}
			if !errors.Is(err, keys.ErrMalformed) || !strings.Contains(err.Error(), test.text) || !strings.Contains(err.Error(), "grpc://127.0.0.1:") {
				t.Errorf("%v, must be malformed, about %q and name the server", err, test.text)
			}
			if pass.Len() != 0 || !test.unseal && token != nil {
				t.Error("a passphrase or a token beside the error")
			}
			if n := len(f.seen()); n != 2 {
				t.Errorf("the server was asked %d times", n-1)
			}
		})
	}
	f := newFake() // the largest that passes
	f.answer = func(context.Context, int, call) (*wire.Response, error) { return size(2048)(call{}), nil }
	if _, _, err := provider(t, nil, "grpc://"+serve(t, f, nil)).Enroll(t.Context(), keys.Request{}); err != nil {
		t.Errorf("2048 bytes: %v", err)
	}
	// Beyond the limit of a message the client stops reading.
	f.answer = func(context.Context, int, call) (*wire.Response, error) { return size(1 << 20)(call{}), nil }
	if _, _, err := provider(t, within(200*time.Millisecond), "grpc://"+serve(t, f, nil)).Enroll(t.Context(), keys.Request{}); err == nil {
		t.Error("a message of 1 MiB is read")
	}
}

// TestCodes: the class of each code, and whether it is worth another try.
func TestCodes(t *testing.T) {
	t.Parallel()
	const budget = 450 * time.Millisecond
	classes := map[codes.Code]error{
		codes.PermissionDenied: keys.ErrDenied, codes.Unauthenticated: keys.ErrDenied,
		codes.FailedPrecondition: keys.ErrDenied, codes.NotFound: keys.ErrDenied,
		codes.InvalidArgument: keys.ErrMalformed, codes.OutOfRange: keys.ErrMalformed,
	}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			f := newFake()
			f.answer = func(context.Context, int, call) (*wire.Response, error) {
				return nil, status.Error(code, "for a reason")
			}
			_, _, err := provider(t, within(budget), "grpc://"+serve(t, f, nil)).Enroll(t.Context(), keys.Request{})
			want, once := classes[code]
			if !once {
				want = keys.ErrUnavailable
			}
			var typed *kms.Error
			if !errors.Is(err, want) || keys.Class(err) != want || !errors.As(err, &typed) || typed.Code != code || typed.Endpoint == "" {
				t.Errorf("class %v, must be %v: %#v", keys.Class(err), want, err)
			}
			if code != codes.DeadlineExceeded && !strings.Contains(err.Error(), "for a reason") {
				t.Errorf("does not give the server's reason: %v", err)
			}
			if n := len(f.seen()); (n == 1) != (once || code == codes.Unimplemented) {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

// TestErrorsShowNoKey: a server that puts the key into its error, in whatever
// form, does not get it into our log.
func TestErrorsShowNoKey(t *testing.T) {
	for _, form := range []struct {
		name string
		text func(key []byte) string
	}{
		{"base64", base64.StdEncoding.EncodeToString},
		{"base64 for URLs", base64.RawURLEncoding.EncodeToString},
		{"hexadecimal", func(key []byte) string { return hexOf(key) }},
		{"within a text", func(key []byte) string {
			return "cannot seal '" + base64.StdEncoding.EncodeToString(key) + "' for node " + nodeUUID
		}},
		{"as it is", func(key []byte) string { return string(key) }},
	} {
		t.Run(form.name, func(t *testing.T) {
			f := newFake()
			f.answer = func(_ context.Context, _ int, c call) (*wire.Response, error) {
				return nil, status.Error(codes.PermissionDenied, form.text(c.data))
			}
			_, _, err := provider(t, nil, "grpc://"+serve(t, f, nil)).Enroll(t.Context(), keys.Request{})
			if err == nil {
				t.Fatal("no error")
			}
			key := f.seen()[0].data
			for _, other := range []string{base64.StdEncoding.EncodeToString(key), base64.RawURLEncoding.EncodeToString(key), hexOf(key), string(key)} {
				if strings.Contains(err.Error(), other) {
					t.Errorf("the error shows the key: %v", err)
				}
			}
			if form.name == "within a text" && !strings.Contains(err.Error(), "for node "+nodeUUID) {
				t.Errorf("the rest of the text is gone: %v", err)
			}
		})
	}
}

// TestNew: what cannot work is refused before anyone is asked.
func TestNew(t *testing.T) {
	ca := newParty(t)
	other := newParty(t)
	for _, test := range []struct {
		name   string
		change func(*kms.Options)
		text   string
	}{
		{"good", func(*kms.Options) {}, ""},
		{"authorities", func(o *kms.Options) { o.Authorities = ca.ca }, ""},
		{"certificate", func(o *kms.Options) { o.Certificate, o.Key = ca.client.Cert, ca.client.Key }, ""},
		{"no endpoint", func(o *kms.Options) { o.Endpoints = nil }, "no endpoint"},
		{"a bad endpoint", func(o *kms.Options) { o.Endpoints = append(o.Endpoints, "kms.example.com:443") }, "endpoint 2: "},
		{"twice", func(o *kms.Options) { o.Endpoints = append(o.Endpoints, "https://kms.example.com/path") }, "endpoint 2 is also there"},
		{"too many", func(o *kms.Options) { o.Endpoints = make([]string, 17) }, "at most 16"},
		{"no UUID", func(o *kms.Options) { o.NodeUUID = "" }, "--node-uuid"},
		{"UUID that is no text", func(o *kms.Options) { o.NodeUUID = "\xff" }, "must be text"},
		{"long UUID", func(o *kms.Options) { o.NodeUUID = strings.Repeat("a", 257) }, "must be text"},
		{"authorities that are none", func(o *kms.Options) { o.Authorities = []byte("hello") }, "no certificate"},
		{"certificate without a key", func(o *kms.Options) { o.Certificate = ca.client.Cert }, "client certificate"},
		{"key without a certificate", func(o *kms.Options) { o.Key = ca.client.Key }, "client certificate"},
		{"another's key", func(o *kms.Options) { o.Certificate, o.Key = ca.client.Cert, other.client.Key }, "client certificate"},
		{"authorities in plaintext", func(o *kms.Options) {
			o.Endpoints, o.Authorities = []string{"grpc://kms.example.com"}, ca.ca
		}, "grpc:// is plaintext"},
		{"server name in plaintext", func(o *kms.Options) {
			o.Endpoints, o.ServerName = []string{"grpc://kms.example.com"}, "x"
		}, "grpc:// is plaintext"},
		{"authorities for one of two", func(o *kms.Options) {
			o.Endpoints, o.Authorities = append(o.Endpoints, "grpc://kms.example.com"), ca.ca
		}, ""},
	} {
		opts := kms.Options{Endpoints: []string{"https://kms.example.com"}, NodeUUID: nodeUUID}
		test.change(&opts)
		_, err := kms.New(opts)
		if test.text == "" && err != nil || test.text != "" && (err == nil || !strings.Contains(err.Error(), test.text)) {
			t.Errorf("%s: %v, must be about %q", test.name, err, test.text)
		}
	}
	key := keyOf(ca.client) // may be wiped after New
	opts := kms.Options{Endpoints: []string{"https://" + net.JoinHostPort("127.0.0.1", portOf(serve(t, newFake(), ca.config(t))))}, NodeUUID: nodeUUID}
	opts.Authorities, opts.Certificate, opts.Key = ca.ca, ca.client.Cert, key
	p, err := kms.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	key.Wipe()
	works(t, p)
}
