package server_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/wire"
	"github.com/cryptctl/cryptctl/role"
)

// TestWindows: what one connection can have the server keep does not grow: not with
// calls that read nothing, nor with those that have to wait for their answers to be
// read.
func TestWindows(t *testing.T) {
	t.Parallel()
	const most = 64 << 20
	ask, err := proto.Marshal(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "sidero.kms.KMSService"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, method := range map[string]string{
		"reflection": reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName,
		"unseal":     wire.KMSService_Unseal_FullMethodName,
		"watch":      healthpb.Health_Watch_FullMethodName,
		"unknown":    "/a.b/C",
	} {
		t.Run(name, func(t *testing.T) {
			r := fresh(t, nil)
			f := dialFrames(t, r.nodes, "127.0.0.2", http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for id := uint32(1); id < 200; id += 2 {
				f.open(t, id, method)
				f.mu.Lock()
				for range 20 {
					if err := f.WriteData(id, false, append([]byte{0, 0, 0, 0, byte(len(ask))}, ask...)); err != nil {
						t.Fatal(err)
					}
				}
				f.mu.Unlock()
			}
			time.Sleep(100 * time.Millisecond) // answers that nobody reads
			if sent := f.pour(most); sent > 8<<20 {
				t.Errorf("the server took %d KiB", sent>>10)
			}
		})
	}
}

// TestHeldStreams: a source with as many calls as there may be, none of them
// complete, keeps no other source from an answer.
func TestHeldStreams(t *testing.T) {
	t.Parallel()
	r := fresh(t, func(o *server.Options) { o.Limits.Streams = 100 })
	quiet := plain(t, r.nodes, "127.0.0.3")
	sealed, err := seal(within(t), quiet, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		f := dialFrames(t, r.nodes, "127.0.0.2")
		for id := uint32(1); id < 60; id += 2 {
			f.open(t, id, wire.KMSService_Unseal_FullMethodName)
		}
	}
	bad := plain(t, r.nodes, "127.0.0.2")
	eventually(t, "all are held", func() bool {
		_, err := unseal(within(t), bad, nodeA, sealed)
		return status.Code(err) == codes.ResourceExhausted
	})
	for range 50 {
		if _, err := unseal(within(t), quiet, nodeA, sealed); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBudgets: calls for health and reflection have bounds of their own, and take
// no room of nodes.
func TestBudgets(t *testing.T) {
	t.Parallel()
	r := fresh(t, func(o *server.Options) { o.Limits.Streams = 10 })
	reflects := func(cc *grpc.ClientConn) error {
		s, err := reflectionpb.NewServerReflectionClient(cc).ServerReflectionInfo(t.Context())
		if err == nil {
			if err = s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err == nil {
				_, err = s.Recv()
			}
		}
		return err
	}
	cc := plain(t, r.nodes, "127.0.0.2")
	for i := range 16 {
		if err := reflects(cc); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	if err := reflects(cc); status.Code(err) != codes.ResourceExhausted && status.Code(err) != codes.Unknown {
		t.Errorf("one more: %v", err)
	}
	if err := reflects(plain(t, r.nodes, "127.0.0.3")); err != nil {
		t.Errorf("of another source: %v", err)
	}
	watches := plain(t, r.nodes, "127.0.0.2")
	for range 20 {
		s, err := healthpb.NewHealthClient(watches).Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := seal(within(t), plain(t, r.nodes, "127.0.0.2"), nodeA, make([]byte, 32)); err != nil {
		t.Errorf("a node: %v", err)
	}
}

// TestFullOfConnections: two sources cannot hold all connections.
func TestFullOfConnections(t *testing.T) {
	t.Parallel()
	r := fresh(t, func(o *server.Options) { o.Limits.Connections = 16 })
	for _, from := range []string{"127.0.0.2", "127.0.0.3"} {
		for range 12 {
			c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).DialContext(t.Context(), "tcp", r.nodes)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
		}
	}
	eventually(t, "no room", func() bool { return metric(t, r, "cryptctl_kms_connections") == 16 })
	for i := range 5 {
		cc := plain(t, r.nodes, "127.0.0.4")
		if _, err := seal(within(t), cc, nodeA, make([]byte, 32)); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
}

// TestOperatorsIdle: connections of strangers, even if there are as many as the
// listener of operators may have, keep no operator out, and do not stay.
func TestOperatorsIdle(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	for i := range 80 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i/8+1))}}
		c, err := d.DialContext(t.Context(), "tcp", r.operators)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "no room", func() bool { return metric(t, r, "cryptctl_kms_connections") == 64 })
	begin := time.Now()
	if code := call(within(t), ca.operator(t, r.operators, "root", role.Admin), "GetKEKStatus"); code != codes.OK {
		t.Error(code)
	}
	eventually(t, "they are gone", func() bool { return metric(t, r, "cryptctl_kms_connections") == 1 })
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("after %s", took)
	}
}

