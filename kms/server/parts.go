package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/cryptctl/cryptctl/kms/keeper"
	"github.com/cryptctl/cryptctl/kms/kek"
)

// readyWait is how long /readyz may look at the parts.
const readyWait = 2 * time.Second

// parts is what was last seen of the store, the key-encryption key and the audit
// log.
type parts struct {
	mu   sync.Mutex
	last keeper.Health
}

// one is a part with its names: that of a metric, and the one for people.
type one struct {
	name, text string
	err        error
}

func each(h keeper.Health) []one {
	return []one{{"store", "store", h.Store}, {"kek", "key-encryption key", h.KEK}, {"audit", "audit log", h.Audit}}
}

// saw notes how the parts are, and puts changes in the log.
func (p *parts) saw(log *slog.Logger, now keeper.Health) {
	p.mu.Lock()
	before := p.last
	p.last = now
	p.mu.Unlock()
	was := each(before)
	for i, part := range each(now) {
		switch is, was := away(part.err), away(was[i].err); {
		case is && !was:
			log.Error("not available", "part", part.text, "error", part.err)
		case was && part.err == nil:
			log.Info("available again", "part", part.text)
		}
	}
}

// away reports whether an error is worth a line: not that there is no answer yet.
func away(err error) bool { return err != nil && !errors.Is(err, keeper.ErrNotAsked) }

func (p *parts) state() keeper.Health {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// ready answers /readyz: 503 and why, if no node can be answered. A key-encryption
// key that went away keeps some nodes from an answer, not those whose keys are in
// use; to take the server out of service would cut off those, too.
func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyWait)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
	switch err := s.parts.state().KEK; {
	case errors.Is(err, kek.ErrVersion):
		fmt.Fprintf(w, "only nodes whose keys the keyset opens are answered: %v\n", err)
	case err != nil:
		fmt.Fprintf(w, "only nodes whose keys are in use are answered: key-encryption key: %v\n", err)
	}
}
