package mapping

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// closePatience is how long a close waits for a user without a name: udev
	// looks into a new device for a moment.
	closePatience = 3 * time.Second
	closePoll     = 20 * time.Millisecond
)

// Close takes a mapping away; its key goes with it. It closes what cryptsetup
// opened too, and nothing that is not an encrypted volume. A mapping in use gives
// a [BusyError], unless the close is deferred.
func Close(name string, opts CloseOptions) error {
	return withMapping(name, func(c *control, m *Mapping) error { return c.closeMapping(m, opts) })
}

// withMapping looks a mapping up and does something with it.
func withMapping(name string, do func(*control, *Mapping) error) error {
	if err := checkName(name); err != nil {
		return err
	}
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.close()
	m, err := c.status(name)
	if err != nil {
		return err
	}
	return do(c, m)
}

func (c *control) closeMapping(m *Mapping, opts CloseOptions) (err error) {
	name := m.Name
	if !strings.HasPrefix(m.UUID, "CRYPT-") {
		return fmt.Errorf("mapping %s: not an encrypted volume (UUID %q); it is left open", name, m.UUID)
	}
	if opts.Deferred {
		err = c.remove(name, unix.DM_DEFERRED_REMOVE)
	} else {
		err = c.removeFree(m)
	}
	var busy *BusyError
	switch {
	case errors.As(err, &busy):
		return err
	case err != nil:
		return fmt.Errorf("mapping %s: close: %w", name, err)
	}
	return removeNode(name)
}

// removeFree removes a mapping that nobody uses.
func (c *control) removeFree(m *Mapping) error {
	for deadline := time.Now().Add(closePatience); ; time.Sleep(closePoll) {
		err := c.remove(m.Name, 0)
		if !errors.Is(err, unix.EBUSY) {
			return err
		}
		what := "mapping " + m.Name
		if named := holders(m.Number); len(named) > 0 {
			return &BusyError{what, named}
		}
		if time.Now().After(deadline) {
			return &BusyError{what, processes(m.Number)}
		}
	}
}

// CancelDeferred takes back a deferred close; the mapping gets its name again.
func CancelDeferred(name string) error {
	return withMapping(name, func(c *control, m *Mapping) error {
		if err := c.cancelDeferred(name); err != nil {
			return fmt.Errorf("mapping %s: take back the deferred close: %w", name, err)
		}
		return makeNodes(name, m.Number)
	})
}
