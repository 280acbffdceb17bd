package luks

import "fmt"

// Erase removes every keyslot and token and overwrites all key material: the
// data is lost for good, to everyone without a backup of the header. It works on
// headers that are valid but not trusted, too.
func (h *Header) Erase() (*Header, error) {
	return h.update(func(now *Header) (*draft, error) {
		if !h.sameVolume(now) {
			return nil, fmt.Errorf("the volume itself: %w", ErrConflict)
		}
		d := &draft{base: &h.snapshot, now: &now.snapshot, next: now.doc.clone(), unguarded: true}
		d.next.set("keyslots", &object{})
		d.next.set("tokens", &object{})
		for _, m := range d.child("digests").members {
			m.value.(*object).set("keyslots", []any{})
		}
		d.child("config").remove("requirements")
		return d, nil
	})
}

// Repair writes what is in force over a damaged or stale copy, and wipes key
// material that nothing uses. It reports what it did; nothing when nothing was
// to do.
func Repair(dev Device) (h *Header, done []string, err error) {
	release, err := lock(dev, true)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	if h, err = read(dev); err != nil {
		return nil, nil, err
	}
	for _, c := range h.copies {
		if c.State != CopyGood {
			done = append(done, fmt.Sprintf("the %s copy, which was %s, was written again from the other", c.Name, c.State))
		}
	}
	if len(done) > 0 {
		if err := makeDurable(dev, h); err != nil {
			return nil, nil, err
		}
	}
	if err := h.restoreCopies(); err != nil {
		return nil, nil, err
	}
	if h.Trusted() != nil {
		// What we do not know may use the room that looks unused.
		h, err = read(dev)
		return h, done, err
	}
	dirty, err := h.Leftovers()
	if err != nil {
		return nil, nil, err
	}
	if len(dirty) > 0 {
		done = append(done, "key material that no keyslot uses was wiped")
	}
	if h, err = readBack(dev, &h.snapshot); err != nil {
		return nil, nil, err
	}
	if err := h.wipeUnused(); err != nil {
		return nil, nil, fmt.Errorf("wipe key material that no keyslot uses: %w", err)
	}
	return h, done, nil
}

// Repair is [Repair] of the device that the header was read from.
func (h *Header) Repair() (now *Header, done []string, err error) { return Repair(h.dev) }