// TestOperatorsOfOne: one source has a few connections to the listener of operators.
func TestOperatorsOfOne(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, ca.secure(t))
	for range 64 {
		c, err := net.Dial("tcp", r.operators)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "the others are closed", func() bool { return metric(t, r, "cryptctl_kms_connections_refused_total") == 56 })
}

// TestStrangersOnRecord: who shows no certificate cannot fill the audit log, nor the
// other one, with calls of operators.
func TestStrangersOnRecord(t *testing.T) {
	t.Parallel()
	ca, log := newParty(t), &lines{}
	r := fresh(t, func(o *server.Options) {
		ca.secure(t)(o)
		o.AdminOnNodes, o.Log = true, slog.New(slog.NewTextHandler(log, nil))
	})
	const calls = 200
	cc, before := ca.operator(t, r.nodes, ""), r.log.Head().Seq
	for range calls {
		if code := call(within(t), cc, "RotateKEK"); code != codes.Unauthenticated {
			t.Fatal(code)
		}
	}
	if n := r.log.Head().Seq - before; n != 0 {
		t.Errorf("%d records", n)
	}
	if n := log.count("without a certificate"); n == 0 || n > 10 {
		t.Errorf("%d lines", n)
	}
	if n := metric(t, r, "cryptctl_kms_role_refused_total"); n != calls {
		t.Errorf("%d counted", n)
	}
	if code := call(within(t), ca.operator(t, r.nodes, "reader", role.Reader), "RotateKEK"); code != codes.PermissionDenied {
		t.Error(code)
	}
	if n := r.log.Head().Seq - before; n != 1 {
		t.Errorf("%d records of a reader", n)
	}
}

// TestFollowOnNodes: where operators are answered on the listener of nodes, the time
// that a call of a node may take does not end theirs.
func TestFollowOnNodes(t *testing.T) {
	t.Parallel()
	ca := newParty(t)
	r := fresh(t, func(o *server.Options) {
		ca.secure(t)(o)
		o.AdminOnNodes, o.Limits.Stream, o.Limits.Request = true, 300*time.Millisecond, 300*time.Millisecond
	})
	s, err := wire.NewAdminClient(ca.operator(t, r.nodes, "reader", role.Reader)).TailAudit(within(t), &wire.TailAuditRequest{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(700 * time.Millisecond)
	if _, err := seal(within(t), ca.operator(t, r.nodes, ""), nodeA, make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	if rec, err := s.Recv(); err != nil || rec.GetNode() != nodeA {
		t.Errorf("%v, %v", rec, err)
	}
}

// TestDrainSilent: a drain has its time, whoever is connected and says nothing, and
// nothing new is answered meanwhile.
func TestDrainSilent(t *testing.T) {
	t.Parallel()
	r := fresh(t, nil)
	cc := plain(t, r.nodes, "")
	sealed, err := seal(within(t), cc, nodeA, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", r.nodes)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "both are connected", func() bool { return metric(t, r, "cryptctl_kms_connections") == 2 })
	r.pause.Store(int64(2 * time.Second))
	under := make(chan error, 1)
	go func() { _, err := unseal(within(t), cc, nodeA, sealed); under <- err }()
	eventually(t, "a request under way", func() bool { return metric(t, r, "cryptctl_kms_requests_working") == 1 })
	begin, done := time.Now(), make(chan struct{})
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.Drain(ctx)
		close(done)
	}()
	eventually(t, "not ready", func() bool { return r.Ready(t.Context()) != nil })
	get(t, r, "/readyz", http.StatusServiceUnavailable)
	if _, err = unseal(within(t), cc, nodeA, sealed); status.Code(err) != codes.Unavailable {
		t.Errorf("a new call: %v", err)
	}
	<-done
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("a drain that may take 1s took %s", took)
	}
	if err := <-under; status.Code(err) != codes.Unavailable {
		t.Errorf("cut by the end of the drain: %v", err)
	}
}

// TestAge: a connection gets no older than it may.
func TestAge(t *testing.T) {
	t.Parallel()
	r := fresh(t, func(o *server.Options) { o.Limits.Age = 200 * time.Millisecond })
	f := dialFrames(t, r.nodes, "127.0.0.2")
	eventually(t, "the server ends it", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.ended
	})
	cc := plain(t, r.nodes, "")
	for range 20 { // a client with calls connects anew
		if _, err := seal(within(t), cc, nodeA, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
