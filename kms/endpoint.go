package kms

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

// defaultPort is the port of an endpoint that names none, whatever its scheme:
// gRPC's resolver, and so Talos, has no other.
const defaultPort = "443"

// Endpoint is where a key server is.
type Endpoint struct {
	scheme string // grpc, grpcs, https
	host   string
	port   string
}

// ParseEndpoint reads an endpoint: grpc://host:port in plaintext, grpcs:// or
// https:// with TLS. The port is 443 if there is none. As in Talos, a path and
// what follows is ignored. Its errors do not show the endpoint, which may hold a
// password.
func ParseEndpoint(text string) (Endpoint, error) {
	const schemes = "write https:// for TLS or grpc:// for plaintext in front of the host"
	if !strings.Contains(text, "://") {
		return Endpoint{}, errors.New("the endpoint of the key server has no scheme; " + schemes)
	}
	u, err := url.Parse(text)
	if err != nil {
		return Endpoint{}, errors.New("the endpoint of the key server is not a URL; write scheme://host:port, such as https://kms.example.com:443")
	}
	e := Endpoint{u.Scheme, u.Hostname(), u.Port()}
	if e.port == "" {
		e.port = defaultPort
	}
	n, err := strconv.ParseUint(e.port, 10, 16)
	switch {
	case e.scheme != "grpc" && e.scheme != "grpcs" && e.scheme != "https":
		return Endpoint{}, errors.New("the endpoint of the key server has an unknown scheme; " + schemes)
	case u.User != nil:
		return Endpoint{}, errors.New("the endpoint of the key server has a user name, which the protocol has no use for; remove what is between :// and @")
	case e.host == "":
		return Endpoint{}, errors.New("the endpoint of the key server has no host; write scheme://host:port")
	case err != nil || n == 0:
		return Endpoint{}, errors.New("the port of the key server's endpoint is out of range; write one from 1 to 65535")
	}
	return e, nil
}

// Plaintext reports whether the endpoint is spoken to without TLS.
func (e Endpoint) Plaintext() bool { return e.scheme == "grpc" }

func (e Endpoint) secure() bool { return !e.Plaintext() }

// String returns the endpoint as a URL with its port.
func (e Endpoint) String() string { return e.scheme + "://" + net.JoinHostPort(e.host, e.port) }

// target is the endpoint in gRPC's language. Its own resolver would wait for a name
// server longer than for its context; this way the name is left to the dialer,
// which does not, or to the proxy.
func (e Endpoint) target() string {
	return (&url.URL{Scheme: "passthrough", Path: "/" + net.JoinHostPort(e.host, e.port)}).String()
}

// parseEndpoints reads a list in which each is there once.
func parseEndpoints(texts []string) ([]Endpoint, error) {
	if len(texts) == 0 {
		return nil, errors.New("there is no endpoint of a key server; give at least one, such as https://kms.example.com")
	}
	if len(texts) > maxEndpoints {
		return nil, fmt.Errorf("%d endpoints of key servers; at most %d can be tried in the time of one call", len(texts), maxEndpoints)
	}
	var all []Endpoint
	for i, text := range texts {
		e, err := ParseEndpoint(text)
		if err != nil {
			return nil, fmt.Errorf("endpoint %d: %w", i+1, err)
		}
		for _, other := range all {
			if e == other {
				return nil, fmt.Errorf("endpoint %d is also there before it; remove one", i+1)
			}
		}
		all = append(all, e)
	}
	return all, nil
}

// maxEndpoints bounds how thin the time of a call is spread.
const maxEndpoints = 16
