package kms_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// TestOrder: the first that works is asked, and no other.
func TestOrder(t *testing.T) {
	a, b := newFake(), newFake()
	p := provider(t, nil, "grpc://"+serve(t, a, nil), "grpc://"+serve(t, b, nil))
	works(t, p)
	if len(a.seen()) != 2 || len(b.seen()) != 0 {
		t.Errorf("asked %d and %d times", len(a.seen()), len(b.seen()))
	}
}

// TestOthers: whatever is wrong with the first, the second gives the key, in the
// time that is left.
func TestOthers(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	say := func(code codes.Code) func(context.Context, int, call) (*wire.Response, error) {
		return func(context.Context, int, call) (*wire.Response, error) { return nil, status.Error(code, "") }
	}
	fails := func(answer func(context.Context, int, call) (*wire.Response, error)) string {
		f := newFake()
		f.answer = answer
		return "grpc://" + serve(t, f, nil)
	}
	slow := func(ctx context.Context, _ int, _ call) (*wire.Response, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	short := func(context.Context, int, call) (*wire.Response, error) { return &wire.Response{}, nil }
	http1 := raw(t, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1024))
		_, _ = io.WriteString(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
	})
	noise := raw(t, func(c net.Conn) { _, _ = io.WriteString(c, strings.Repeat("\x00\xff", 4096)) })
	hangUp := raw(t, func(net.Conn) {})
	for name, first := range map[string]string{
		"dead": "grpc://" + dead(t), "accepts and is silent": "grpc://" + mute(t),
		"silent with TLS": "https://" + mute(t), "never answers": fails(slow),
		"unavailable": fails(say(codes.Unavailable)), "internal": fails(say(codes.Internal)), "busy": fails(say(codes.ResourceExhausted)),
		"not a key server": fails(say(codes.Unimplemented)), "HTTP/1": "grpc://" + http1, "noise": "grpc://" + noise, "hangs up": "grpc://" + hangUp,
		"short answer": fails(short), "web server that forbids": "https://" + forbids(t, ca),
		"unknown name": "grpc://kms.invalid:443", "unknown authority": "https://" + serve(t, newFake(), newParty(t).config(t)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake()
			second := "grpc://" + serve(t, f, nil)
			change := within(1500 * time.Millisecond)
			if strings.HasPrefix(first, "https:") {
				second = "https://" + serve(t, f, ca.config(t))
				change = func(o *kms.Options) { o.Budget, o.Authorities = 1500*time.Millisecond, ca.ca }
			}
			p := provider(t, change, first, second)
			begin := time.Now()
			pass, _, err := p.Enroll(t.Context(), keys.Request{})
			if err != nil || len(f.seen()) != 1 {
				t.Errorf("after %s: %v; the second was asked %d times", time.Since(begin), err, len(f.seen()))
			}
			pass.Wipe()
		})
	}
}

// TestNoOther: a denial counts, whoever could be asked besides.
func TestNoOther(t *testing.T) {
	a, b := newFake(), newFake()
	a.answer = func(context.Context, int, call) (*wire.Response, error) {
		return nil, status.Error(codes.FailedPrecondition, "the node is revoked")
	}
	p := provider(t, nil, "grpc://"+serve(t, a, nil), "grpc://"+serve(t, b, nil))
	if _, _, err := p.Enroll(t.Context(), keys.Request{}); keys.Class(err) != keys.ErrDenied || !strings.Contains(err.Error(), "the node is revoked") {
		t.Errorf("%v", err)
	}
	if len(a.seen()) != 1 || len(b.seen()) != 0 {
		t.Errorf("asked %d and %d times", len(a.seen()), len(b.seen()))
	}
}

// TestAllFail: the error names each, the time is kept, and nothing is asked
// without a pause.
func TestAllFail(t *testing.T) {
	t.Parallel()
	const budget = 1500 * time.Millisecond
	busy := newFake()
	busy.answer = func(context.Context, int, call) (*wire.Response, error) {
		return nil, status.Error(codes.Aborted, "not now")
	}
	first, second, third := "grpc://"+dead(t), "grpc://"+mute(t), "grpc://"+serve(t, busy, nil)
	begin := time.Now()
	_, _, err := provider(t, within(budget), first, second, third).Enroll(t.Context(), keys.Request{})
	if took := time.Since(begin); took > budget+200*time.Millisecond {
		t.Errorf("took %s of %s", took, budget)
	}
	if !errors.Is(err, keys.ErrUnavailable) {
		t.Errorf("class %v: %v", keys.Class(err), err)
	}
	for _, want := range []string{first, second, third, "refused", "no answer within", "not now"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("does not say %q: %v", want, err)
		}
	}
	if n := len(busy.seen()); n < 1 || n > 6 {
		t.Errorf("asked %d times in %s", n, budget)
	}
}

// TestComesUp: a server that is started while the node waits.
func TestComesUp(t *testing.T) {
	t.Parallel()
	address := dead(t)
	begin := time.Now()
	time.AfterFunc(300*time.Millisecond, func() {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Error(err)
			return
		}
		serveOn(t, l, newFake(), nil)
	})
	pass, _, err := provider(t, within(10*time.Second), "grpc://"+address).Enroll(t.Context(), keys.Request{})
	if err != nil || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	pass.Wipe()
}

