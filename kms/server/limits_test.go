package server_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// eventually waits for something to become true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// metric is a value of /metrics, -1 if it is not there.
func metric(t *testing.T, r *running, name string) (value int) {
	t.Helper()
	for line := range strings.Lines(get(t, r, "/metrics", http.StatusOK)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			if _, err := fmt.Sscan(rest, &value); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			return value
		}
	}
	return -1
}

func get(t *testing.T, r *running, path string, code int) string {
	t.Helper()
	w := httptest.NewRecorder()
	r.HTTP().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	if w.Code != code {
		t.Errorf("GET %s: %d", path, w.Code)
	}
	return w.Body.String()
}

// TestFairness: a source with a thousand requests does not starve another one.
func TestFairness(t *testing.T) {
	r := fresh(t, func(o *server.Options) { o.Limits.Working = 1 })
	quiet := plain(t, r.nodes, "127.0.0.3")
	sealed, err := seal(within(t), quiet, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	r.pause.Store(int64(2 * time.Millisecond))
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	var answered atomic.Int64
	for range 40 {
		cc := plain(t, r.nodes, "127.0.0.2")
		for range 25 {
			flood.Go(func() {
				if _, err := unseal(ctx, cc, nodeA, sealed); err == nil {
					answered.Add(1)
				}
			})
		}
	}
	defer flood.Wait()
	defer cancel()
	eventually(t, "a long queue", func() bool { return metric(t, r, "cryptctl_kms_requests_waiting") > 500 })
	before := answered.Load()
	if _, err := unseal(within(t), quiet, nodeA, sealed); err != nil {
		t.Error(err)
	}
	if n := answered.Load() - before; n > 20 {
		t.Errorf("%d requests of the other source were answered before", n)
	}
}

// TestOverload: who is not admitted hears when to come back, and our provider
// does.
func TestOverload(t *testing.T) {
	r := fresh(t, func(o *server.Options) {
		o.Limits.Working, o.Limits.Waiting, o.Limits.Wait = 1, 1, 200*time.Millisecond
	})
	p := provider(t, r.nodes, nodeA, nil)
	pass, token := enroll(t, p)
	sealed, err := seal(within(t), plain(t, r.nodes, ""), nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	r.pause.Store(int64(700 * time.Millisecond))
	cc := plain(t, r.nodes, "")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { _, _ = unseal(within(t), cc, nodeA, sealed) })
	}
	eventually(t, "a full server", func() bool { return metric(t, r, "cryptctl_kms_requests_working") == 1 })
	_, err = unseal(within(t), cc, nodeA, sealed)
	s, after := status.Convert(err), time.Duration(0)
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok {
			after = info.GetRetryDelay().AsDuration()
		}
	}
	if s.Code() != codes.ResourceExhausted || after < time.Second {
		t.Errorf("to come back after %s: %v", after, err)
	}
	opens(t, p, token, pass) // it waits and asks again
	all.Wait()
	if n := metric(t, r, "cryptctl_kms_overload_total"); n < 1 {
		t.Errorf("%d counted", n)
	}
}

