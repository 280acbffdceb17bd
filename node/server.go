package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/secret"
)

// Socket is where a node daemon answers.
const Socket = "/run/cryptctl.sock"

// Listen makes the socket, which only root may use. A stale one is replaced.
func Listen(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another daemon answers there", path)
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(path, 0o600)
}

// Serve answers [Client] until the listener is closed:
//
//	GET  /status                    Status
//	POST /apply?mode=M  config      Applied; in mode try &timeout=D, such as 2m
//	POST /reset         resetCall   Status
//	POST /boot                      Status; boots again what failed
//
// An error is {"error": "..."} with status 422, beside what was done all the
// same.
func (n *Node) Serve(l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { reply(w, n.Status(), nil) })
	mux.HandleFunc("POST /apply", n.serveApply)
	mux.HandleFunc("POST /reset", n.serveReset)
	mux.HandleFunc("POST /boot", func(w http.ResponseWriter, _ *http.Request) {
		err := n.Boot(context.Background()) // goes on when the client leaves
		reply(w, n.Status(), err)
	})
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	if err := s.Serve(l); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// answer is the body of every reply.
type answer struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

func reply(w http.ResponseWriter, result any, err error) {
	raw, encodeErr := json.Marshal(result)
	a := answer{Result: raw}
	if err = errors.Join(err, encodeErr); err != nil {
		a.Error = err.Error()
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	json.NewEncoder(w).Encode(a) // the client is gone, or it is not
	if f, ok := w.(http.Flusher); ok {
		f.Flush()
	}
}

func (n *Node) serveApply(w http.ResponseWriter, r *http.Request) {
	text, err := secret.Read(r.Body, config.MaxSource)
	if err != nil {
		reply(w, nil, fmt.Errorf("read the configuration: %w", err))
		return
	}
	defer text.Wipe()
	a, err := n.applyAs(r.URL.Query(), text.Bytes())
	reply(w, a, err)
	if err == nil && a.Reboot && a.Mode == Auto {
		n.reboot()
	}
}

// applyAs is Apply as a query says, which goes on when the client leaves.
func (n *Node) applyAs(query url.Values, text []byte) (*Applied, error) {
	var timeout time.Duration
	if lasts := query.Get("timeout"); lasts != "" {
		var err error
		if timeout, err = time.ParseDuration(lasts); err != nil {
			return nil, fmt.Errorf("timeout: %w", err)
		}
	}
	return n.applyFor(context.Background(), text, Mode(query.Get("mode")), timeout)
}

// resetCall is what reset is asked with.
type resetCall struct {
	Labels []string `json:"labels"`
	Reboot bool     `json:"reboot"`
}

func (n *Node) serveReset(w http.ResponseWriter, r *http.Request) {
	var call resetCall
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&call); err != nil {
		reply(w, nil, fmt.Errorf("read the request: %w", err))
		return
	}
	err := n.Reset(context.Background(), call.Labels)
	if call.Reboot && isBusy(err) {
		err = nil // the wipe is noted, and the reboot ends what is in its way
	}
	reply(w, n.Status(), err)
	if err == nil && call.Reboot {
		n.reboot()
	}
}

func (n *Node) reboot() {
	if n.opts.Reboot != nil {
		go n.opts.Reboot()
	}
}

// isBusy reports whether something is in use.
func isBusy(err error) bool {
	var busy *mapping.BusyError
	return errors.As(err, &busy)
}
