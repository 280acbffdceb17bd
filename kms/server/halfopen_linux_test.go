package server_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/cryptctl/cryptctl/kms/server"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// vanish has the kernel drop whatever arrives for a connection: to the server the
// other side is gone, without a word.
func vanish(t *testing.T, c *net.TCPConn) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	err = raw.Control(func(fd uintptr) {
		if err := unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop}); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestHalfOpen: clients that are gone without a word, idle, or with calls that
// have begun, are cut off in time, with all that was kept for them.
func TestHalfOpen(t *testing.T) {
	const clients = 20
	r := fresh(t, func(o *server.Options) { o.Limits.Silence = time.Second })
	for i := range clients {
		c := halfOpen(t, r.nodes)
		cc, conn := c.cc, c.conn
		if i%2 == 0 {
			if _, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, wire.KMSService_Unseal_FullMethodName); err != nil {
				t.Fatal(err)
			}
		} else if _, err := seal(within(t), cc, nodeA, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		vanish(t, conn())
	}
	if n := metric(t, r, "cryptctl_kms_connections"); n != clients {
		t.Fatalf("%d connections", n)
	}
	begin, quiet := time.Now(), plain(t, r.nodes, "127.0.0.2")
	eventually(t, "all are cut off", func() bool {
		if _, err := seal(within(t), quiet, nodeB, make([]byte, 32)); err != nil {
			t.Fatal(err)
		}
		return metric(t, r, "cryptctl_kms_connections") == 1
	})
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("after %s", took)
	}
	if text := get(t, r, "/metrics", http.StatusOK); !strings.Contains(text, "cryptctl_kms_requests_waiting 0\n") {
		t.Errorf("something waits:\n%s", text)
	}
}

// gone is a client that will vanish.
type gone struct {
	cc   *grpc.ClientConn
	conn func() *net.TCPConn // once it is connected
}

func halfOpen(t *testing.T, address string) gone {
	t.Helper()
	var mu sync.Mutex
	var conn *net.TCPConn
	cc := connect(t, address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if conn != nil {
				<-ctx.Done() // it does not come back
				return nil, ctx.Err()
			}
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", to)
			if err == nil {
				conn = c.(*net.TCPConn)
			}
			return c, err
		}))
	return gone{cc, func() *net.TCPConn {
		mu.Lock()
		defer mu.Unlock()
		return conn
	}}
}
