package policy

import (
	"fmt"
	"net/netip"
)

// maxNetworks bounds the list of a node and of the rules: it is walked at every
// request.
const maxNetworks = 256

// Check says what is wrong with rules before they are used.
func (r Rules) Check() error {
	if r.Enrol != "" && r.Enrol != AllowList && r.Enrol != Open {
		return fmt.Errorf("enrol: %q is neither %q nor %q", r.Enrol, AllowList, Open)
	}
	if err := checkNetworks(r.Networks); err != nil {
		return err
	}
	return r.Limit.Check()
}

// Check says what is wrong with a node before it is stored.
func (n Node) Check() error {
	switch n.State {
	case Pending, Approved, Frozen, Revoked, Forgotten:
	default:
		return fmt.Errorf("state: there is no %q", n.State)
	}
	if err := checkNetworks(n.Networks); err != nil {
		return err
	}
	return n.Limit.Check()
}

// Check says what is wrong with a limit.
func (l Limit) Check() error {
	switch {
	case l.PerHour < 0 || l.PerHour > maxPerHour:
		return fmt.Errorf("limit: %d per hour; give 1 to %d, or 0 for no limit", l.PerHour, maxPerHour)
	case l.Burst < 0 || l.Burst > maxBurst:
		return fmt.Errorf("limit: a burst of %d; give 1 to %d, or 0 for the number per hour", l.Burst, maxBurst)
	case l.Burst > 0 && l.PerHour == 0:
		return fmt.Errorf("limit: a burst of %d without a number per hour", l.Burst)
	}
	return nil
}

// checkNetworks refuses what would never match as it is meant: a prefix with
// host bits, and IPv4 in IPv6 notation.
func checkNetworks(networks []netip.Prefix) error {
	if len(networks) > maxNetworks {
		return fmt.Errorf("networks: %d, at most %d", len(networks), maxNetworks)
	}
	for _, n := range networks {
		switch {
		case !n.IsValid():
			return fmt.Errorf("networks: an empty or invalid prefix")
		case n.Addr().Is4In6():
			return fmt.Errorf("networks: write %s as an IPv4 network", n)
		case n != n.Masked():
			return fmt.Errorf("networks: %s has host bits; did you mean %s?", n, n.Masked())
		}
	}
	return nil
}