// TestConnections: beyond the limit of a source its connections are closed, and
// others are served.
func TestConnections(t *testing.T) {
	r := fresh(t, func(o *server.Options) { o.Limits.Connections, o.Limits.PerSource = 10, 4 })
	var open []net.Conn
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.0.0.2")}}
	for range 8 {
		c, err := d.DialContext(t.Context(), "tcp", r.nodes)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	eventually(t, "four refused", func() bool { return metric(t, r, "cryptctl_kms_connections_refused_total") == 4 })
	if n := metric(t, r, "cryptctl_kms_connections"); n != 4 {
		t.Errorf("%d are open", n)
	}
	if _, err := seal(within(t), plain(t, r.nodes, "127.0.0.3"), nodeA, make([]byte, 32)); err != nil {
		t.Error(err)
	}
	for _, c := range open {
		c.Close()
	}
	eventually(t, "room again", func() bool { return metric(t, r, "cryptctl_kms_connections") <= 1 })
	if _, err := seal(within(t), plain(t, r.nodes, "127.0.0.2"), nodeA, make([]byte, 32)); err != nil {
		t.Error(err)
	}
}

// TestHandshakes: who connects and says nothing, or little, or half of a
// handshake, is cut off in time, and holds up no one.
func TestHandshakes(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) { ca.secure(t)(o); o.Limits.Handshake = 300 * time.Millisecond })
	for i := range 30 {
		c, err := net.Dial("tcp", r.nodes)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		switch i % 3 {
		case 0: // silence
		case 1: // the first bytes of a TLS record, then drop by drop
			go func() {
				for _, b := range []byte{22, 3, 1, 1, 0, 1, 0, 0, 252, 3, 3, 0, 0, 0} {
					if _, err := c.Write([]byte{b}); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
		case 2: // a whole handshake, and no HTTP/2
			go func() {
				_ = tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(t.Context())
			}()
		}
	}
	enroll(t, provider(t, r.nodes, nodeA, ca.as(t, "")))
	begin := time.Now()
	eventually(t, "all are cut off", func() bool { return metric(t, r, "cryptctl_kms_connections") == 0 })
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("after %s", took)
	}
}

// TestHalfCalls: streams that are opened and never finished are bounded in number
// and in time.
func TestHalfCalls(t *testing.T) {
	r := fresh(t, func(o *server.Options) { o.Limits.Streams, o.Limits.Request = 20, 500*time.Millisecond })
	cc := plain(t, r.nodes, "")
	before := runtime.NumGoroutine()
	var open []grpc.ClientStream
	for range 20 {
		s, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, wire.KMSService_Unseal_FullMethodName)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, s)
	}
	full := func() bool {
		_, err := unseal(within(t), cc, nodeA, nil)
		return status.Code(err) == codes.ResourceExhausted
	}
	eventually(t, "no more streams", full)
	eventually(t, "room again", func() bool { return !full() })
	for _, s := range open {
		if err := s.RecvMsg(&wire.Response{}); err == nil {
			t.Error("a call without a request is answered")
		}
	}
	eventually(t, "no handler is left", func() bool { return runtime.NumGoroutine() <= before+10 })
}

// TestHeaders: a client cannot make the server keep large headers.
func TestHeaders(t *testing.T) {
	r := fresh(t, nil)
	cc := plain(t, r.nodes, "")
	err := cc.Invoke(within(t), "/x/"+strings.Repeat("x", 64<<10), &wire.Request{}, &wire.Response{})
	if code := status.Code(err); code != codes.Internal && code != codes.ResourceExhausted && code != codes.Unavailable {
		t.Errorf("%v", err)
	}
}

// TestDrain: what was asked before is answered, nothing is taken afterwards.
func TestDrain(t *testing.T) {
	r := fresh(t, nil)
	cc := plain(t, r.nodes, "")
	sealed, err := seal(within(t), cc, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	watch, err := healthpb.NewHealthClient(cc).Watch(within(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if res, err := watch.Recv(); err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("%v, %v", res, err)
	}
	r.pause.Store(int64(400 * time.Millisecond))
	const under = 20
	answers := make(chan error, under)
	for range under {
		go func() { _, err := unseal(within(t), cc, nodeA, sealed); answers <- err }()
	}
	eventually(t, "requests under way", func() bool { return metric(t, r, "cryptctl_kms_requests_working") == under })
	begin, drained := time.Now(), make(chan struct{})
	go func() { defer close(drained); r.stop() }()
	eventually(t, "not ready", func() bool { return r.Ready(t.Context()) != nil })
	get(t, r, "/readyz", http.StatusServiceUnavailable)
	get(t, r, "/healthz", http.StatusOK)
	time.Sleep(50 * time.Millisecond)
	if _, err := unseal(within(t), plain(t, r.nodes, ""), nodeA, sealed); status.Code(err) != codes.Unavailable {
		t.Errorf("a new call: %v", err)
	}
	if _, err := provider(t, r.nodes, nodeA, within300).Recover(t.Context(), keys.Request{}, nil); err == nil {
		t.Error("a new call of our provider is answered")
	}
	for range under {
		if err := <-answers; err != nil {
			t.Errorf("under way: %v", err)
		}
	}
	<-drained
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("drained after %s, with a stream that has no end", took)
	}
}

// TestDrainEnds: a drain takes no longer than it may.
func TestDrainEnds(t *testing.T) {
	r := fresh(t, nil)
	cc := plain(t, r.nodes, "")
	if _, err := cc.NewStream(within(t), &grpc.StreamDesc{ClientStreams: true}, wire.KMSService_Unseal_FullMethodName); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	begin := time.Now()
	r.Drain(ctx)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("after %s", took)
	}
}

