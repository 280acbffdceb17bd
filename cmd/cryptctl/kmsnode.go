package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/cryptctl/cryptctl/kms/wire"
)

func kmsNodeCommand() *cobra.Command {
	k := &kmsTarget{}
	return k.group(group("node", "See the nodes of a key server, and let them in or shut them out",
		kmsNodeList(k), kmsNodeShow(k), kmsNodeApprove(k), kmsNodeFreeze(k), kmsNodeThaw(k), kmsNodeRevoke(k), kmsNodeForget(k), kmsNodePurge(k)))
}

func kmsNodeList(k *kmsTarget) *cobra.Command {
	var states []string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show all nodes, and where each stands",
		Long: `Shows the nodes that the key server knows. When and from where a node was last seen
is kept in memory, by each server for itself, since its start.`,
		Args: args(),
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only nodes in these `STATES`: pending, approved, frozen, revoked, forgotten")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		r := &wire.ListNodesRequest{}
		for _, name := range states {
			s, err := readState(name)
			if err != nil {
				return err
			}
			r.States = append(r.States, s)
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
			s, err := a.ListNodes(cmd.Context(), r)
			nodes := []kmsNodeView{}
			failed := each(s, err, func(n *wire.Node) error {
				nodes = append(nodes, newKMSNode(n))
				return nil
			})
			if failed != nil && len(nodes) == 0 {
				return failed
			}
			if *asJSON {
				return errors.Join(printJSON(cmd.OutOrStdout(), nodes), failed)
			}
			return errors.Join(writeNodes(cmd.OutOrStdout(), nodes), failed)
		})(cmd, given)
	}
	return cmd
}

// each reads a stream to its end.
func each[T any](s grpc.ServerStreamingClient[T], err error, do func(*T) error) error {
	for err == nil {
		var one *T
		if one, err = s.Recv(); err == nil {
			err = do(one)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func kmsNodeShow(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show NODE",
		Short: "Show one node: its state, policy and key versions",
		Args:  args("NODE"),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
		uuid, err := nodeArg(given[0])
		if err != nil {
			return err
		}
		n, err := a.GetNode(cmd.Context(), &wire.GetNodeRequest{Node: uuid})
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), newKMSNode(n))
		}
		return newKMSNode(n).write(cmd.OutOrStdout())
	})
	return cmd
}

func kmsNodeApprove(k *kmsTarget) *cobra.Command {
	var p policyFlags
	cmd := &cobra.Command{
		Use:   "approve NODE",
		Short: "Let a node seal and unseal",
		Long: `Lets a node in: one that waits for approval, is frozen or forgotten, or was never
seen. It may come with networks, within those of the default policy, and a limit of
its own. What is not given stays as it is, an end that it has too; without one the
approval has no end.

A revoked node needs --reinstate. That, another policy for a node that was approved
before or has one of its own, and a later end for one that was approved before need
the role admin; all else the role operator.`,
		Args: args("NODE"),
	}
	until := cmd.Flags().String("until", "", "`TIME` when the approval ends: 2026-12-31T12:00:00Z, with the day 2026-12-31, or from now: 72h; none takes the end away")
	reinstate := cmd.Flags().Bool("reinstate", false, "approve a node that is revoked")
	p.flags(cmd)
	reason := reasonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		r := &wire.ApproveNodeRequest{Reason: *reason, Reinstate: *reinstate, WithoutEnd: *until == "none"}
		if !r.GetWithoutEnd() {
			end, err := endFlag("until", *until)
			if err != nil {
				return err
			}
			r.ExpiresAt = end
		}
		some, err := p.given(cmd)
		if err != nil {
			return err
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
			if r.Node, err = nodeArg(given[0]); err != nil {
				return err
			}
			if some {
				now, err := a.own(cmd, r.GetNode())
				if err != nil {
					return err
				}
				if r.Policy, err = p.change(cmd, now); err != nil {
					return err
				}
				r.Expected = now
			}
			n, err := a.ApproveNode(cmd.Context(), r)
			return changed(cmd, n, err)
		})(cmd, given)
	}
	return cmd
}

