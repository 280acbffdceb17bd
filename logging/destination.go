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

// MaxDestinations bounds the destinations of a configuration: each has memory of its
// own.
const MaxDestinations = 16

// CheckNumber says why there cannot be so many destinations.
func CheckNumber(n int) error {
	if n > MaxDestinations {
		return fmt.Errorf("there are more than %d destinations of logs, those of the kernel's messages included; write fewer", MaxDestinations)
	}
	return nil
}

// CheckFormat says why a destination's format cannot be used.
func CheckFormat(name string) error {
	if name != "json_lines" {
		return errors.New("is not json_lines, the only format there is; write format: json_lines")
	}
	return nil
}

// MaxTags bounds the tags of a destination in bytes, as they are in each line.
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
	if _, ok := tags[""]; ok {
		return errors.New("a tag has no name; write it as name: value")
	}
	if n := len(fields{}.with(tags).encode()); n > MaxTags {
		return fmt.Errorf("the tags are %d bytes of each line, and at most %d can be; write fewer or shorter ones", n, MaxTags)
	}
	return nil
}

// String gives the destination as a URL.
func (d Destination) String() string { return d.Network + "://" + d.Address }
