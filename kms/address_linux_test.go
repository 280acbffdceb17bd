package kms_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// resolve is a name server that knows these addresses for every name, in this
// order; without any it says that there are none.
func resolve(t *testing.T, addresses ...[4]byte) (at string) {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Header, m.Additionals = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, nil
			for _, a := range addresses {
				if q.Type == dnsmessage.TypeA {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: &dnsmessage.AResource{A: a},
					})
				}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = c.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return c.LocalAddr().String()
}

// deaf takes up an address and port so that nobody who connects gets an answer, as
// from a machine that is switched off: its queue is full.
func deaf(t *testing.T, address [4]byte, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: address}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	to := (&net.TCPAddr{IP: address[:], Port: port}).String()
	for range 8 {
		c, err := net.DialTimeout("tcp", to, 200*time.Millisecond)
		if err != nil {
			return
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("everyone who connects is let in: the test would show nothing")
}

// TestAddresses: of a name's addresses, one that does not answer leaves time for
// the next.
func TestAddresses(t *testing.T) {
	t.Parallel()
	f := newFake()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, l, f, nil)
	deaf(t, [4]byte{127, 0, 0, 2}, l.Addr().(*net.TCPAddr).Port)
	dns := resolve(t, [4]byte{127, 0, 0, 2}, [4]byte{127, 0, 0, 1})
	begin := time.Now()
	stdout, stderr := child(t, "enroll", "KMS_TEST_ENDPOINT=grpc://kms.example.com:"+portOf(l.Addr().String()), "KMS_TEST_BUDGET=3s", "KMS_TEST_DNS="+dns)
	if stdout != "enrolled: <nil>\n" {
		t.Errorf("%s%s", stdout, stderr)
	}
	if took := time.Since(begin); took < time.Second || len(f.seen()) != 1 {
		t.Errorf("after %s, asked %d times: was the dead address tried at all?", took, len(f.seen()))
	}
}

// TestNameServer: a name server that does not answer, or that knows no address,
// holds no call beyond its time and leaves nothing of gRPC's behind.
func TestNameServer(t *testing.T) {
	t.Parallel()
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for server, want := range map[string]string{silent.LocalAddr().String(): "no answer within", resolve(t): "no such host"} {
		begin := time.Now()
		stdout, stderr := child(t, "enroll", "KMS_TEST_ENDPOINT=https://kms.example.com", "KMS_TEST_BUDGET=500ms", "KMS_TEST_DNS="+server)
		if !strings.HasPrefix(stdout, "enrolled: key server https://kms.example.com:443: ") || !strings.Contains(stdout, want) || strings.Contains(stdout, "left:") {
			t.Errorf("%s%s, must be about %q", stdout, stderr, want)
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("took %s", took)
		}
	}
	if err := silent.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := silent.ReadFrom(make([]byte, 1500)); err != nil {
		t.Errorf("the silent name server was not asked: %v", err)
	}
}
