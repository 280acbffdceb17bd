package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// kmsNodeView is a node for people and for JSON.
type kmsNodeView struct {
	Node     string         `json:"node"`
	State    string         `json:"state"` // pending, approved, frozen, revoked or forgotten
	Reason   string         `json:"reason,omitempty"`
	First    *time.Time     `json:"first_seen,omitempty"`
	Approved *time.Time     `json:"approved_at,omitempty"` // by an operator
	Expires  *time.Time     `json:"expires_at,omitempty"`
	Seen     *time.Time     `json:"last_seen,omitempty"`     // by this server, since its start
	Unsealed *time.Time     `json:"last_unsealed,omitempty"` // the same
	Address  string         `json:"address,omitempty"`       // where it called from last
	Policy   *kmsPolicyView `json:"policy,omitempty"`        // its own
	Holds    *kmsEffective  `json:"effective,omitempty"`
	Keys     []kmsNodeKey   `json:"keys"`
}

type kmsNodeKey struct {
	Version uint32     `json:"version"`
	Created *time.Time `json:"created_at,omitempty"`
	Primary bool       `json:"primary"`
	KEK     string     `json:"kek_version"`
}

func newKMSNode(n *wire.Node) kmsNodeView {
	out := kmsNodeView{
		Node: n.GetNode(), State: stateText(n.GetState()), Reason: n.GetReason(), Address: n.GetAddress(), Keys: []kmsNodeKey{},
		First: timeOf(n.GetFirstSeen()), Approved: timeOf(n.GetApprovedAt()), Expires: timeOf(n.GetExpiresAt()),
		Seen: timeOf(n.GetLastSeen()), Unsealed: timeOf(n.GetLastUnsealed()), Holds: newEffective(n.GetEffective()),
	}
	if n.GetPolicy() != nil {
		p := newPolicyView(n.GetPolicy())
		out.Policy = &p
	}
	for _, k := range n.GetKeys() {
		out.Keys = append(out.Keys, kmsNodeKey{k.GetVersion(), timeOf(k.GetCreated()), k.GetPrimary(), k.GetKekVersion()})
	}
	return out
}

// stateNames are the states in the words of the policy.
func stateNames() map[wire.NodeState]policy.State {
	return map[wire.NodeState]policy.State{
		wire.NodeState_NODE_STATE_PENDING: policy.Pending, wire.NodeState_NODE_STATE_APPROVED: policy.Approved,
		wire.NodeState_NODE_STATE_FROZEN: policy.Frozen, wire.NodeState_NODE_STATE_REVOKED: policy.Revoked,
		wire.NodeState_NODE_STATE_FORGOTTEN: policy.Forgotten,
	}
}

func stateText(s wire.NodeState) string {
	if name, ok := stateNames()[s]; ok {
		return string(name)
	}
	return fmt.Sprintf("state %d, of a newer server", s)
}

// readState reads a state's name.
func readState(name string) (wire.NodeState, error) {
	for s, n := range stateNames() {
		if string(n) == name {
			return s, nil
		}
	}
	return 0, usageError("--state %q: must be pending, approved, frozen, revoked or forgotten", name)
}

func timeOf(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

// timeText is a time for people, in UTC.
func timeText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// expiresText says when an approval ends, or that it did.
func (n kmsNodeView) expiresText() string {
	if n.Expires != nil && time.Now().After(*n.Expires) {
		return timeText(n.Expires) + " (over)"
	}
	return timeText(n.Expires)
}

// dash is a text for a table's cell.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return plain(s)
}

func writeNodes(out io.Writer, nodes []kmsNodeView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tSTATE\tKEYS\tLAST SEEN\tADDRESS\tEXPIRES\tREASON")
	for _, n := range nodes {
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", plain(n.Node), n.State, len(n.Keys), timeText(n.Seen), dash(n.Address), n.expiresText(), dash(n.Reason))
	}
	return w.Flush()
}

func (n kmsNodeView) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "node\t%s\nstate\t%s\n", plain(n.Node), n.State)
	fmt.Fprintf(w, "reason\t%s\n", dash(n.Reason))
	fmt.Fprintf(w, "first seen\t%s\n", timeText(n.First))
	fmt.Fprintf(w, "approved at\t%s\n", timeText(n.Approved))
	fmt.Fprintf(w, "expires\t%s\n", n.expiresText())
	fmt.Fprintf(w, "last seen\t%s, from %s (since the server started)\n", timeText(n.Seen), dash(n.Address))
	fmt.Fprintf(w, "last unsealed\t%s\n", timeText(n.Unsealed))
	if n.Policy == nil {
		fmt.Fprintln(w, "own policy\tnone")
	} else {
		fmt.Fprintf(w, "own policy\t%s\n", n.Policy.own())
	}
	fmt.Fprintf(w, "in force\t%s\n", n.Holds)
	for _, k := range n.Keys {
		primary := ""
		if k.Primary {
			primary = "; seals"
		}
		fmt.Fprintf(w, "key %d\tof %s, wrapped by %s%s\n", k.Version, timeText(k.Created), dash(k.KEK), primary)
	}
	return w.Flush()
}
