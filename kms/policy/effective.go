package policy

import (
	"net/netip"
	"slices"
)

// Effective is what the rules and a node's own policy come to together.
type Effective struct {
	Any      bool           // requests may come from any network
	Networks []netip.Prefix // without Any; none: from nowhere
	Limit    Limit
	Default  bool // Limit is that of the rules
}

// Together returns what [Decide] holds a node to.
func Together(rules Rules, node Node) Effective {
	e := Effective{Limit: node.Limit}
	if node.Limit == (Limit{}) {
		e.Limit, e.Default = rules.Limit, true
	}
	switch {
	case len(node.Networks) == 0:
		e.Networks = slices.Clone(rules.Networks)
		e.Any = len(rules.Networks) == 0
		return e
	case len(rules.Networks) == 0:
		e.Networks = slices.Clone(node.Networks)
		return e
	}
	for _, a := range rules.Networks {
		for _, b := range node.Networks {
			if !a.Overlaps(b) {
				continue
			}
			if a.Bits() > b.Bits() {
				b = a
			}
			if !slices.Contains(e.Networks, b) {
				e.Networks = append(e.Networks, b)
			}
		}
	}
	return e
}