// changed says how a node is after a change.
func changed(cmd *cobra.Command, n *wire.Node, err error) error {
	if err != nil {
		return err
	}
	v, more := newKMSNode(n), ""
	switch approved := n.GetState() == wire.NodeState_NODE_STATE_APPROVED; {
	case approved && v.Expires != nil:
		more = " until " + v.expiresText() + ", " + v.Holds.String()
	case approved:
		more = ", " + v.Holds.String()
	case v.Expires != nil:
		more = "; its approval ends " + v.expiresText()
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is %s%s\n", plain(v.Node), v.State, more)
	return err
}

// nodeChange is a command that changes the node that its argument names.
func nodeChange(k *kmsTarget, cmd *cobra.Command, do func(*cobra.Command, *kmsAdmin, string, string) (*wire.Node, error)) *cobra.Command {
	cmd.Args = args("NODE")
	reason := reasonFlag(cmd)
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
		uuid, err := nodeArg(given[0])
		if err != nil {
			return err
		}
		n, err := do(cmd, a, uuid, *reason)
		return changed(cmd, n, err)
	})
	return cmd
}

func kmsNodeFreeze(k *kmsTarget) *cobra.Command {
	return nodeChange(k, &cobra.Command{
		Use:   "freeze NODE",
		Short: "Refuse a node for now; thaw takes it back",
		Long: `Refuses an approved node until it is thawed or approved anew. Its keys, networks and
limit are kept. It holds on all servers within a second. If the audit log is full it
is done all the same: the error says so, and the record follows when there is room.
Needs the role operator.`,
	}, func(cmd *cobra.Command, a *kmsAdmin, uuid, reason string) (*wire.Node, error) {
		return a.FreezeNode(cmd.Context(), &wire.FreezeNodeRequest{Node: uuid, Reason: reason})
	})
}

func kmsNodeThaw(k *kmsTarget) *cobra.Command {
	return nodeChange(k, &cobra.Command{
		Use:   "thaw NODE",
		Short: "Take a freeze back",
		Long:  `Lets a frozen node in again, as it was. Needs the role operator.`,
	}, func(cmd *cobra.Command, a *kmsAdmin, uuid, reason string) (*wire.Node, error) {
		return a.ThawNode(cmd.Context(), &wire.ThawNodeRequest{Node: uuid, Reason: reason})
	})
}

func kmsNodeRevoke(k *kmsTarget) *cobra.Command {
	return nodeChange(k, &cobra.Command{
		Use:   "revoke NODE",
		Short: "Shut a node out",
		Long: `Refuses a node, also one that was never seen, on all servers within a second. Its
keys are kept, and approve --reinstate takes it back; forget destroys them. If the
audit log is full it is done all the same: the error says so, and the record follows
when there is room. Needs the role admin.`,
	}, func(cmd *cobra.Command, a *kmsAdmin, uuid, reason string) (*wire.Node, error) {
		return a.RevokeNode(cmd.Context(), &wire.RevokeNodeRequest{Node: uuid, Reason: reason})
	})
}

func kmsNodeForget(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "forget NODE",
		Short: "Destroy a node's keys: what was sealed for it opens never again",
		Long: `Destroys all of a node's keys in the store, and asks for its UUID to be typed again.
The volumes that need them cannot be opened any more. The node stays known, as
forgotten, so that it does not come back unseen.

Backups of the store still have the keys, wrapped: they are dead when the version of
the key-encryption key that wrapped them is retired (kms key rotate --kek, rewrap,
retire --kek). Needs the role admin.`,
		Args: args("NODE"),
	}
	reason := reasonFlag(cmd)
	again := confirmFlag(cmd, "UUID")
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
		uuid, err := nodeArg(given[0])
		if err != nil {
			return err
		}
		if err := typed(cmd, *again, "All that was sealed for node "+uuid+" will be lost for good", uuid); err != nil {
			return err
		}
		r, err := a.ForgetNode(cmd.Context(), &wire.ForgetNodeRequest{Node: uuid, Confirm: uuid, Reason: *reason})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s is forgotten; key versions destroyed: %d\n", uuid, r.GetDestroyedKeys())
		return err
	})
	return cmd
}

func kmsNodePurge(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "purge",
		Short: "Remove nodes that have waited too long for approval",
		Long: `Takes away the nodes that asked for the first time before a time, wait for approval
and never had a key, as if they had never asked: names that somebody made up take up
the room for those that wait. Whoever of them is a node asks again. Needs the role
admin.`,
		Args: args(),
	}
	before := cmd.Flags().String("pending-before", "", "`TIME` before which they asked: 2026-12-31T12:00:00Z, or ago: 72h")
	reason := reasonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		at, err := agoFlag("pending-before", *before)
		if err != nil {
			return err
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
			r, err := a.PurgeNodes(cmd.Context(), &wire.PurgeNodesRequest{PendingBefore: at, Reason: *reason})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "nodes taken away that waited since before %s: %d\n", timeText(timeOf(at)), r.GetPurged())
			return err
		})(cmd, given)
	}
	return cmd
}
