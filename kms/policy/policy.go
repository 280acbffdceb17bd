// Package policy decides whether a node gets its data: rules and a node's state in,
// a decision out, nothing else is looked at.
//
//	Rules (all nodes) ─┐
//	Node  (this one)  ─┼─> Decide ─> Decision: allowed or why not, which rule said so,
//	Request, Bucket,  ─┘             when to come back, what to register, the new Bucket
//	now
//
// The order in which rules are asked, the first refusal counts:
//
//	source networks ─> state of the node ─> end of its approval ─> unseals per hour
//
// States and who moves a node along the arrows:
//
//	          first seal, open            operator
//	unknown ───────────────────> approved <───────> frozen
//	   │ first seal, allow-list     ^  │ ^             │
//	   └──────────────> pending ────┘  │ └─ forgotten  │  forgotten is reached from all
//	                       operator    v               v
//	                                 revoked <─────────┘
//
// What is guaranteed: [Decide] is a pure function, so a dry run is the same call
// with the answer thrown away; a node whose state is none of the above is refused;
// whatever the rules say, only approved nodes, and unknown ones under open
// enrolment that seal, are allowed.
//
// What it does not protect: a request says who its node is, and here that is
// believed. Who may speak for a node is the front's to prove.
package policy

import (
	"net/netip"
	"time"
)

// State is where a node stands.
type State string

// States. Unknown is one that was never registered.
const (
	Unknown   State = ""
	Pending   State = "pending"   // asked for the first time, an operator has to approve
	Approved  State = "approved"  // gets what it asks for, within its limits
	Frozen    State = "frozen"    // held for now; keys are kept
	Revoked   State = "revoked"   // must not come back
	Forgotten State = "forgotten" // its keys are destroyed; known, so that it cannot register anew unseen
)

// Enrolment says what becomes of nodes that are not known.
type Enrolment string

// Enrolments. The zero value is AllowList.
const (
	AllowList Enrolment = "allow-list" // registered as pending
	Open      Enrolment = "open"       // registered as approved by the first seal
)

// Rules are for all nodes. The zero value asks an operator about each node and
// limits neither sources nor rates.
type Rules struct {
	Enrol    Enrolment      `json:"enrol,omitempty"`
	Networks []netip.Prefix `json:"networks,omitempty"` // sources that may ask; none: all
	Limit    Limit          `json:"limit,omitzero"`     // for nodes without a limit of their own
}

// Node is what is known of one node. The zero value is one that is unknown.
type Node struct {
	State    State          `json:"state"`
	Since    time.Time      `json:"since,omitzero"`     // with Until: not before; a clock that was lost shows a time long ago
	Until    time.Time      `json:"until,omitzero"`     // approved until then; zero: without end
	Networks []netip.Prefix `json:"networks,omitempty"` // besides those of the rules, which hold as well
	Limit    Limit          `json:"limit,omitzero"`     // in place of that of the rules
}

// Op is what a node asks for.
type Op string

// Ops. Import is the unseal of a blob of the reference server that opened with
// its key: it registers like a seal and counts like an unseal.
const (
	Seal   Op = "seal"
	Unseal Op = "unseal"
	Import Op = "import"
)

// Request is one question.
type Request struct {
	Op     Op
	Source netip.Addr // where it came from; the zero Addr is in no network
}

// Reason says why, in a word for programs.
type Reason string

// Reasons.
const (
	OK              Reason = "ok"
	UnknownNode     Reason = "unknown-node"
	PendingApproval Reason = "pending-approval"
	ApprovalEnded   Reason = "approval-ended"
	NodeFrozen      Reason = "frozen"
	NodeRevoked     Reason = "revoked"
	NodeForgotten   Reason = "forgotten"
	WrongNetwork    Reason = "wrong-network"
	RateLimited     Reason = "rate-limited"
	Invalid         Reason = "invalid" // a state, enrolment or op that does not exist
)

// Decision is the answer.
type Decision struct {
	Allow      bool
	Reason     Reason
	Rule       string        // the rule that decided, such as "node.networks"
	RetryAfter time.Duration // with RateLimited: when one more is allowed
	Register   State         // the state to store for an unknown node; Unknown: store nothing
	Bucket     Bucket        // the node's bucket afterwards
	Took       Token         // what was taken, for Bucket.Return
}

// Decide says whether the request is allowed at the time now. bucket is the
// node's rate state; whoever keeps it stores the Decision's in its place.
func Decide(rules Rules, node Node, req Request, bucket Bucket, now time.Time) Decision {
	d := standing(rules, node, req, now)
	d.Bucket = bucket
	if !d.Allow || req.Op == Seal {
		return d
	}
	limit, rule := node.Limit, "node.limit"
	if limit == (Limit{}) {
		limit, rule = rules.Limit, "rules.limit"
	}
	after, took, wait := bucket.Take(limit, now)
	if wait > 0 {
		return Decision{Reason: RateLimited, Rule: rule, RetryAfter: wait, Bucket: after}
	}
	d.Bucket, d.Took = after, took
	return d
}

// standing decides all but the rate.
func standing(rules Rules, node Node, req Request, now time.Time) Decision {
	if req.Op != Seal && req.Op != Unseal && req.Op != Import {
		return refuse(Invalid, "request.op")
	}
	if !within(rules.Networks, req.Source) {
		return refuse(WrongNetwork, "rules.networks")
	}
	if !within(node.Networks, req.Source) {
		return refuse(WrongNetwork, "node.networks")
	}
	switch node.State {
	case Unknown:
		return stranger(rules, req)
	case Approved:
		if !node.Until.IsZero() && !now.Before(node.Until) {
			return refuse(ApprovalEnded, "node.until")
		}
		if !node.Until.IsZero() && now.Before(node.Since) {
			return refuse(ApprovalEnded, "node.since")
		}
		return Decision{Allow: true, Reason: OK, Rule: "node.state"}
	case Pending:
		return refuse(PendingApproval, "node.state")
	case Frozen:
		return refuse(NodeFrozen, "node.state")
	case Revoked:
		return refuse(NodeRevoked, "node.state")
	case Forgotten:
		return refuse(NodeForgotten, "node.state")
	}
	return refuse(Invalid, "node.state")
}

// stranger decides about a node that is not known. Only a seal, or an import,
// registers one: an unseal of an unknown node has nothing to open.
func stranger(rules Rules, req Request) Decision {
	if req.Op == Unseal {
		return refuse(UnknownNode, "node.state")
	}
	switch rules.Enrol {
	case Open:
		return Decision{Allow: true, Reason: OK, Rule: "rules.enrol", Register: Approved}
	case AllowList, "":
		d := refuse(PendingApproval, "rules.enrol")
		d.Register = Pending
		return d
	}
	return refuse(Invalid, "rules.enrol")
}

func refuse(why Reason, rule string) Decision { return Decision{Reason: why, Rule: rule} }

// within reports whether addr is in one of the networks, or there are none. IPv4
// in IPv6 notation counts as IPv4, whichever way the listener reports it; a zone
// is the machine's own and says nothing.
func within(networks []netip.Prefix, addr netip.Addr) bool {
	if len(networks) == 0 {
		return true
	}
	addr = addr.Unmap().WithZone("")
	for _, n := range networks {
		if n.Contains(addr) {
			return true
		}
	}
	return false
}