// TestServices: health and reflection say what there is.
func TestServices(t *testing.T) {
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	ctx := within(t)
	cc := ca.operator(t, r.nodes, "")
	for _, service := range []string{"", "sidero.kms.KMSService"} {
		if res, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{Service: service}); err != nil || res.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q: %v, %v", service, res, err)
		}
	}
	stream, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	text := res.String()
	if !strings.Contains(text, "sidero.kms.KMSService") || strings.Contains(text, "cryptctl.kms.v1.Admin") {
		t.Errorf("%s", text)
	}
	if err := r.log.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "not serving", func() bool {
		res, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
		return err == nil && res.GetStatus() == healthpb.HealthCheckResponse_NOT_SERVING
	})
}

// TestMetrics: the text is what Prometheus reads, and counts what was.
func TestMetrics(t *testing.T) {
	r := fresh(t, nil)
	p := provider(t, r.nodes, nodeA, nil)
	pass, token := enroll(t, p)
	opens(t, p, token, pass)
	_, _ = provider(t, r.nodes, nodeB, nil).Recover(t.Context(), keys.Request{}, token)
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := healthpb.NewHealthClient(plain(t, r.nodes, "")).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "the end of a stream", func() bool {
		return metric(t, r, `cryptctl_kms_calls_total{method="grpc.health.v1.Health/Watch",code="Canceled"}`) == 1
	})
	for name, want := range map[string]int{
		`cryptctl_kms_call_seconds_count{method="grpc.health.v1.Health/Watch"}`:                   -1, // as long as the client liked
		`cryptctl_kms_calls_total{method="sidero.kms.KMSService/Seal",code="OK"}`:                 1,
		`cryptctl_kms_calls_total{method="sidero.kms.KMSService/Unseal",code="OK"}`:               1,
		`cryptctl_kms_calls_total{method="sidero.kms.KMSService/Unseal",code="PermissionDenied"}`: 1,
		`cryptctl_kms_call_seconds_count{method="sidero.kms.KMSService/Seal"}`:                    1,
		`cryptctl_kms_call_seconds_count{method="sidero.kms.KMSService/Unseal"}`:                  2,
		`cryptctl_kms_call_seconds_bucket{method="sidero.kms.KMSService/Unseal",le="+Inf"}`:       2,
		`cryptctl_kms_call_seconds_count`:                                                         -1, // of all kinds together it says nothing
		`cryptctl_kms_wait_seconds_count`:                                                         3, `cryptctl_kms_wait_seconds_bucket{le="+Inf"}`: 3,
		`cryptctl_kms_overload_total`: 0, `cryptctl_kms_requests_waiting`: 0,
	} {
		if got := metric(t, r, name); got != want {
			t.Errorf("%s is %d, not %d", name, got, want)
		}
	}
	types := map[string]bool{}
	for line := range strings.Lines(get(t, r, "/metrics", http.StatusOK)) {
		name, rest, _ := strings.Cut(strings.TrimPrefix(line, "# TYPE "), " ")
		switch {
		case strings.HasPrefix(line, "# HELP "):
		case strings.HasPrefix(line, "# TYPE "):
			if types[name] {
				t.Errorf("%s is there twice", name)
			}
			types[name] = true
		default:
			base, _, _ := strings.Cut(name, "{")
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			var value float64
			if n, err := fmt.Sscan(rest, &value); !types[base] || n != 1 || err != nil {
				t.Errorf("%q", line)
			}
		}
	}
}
