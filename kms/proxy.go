package kms

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// maxProxyAnswer bounds the headers of a proxy's answer in bytes.
const maxProxyAnswer = 16 << 10

// dialer connects to an address, through the proxy that the environment names for
// it. gRPC's own goes on waiting for a proxy that says nothing after its context
// has ended.
func dialer(ctx context.Context, address string) (net.Conn, error) {
	// As gRPC does: the proxy of https, whatever the scheme.
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: address}})
	if err != nil {
		return nil, errors.New("the proxy of HTTPS_PROXY cannot be used") // err may hold a password
	}
	if proxy == nil {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	if proxy.Scheme != "http" {
		return nil, fmt.Errorf("the proxy %s of HTTPS_PROXY is spoken to by %s, and only http is known here; write http:// in front of it", proxy.Host, proxy.Scheme)
	}
	host := proxy.Host
	if proxy.Port() == "" {
		host = net.JoinHostPort(proxy.Hostname(), "80")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	through, err := connect(ctx, conn, proxy.User, address)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("proxy %s: %w", proxy.Host, err)
	}
	return through, nil
}

// connect asks a proxy for a tunnel (RFC 9110, 9.3.6). The end of the context ends
// it.
func connect(ctx context.Context, conn net.Conn, user *url.Userinfo, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Host: address}, Host: address, Header: http.Header{}}
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(io.LimitReader(conn, maxProxyAnswer))
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("refuses a connection to %s with status %d", address, res.StatusCode)
	}
	if !stop() { // the deadline is set, or about to be
		return nil, ctx.Err()
	}
	early, err := r.Peek(r.Buffered())
	return &tunnel{conn, io.MultiReader(bytes.NewReader(bytes.Clone(early)), conn)}, err
}

// tunnel is a connection through a proxy. What came right behind the proxy's
// answer is read first.
type tunnel struct {
	net.Conn
	from io.Reader
}

// Read implements io.Reader.
func (t *tunnel) Read(b []byte) (int, error) { return t.from.Read(b) }
