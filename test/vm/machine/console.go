package machine

import (
	"bytes"
	"context"
	"regexp"
	"sync"
)

// Console is what the machine printed on its serial port.
type Console struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed at every write
}

func newConsole() *Console { return &Console{changed: make(chan struct{})} }

// Write takes what the machine prints.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, bytes.ReplaceAll(p, []byte{'\r'}, nil)...)
	close(c.changed)
	c.changed = make(chan struct{})
	return len(p), nil
}

// String returns all of it.
func (c *Console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.text)
}

// Wait returns the first match of a pattern in what was or will be printed,
// with its groups.
func (c *Console) Wait(ctx context.Context, pattern *regexp.Regexp) ([]string, error) {
	for {
		c.mu.Lock()
		found, changed := pattern.FindSubmatch(c.text), c.changed
		c.mu.Unlock()
		if found != nil {
			groups := make([]string, len(found))
			for i, g := range found {
				groups[i] = string(g)
			}
			return groups, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
