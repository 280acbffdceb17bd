package keeper

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/kms/kek"
	"github.com/cryptctl/cryptctl/kms/policy"
)

// Code says what kind of answer an error is: what a node can do about it.
type Code string

// Codes. Denied, Revoked, Frozen and Malformed do not change by trying again;
// Pending does when an operator approves; RateLimited and Unavailable do by
// themselves.
const (
	Denied      Code = "denied"
	Pending     Code = "pending"
	Frozen      Code = "frozen"
	Revoked     Code = "revoked"
	RateLimited Code = "rate-limited"
	Malformed   Code = "malformed"
	Unavailable Code = "unavailable"
)

// Reasons besides those of package policy.
const (
	BadRequest   policy.Reason = "bad-request"    // Malformed: the node's name, the data or the blob
	ImportOff    policy.Reason = "import-off"     // Malformed: a reference blob, and no key to open it
	NotAuthentic policy.Reason = "not-authentic"  // Denied: the blob is another node's, or damaged
	KeyRetired   policy.Reason = "key-retired"    // Denied: the version that sealed it is gone
	Imported     policy.Reason = "of-other-node"  // Denied: another node brought this reference blob first
	TooMany      policy.Reason = "too-many-nodes" // RateLimited: no room for one more node
	// TooManyPending is RateLimited: too many wait for approval, or of its network.
	TooManyPending policy.Reason = "too-many-pending"
	NoKEK          policy.Reason = "kek"         // Unavailable: the key-encryption key
	KEKVersion     policy.Reason = "kek-version" // Unavailable until an operator mends it: the version that wrapped the key is not here, or retired
	KEKRefuses     policy.Reason = "kek-refuses" // Unavailable until an operator mends it: wrapped by another KEK, or damaged
	NoStore        policy.Reason = "store"       // Unavailable: the store
	NoAudit        policy.Reason = "audit"       // Unavailable: the audit log
)

// Error is why a request, or an operator's change, was not done. All errors of
// Seal and Unseal are of this type.
type Error struct {
	Code       Code
	Node       blob.Node // "" if the request named none
	Reason     policy.Reason
	Rule       string        // which rule of the policy decided, if one did
	RetryAfter time.Duration // with RateLimited
	Err        error         // the cause, if there is one; it may name our files and hosts, so it is not for the node
}

// Error says what was refused, why, and what helps.
func (e *Error) Error() string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s", e.Code)
	if e.Node != "" {
		fmt.Fprintf(&s, ": node %s", e.Node)
	}
	if string(e.Reason) != string(e.Code) {
		fmt.Fprintf(&s, ": %s", e.Reason)
	}
	if e.Rule != "" {
		fmt.Fprintf(&s, " (%s)", e.Rule)
	}
	if e.RetryAfter > 0 {
		fmt.Fprintf(&s, ", try again in %v", e.RetryAfter.Round(time.Second))
	}
	if e.Err != nil {
		fmt.Fprintf(&s, ": %v", e.Err)
	}
	return s.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns an error's code; Unavailable if it has none, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Unavailable
}

// refusal turns a decision into an error.
func refusal(node blob.Node, d policy.Decision) *Error {
	e := &Error{Code: Denied, Node: node, Reason: d.Reason, Rule: d.Rule, RetryAfter: d.RetryAfter}
	switch d.Reason {
	case policy.PendingApproval, policy.ApprovalEnded:
		e.Code = Pending
	case policy.NodeFrozen:
		e.Code = Frozen
	case policy.NodeRevoked:
		e.Code = Revoked
	case policy.RateLimited:
		e.Code = RateLimited
	}
	return e
}

func malformed(node blob.Node, err error) *Error {
	return &Error{Code: Malformed, Node: node, Reason: BadRequest, Err: err}
}

func denied(node blob.Node, why policy.Reason, err error) *Error {
	return &Error{Code: Denied, Node: node, Reason: why, Err: err}
}

func unavailable(node blob.Node, what policy.Reason, err error) *Error {
	return &Error{Code: Unavailable, Node: node, Reason: what, Err: err}
}

// noKEK is unavailable for what the KEK said: no time mends a version that is gone.
func noKEK(node blob.Node, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	what := NoKEK
	switch {
	case errors.Is(err, kek.ErrVersion):
		what = KEKVersion
	case errors.Is(err, kek.ErrNotAuthentic):
		what = KEKRefuses
	}
	return unavailable(node, what, err)
}