// busyFor answers that the server is busy, up to the n-th call.
func busyFor(f *fake, upTo int, wait time.Duration) {
	f.answer = func(_ context.Context, n int, _ call) (*wire.Response, error) {
		if n >= upTo {
			return nil, nil
		}
		s, err := status.New(codes.ResourceExhausted, "too many at once").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
}

// TestRetryAfter: a server's wish to be left alone is respected, in so far as the
// time allows.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	const wait = 900 * time.Millisecond // longer than any first pause
	f := newFake()
	busyFor(f, 1, wait)
	pass, _, err := provider(t, nil, "grpc://"+serve(t, f, nil)).Enroll(t.Context(), keys.Request{})
	if err != nil {
		t.Fatal(err)
	}
	pass.Wipe()
	if calls := f.seen(); len(calls) != 2 || calls[1].at.Sub(calls[0].at) < wait {
		t.Errorf("asked %d times, not %s apart", len(calls), wait)
	}

	f = newFake()
	busyFor(f, 100, time.Minute)
	begin := time.Now()
	_, _, err = provider(t, nil, "grpc://"+serve(t, f, nil)).Enroll(t.Context(), keys.Request{})
	var typed *kms.Error
	if !errors.Is(err, keys.ErrUnavailable) || !errors.As(err, &typed) || typed.RetryAfter != time.Minute || !strings.Contains(err.Error(), "1m0s") {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); took > 5*time.Second || len(f.seen()) != 1 {
		t.Errorf("waits %s for what comes too late, asks %d times", took, len(f.seen()))
	}

	// While one is busy, the other is asked.
	f, other := newFake(), newFake()
	busyFor(f, 100, time.Minute)
	busyFor(other, 1, 10*time.Millisecond)
	pass, _, err = provider(t, nil, "grpc://"+serve(t, f, nil), "grpc://"+serve(t, other, nil)).Enroll(t.Context(), keys.Request{})
	if err != nil || len(f.seen()) != 1 || len(other.seen()) != 2 {
		t.Errorf("%v; asked %d and %d times", err, len(f.seen()), len(other.seen()))
	}
	pass.Wipe()
}

// TestDeadline: the caller hears why, before its own time is up.
func TestDeadline(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]string{"silent": "grpc://" + mute(t), "silent with TLS": "https://" + mute(t), "dead": "grpc://" + dead(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, _, err := provider(t, nil, endpoint).Enroll(ctx, keys.Request{})
			if ctx.Err() != nil || keys.Class(err) != keys.ErrUnavailable || !strings.Contains(err.Error(), endpoint) {
				t.Errorf("the context's end: %v; %v", ctx.Err(), err)
			}
		})
	}
}

// TestCancel: an end from outside is heeded at once, in a call and in a pause.
func TestCancel(t *testing.T) {
	t.Parallel()
	for name, endpoint := range map[string]string{"call": "grpc://" + mute(t), "pause": "grpc://" + dead(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancelCause(t.Context())
			why := errors.New("the node goes down")
			time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
			begin := time.Now()
			_, _, err := provider(t, nil, endpoint).Enroll(ctx, keys.Request{})
			if took := time.Since(begin); took > time.Second || !errors.Is(err, why) || !errors.Is(err, keys.ErrUnavailable) {
				t.Errorf("after %s: %v", took, err)
			}
		})
	}
}

// TestLeavesNothing: no goroutine, and so no connection, outlives a call.
func TestLeavesNothing(t *testing.T) {
	ca, f := newParty(t), newFake()
	plain, secure := "grpc://"+serve(t, f, nil), "https://"+serve(t, f, ca.config(t))
	refuses := says(t, codes.PermissionDenied)
	silent, silentTLS, nobody := "grpc://"+mute(t), "https://"+mute(t), "grpc://"+dead(t)
	run := func() {
		for _, endpoints := range [][]string{{plain}, {nobody, plain}, {silent, plain}, {silent}, {silentTLS}, {refuses}, {"https://kms.invalid"}} {
			p := provider(t, within(300*time.Millisecond), endpoints...)
			pass, _, _ := p.Enroll(t.Context(), keys.Request{})
			pass.Wipe()
		}
		works(t, provider(t, ca.trusted, secure))
	}
	run() // what is made once stays
	ours := func() []string {
		buf := make([]byte, 1<<20)
		all := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		return slices.DeleteFunc(all, func(s string) bool {
			// What listens is the test's own.
			return !strings.Contains(s, "google.golang.org/grpc") || strings.Contains(s, "grpc.(*Server)")
		})
	}
	before := len(ours())
	for range 3 {
		run()
	}
	for end := time.Now().Add(5 * time.Second); len(ours()) > before; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines of gRPC are left, were %d:\n%s", len(ours()), before, strings.Join(ours(), "\n\n"))
		}
	}
}

// forbids is a web server, such as a load balancer, that denies everything in HTTP.
func forbids(t *testing.T, ca party) string {
	t.Helper()
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	h.EnableHTTP2, h.TLS = true, ca.config(t)
	h.StartTLS()
	t.Cleanup(h.Close)
	return h.Listener.Addr().String()
}
