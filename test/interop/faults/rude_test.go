package faults_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/test/interop/served"
)

// rude is a client that says what it likes.
type rude struct {
	net.Conn
	tcp     *net.TCPConn
	frames  *http2.Framer
	encoded bytes.Buffer
	encoder *hpack.Encoder
}

// dial connects from an address, and no more.
func dial(s *served.Server, from string) (*rude, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", s.Address("nodes"))
	if err != nil {
		return nil, err
	}
	r := &rude{Conn: c, tcp: c.(*net.TCPConn)}
	r.encoder = hpack.NewEncoder(&r.encoded)
	return r, nil
}

// handshake does that of TLS, if there is a configuration.
func (r *rude) handshake(ctx context.Context, config *tls.Config) error {
	if config != nil {
		c := tls.Client(r.tcp, config)
		if err := c.HandshakeContext(ctx); err != nil {
			return err
		}
		r.Conn = c
	}
	r.frames = http2.NewFramer(r.Conn, r.Conn)
	return nil
}

// greet begins HTTP/2.
func (r *rude) greet() error {
	if _, err := io.WriteString(r.Conn, http2.ClientPreface); err != nil {
		return err
	}
	return r.frames.WriteSettings()
}

// header is the block of a call of Unseal.
func (r *rude) header() []byte {
	r.encoded.Reset()
	for _, h := range [][2]string{
		{":method", "POST"},
		{":scheme", "https"},
		{":path", "/sidero.kms.KMSService/Unseal"},
		{":authority", "kms"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		_ = r.encoder.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	return bytes.Clone(r.encoded.Bytes())
}

// open opens a stream: a call whose request is still to come.
func (r *rude) open(stream uint32) error {
	return r.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: r.header(), EndHeaders: true})
}

// vanish has the kernel drop whatever arrives: to the server the other side is
// gone, without a word.
func (r *rude) vanish() error {
	raw, err := r.tcp.SyscallConn()
	if err != nil {
		return err
	}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop})
	})
	if err == nil {
		err = failed
	}
	return err
}

// leave comes back, should it have vanished, and resets the connection.
func (r *rude) leave() {
	if raw, err := r.tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
	}
	_ = r.tcp.SetLinger(0)
	_ = r.tcp.Close()
}

// usage is what a process holds.
type usage struct {
	rss     int // KiB of its own, without mapped files
	files   int
	threads int
}

func usageOf(t *testing.T, pid int) (u usage) {
	t.Helper()
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch f[0] {
		case "RssAnon:":
			u.rss, _ = strconv.Atoi(f[1])
		case "Threads:":
			u.threads, _ = strconv.Atoi(f[1])
		}
	}
	fds, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil || u.rss == 0 {
		t.Fatal(u, err)
	}
	u.files = len(fds)
	return u
}
