package logging

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
)

// Destination is where lines go.
type Destination struct {
	Network string            // "tcp" or "udp"
	Address string            // HOST:PORT
	Tags    map[string]string // put into each line, in the place of fields of the same name
	Kernel  bool              // the kernel's messages, and nothing else
}

// MaxTags bounds the tags of a destination in bytes, names included: they are in
// each line.
const MaxTags = 8 << 10

// ParseEndpoint reads tcp://HOST:PORT or udp://HOST:PORT. As in Talos a path of /
// may follow.
func ParseEndpoint(text string) (network, address string, err error) {
	const form = "write udp:// or tcp://, host and port, such as udp://127.0.0.1:12345"
	u, err := url.Parse(text)
	if err != nil {
		return "", "", errors.New("is not a URL; " + form)
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Scheme != "tcp" && u.Scheme != "udp":
		return "", "", errors.New("has a scheme that is neither tcp nor udp; " + form)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return "", "", errors.New("has more than host and port; " + form)
	case u.Hostname() == "":
		return "", "", errors.New("has no host; " + form)
	case err != nil || port == 0:
		return "", "", errors.New("has no port from 1 to 65535; " + form)
	}
	return u.Scheme, net.JoinHostPort(u.Hostname(), u.Port()), nil
}

// CheckTags says why tags cannot be used.
func CheckTags(tags map[string]string) error {
	n := 0
	for name, value := range tags {
		if name == "" {
			return errors.New("a tag has no name")
		}
		n += len(name) + len(value)
	}
	if n > MaxTags {
		return fmt.Errorf("the tags have %d bytes, and at most %d go into each line", n, MaxTags)
	}
	return nil
}

// String gives the destination as a URL.
func (d Destination) String() string { return d.Network + "://" + d.Address }
