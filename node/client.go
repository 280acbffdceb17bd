package node

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/cryptctl/cryptctl/config"
)

// Client talks to a node daemon.
type Client struct {
	Socket string // default [Socket]
	// TryTimeout is after how long an Apply in mode Try is taken back; default that of
	// the daemon.
	TryTimeout time.Duration
}

// Status returns the node's status.
func (c Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodGet, "/status", nil, &s)
}

// Apply brings a machine configuration to the node. What it returns beside an
// error was done all the same.
func (c Client) Apply(ctx context.Context, text []byte, mode Mode) (a Applied, err error) {
	query := url.Values{"mode": {string(mode)}}
	if c.TryTimeout != 0 {
		query.Set("timeout", c.TryTimeout.String())
	}
	return a, c.call(ctx, http.MethodPost, "/apply?"+query.Encode(), text, &a)
}

// Reset destroys volumes; see [Node.Reset].
func (c Client) Reset(ctx context.Context, labels []string, reboot bool) (s Status, err error) {
	body, err := json.Marshal(resetCall{labels, reboot})
	if err != nil {
		return s, err
	}
	return s, c.call(ctx, http.MethodPost, "/reset", body, &s)
}

// Boot has the node boot again what failed.
func (c Client) Boot(ctx context.Context) (s Status, err error) {
	return s, c.call(ctx, http.MethodPost, "/boot", nil, &s)
}

func (c Client) call(ctx context.Context, method, path string, body []byte, result any) error {
	socket := c.Socket
	if socket == "" {
		socket = Socket
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://node"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return noAnswer(socket, err)
	}
	defer resp.Body.Close()
	var a answer
	if err := json.NewDecoder(io.LimitReader(resp.Body, config.MaxSource)).Decode(&a); err != nil {
		return fmt.Errorf("the node daemon's answer: %w", err)
	}
	if len(a.Result) > 0 && string(a.Result) != "null" {
		if err := json.Unmarshal(a.Result, result); err != nil {
			return fmt.Errorf("the node daemon's answer: %w", err)
		}
	}
	if a.Error != "" {
		return errors.New(a.Error)
	}
	return nil
}

// noAnswer says why there is none, without what carries the question.
func noAnswer(socket string, err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		err = e.Err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("no node daemon answers on %s; start it (cryptctl boot), or name its socket with --socket: %w", socket, err)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return fmt.Errorf("the node daemon does not answer on %s: %w", socket, err)
}
