package main

import (
	"fmt"
	"strings"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// kmsPolicyView is a policy as it was set, for people and for JSON. What is left out
// of a node's own is the default's; of the default, it is not limited.
type kmsPolicyView struct {
	Networks []string `json:"networks,omitempty"`
	PerHour  uint32   `json:"per_hour,omitempty"`
	Burst    uint32   `json:"burst,omitempty"` // left out with per_hour: as many as that
	Enrol    string   `json:"enrol,omitempty"`
}

func newPolicyView(p *wire.Policy) kmsPolicyView {
	v := kmsPolicyView{Networks: append([]string{}, p.GetNetworks()...)}
	v.PerHour, v.Burst = p.GetRate().GetPerHour(), p.GetRate().GetBurst()
	return v
}

// with adds what becomes of nodes that are not known.
func (p kmsPolicyView) with(e wire.Enrolment) kmsPolicyView {
	switch e {
	case wire.Enrolment_ENROLMENT_ALLOW_LIST:
		p.Enrol = string(policy.AllowList)
	case wire.Enrolment_ENROLMENT_OPEN:
		p.Enrol = string(policy.Open)
	}
	return p
}

// String says all of a default policy in one line.
func (p kmsPolicyView) String() string {
	text := "from any network"
	if len(p.Networks) > 0 {
		text = "from " + plain(strings.Join(p.Networks, ", "))
	}
	text += "; " + limitText(p.PerHour, p.Burst)
	switch p.Enrol {
	case string(policy.AllowList):
		text += "; nodes that are not known wait for approval"
	case string(policy.Open):
		text += "; nodes that are not known are let in by their first seal"
	}
	return text
}

// own says what a node has of its own.
func (p kmsPolicyView) own() string {
	networks, limit := "the default's", "the default's"
	if len(p.Networks) > 0 {
		networks = plain(strings.Join(p.Networks, ", ")) + ", within the default's"
	}
	if p.PerHour > 0 {
		limit = limitText(p.PerHour, p.Burst)
	}
	return "networks: " + networks + "; limit: " + limit
}

func limitText(perHour, burst uint32) string {
	switch {
	case perHour == 0:
		return "no limit of unseals"
	case burst == 0:
		return fmt.Sprintf("%d unseals per hour", perHour)
	}
	return fmt.Sprintf("%d unseals per hour, %d at once", perHour, burst)
}

// kmsEffective is what holds for a node: its own policy and the default together.
type kmsEffective struct {
	Any       bool     `json:"any_network"`
	Networks  []string `json:"networks"` // none without any_network: from nowhere
	PerHour   *uint32  `json:"per_hour"` // null: no limit
	Burst     *uint32  `json:"burst"`    // null: as many as per_hour
	LimitFrom string   `json:"limit_from"`
}

func newEffective(e *wire.EffectivePolicy) *kmsEffective {
	if e == nil {
		return nil
	}
	v := &kmsEffective{Any: e.GetAnyNetwork(), Networks: append([]string{}, e.GetNetworks()...), LimitFrom: "node"}
	if e.GetDefaultRate() {
		v.LimitFrom = "default"
	}
	if n := e.GetRate().GetPerHour(); n > 0 {
		v.PerHour = &n
	}
	if n := e.GetRate().GetBurst(); n > 0 {
		v.Burst = &n
	}
	return v
}

// String says all of it in one line.
func (e *kmsEffective) String() string {
	var text string
	switch {
	case e == nil:
		return "not known to this server"
	case e.Any:
		text = "from any network"
	case len(e.Networks) == 0:
		text = "from nowhere: its own networks and the default's have none in common"
	default:
		text = "from " + plain(strings.Join(e.Networks, ", "))
	}
	var perHour, burst uint32
	if e.PerHour != nil {
		perHour = *e.PerHour
	}
	if e.Burst != nil {
		burst = *e.Burst
	}
	if text += "; " + limitText(perHour, burst); e.LimitFrom == "default" && perHour > 0 {
		text += " (the default's)"
	}
	return text
}
