package logging

import (
	"context"
	"errors"
	"log/slog"
	"slices"
)

// Handler is a slog.Handler that hands records to a local handler and to a Sender.
type Handler struct {
	sender *Sender
	local  slog.Handler
	attrs  []slog.Attr // named by their path
	group  string
}

// Handler returns a handler for a logger: each record goes to local, and then to
// the destinations there are at that time, if local takes records of its level.
// Records that come before the first [Sender.Set] wait for it.
func (s *Sender) Handler(local slog.Handler) *Handler { return &Handler{sender: s, local: local} }

// Enabled implements slog.Handler.
func (h *Handler) Enabled(ctx context.Context, l slog.Level) bool { return h.local.Enabled(ctx, l) }

// Handle implements slog.Handler. It does not wait for a destination.
func (h *Handler) Handle(ctx context.Context, r slog.Record) error {
	err := h.local.Handle(ctx, r.Clone())
	if h.sender.wanted(false) {
		h.sender.send(false, fieldsOf(h.sender.opts.Service, r, h.attrs, h.group))
	}
	if err != nil {
		return errors.Join(errors.New("local log"), err)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.local, next.attrs = h.local.WithAttrs(attrs), slices.Clip(h.attrs)
	for _, a := range attrs {
		if h.group != "" {
			a.Key = path(h.group, a.Key)
		}
		next.attrs = append(next.attrs, a)
	}
	return &next
}

// WithGroup implements slog.Handler.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.local, next.group = h.local.WithGroup(name), path(h.group, name)
	return &next
}
