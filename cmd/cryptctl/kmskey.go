package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/cryptctl/cryptctl/kms/wire"
)

func kmsKeyCommand() *cobra.Command {
	k := &kmsTarget{}
	return k.group(group("key", "Renew the nodes' keys, and the key that wraps them",
		kmsKeyRotate(k), kmsKeyRetire(k), kmsKeyRewrap(k), kmsKeyStatus(k)))
}

// kekOrNode checks that either --kek or a node was given.
func kekOrNode(cmd *cobra.Command, given []string, kek bool) (uuid string, err error) {
	switch {
	case kek && len(given) > 0:
		return "", usageError("a node and --kek exclude each other; see %s --help", cmd.CommandPath())
	case kek:
		return "", nil
	case len(given) == 0:
		return "", usageError("NODE or --kek is missing; see %s --help", cmd.CommandPath())
	}
	return nodeArg(given[0])
}

func kmsKeyRotate(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate NODE | --kek",
		Short: "Make a new key version for a node, or of the key-encryption key",
		Long: `With NODE: gives the node a new key version, which seals from now on; what was sealed
before opens until the older version is retired. Needs the role operator.

With --kek: makes a new version of the key-encryption key, which wraps from now on;
kms key rewrap brings the keys of all nodes under it. Nodes notice nothing. Servers
that share a store must share the keyset file, too. Needs the role admin.`,
		Args: maybe("NODE"),
	}
	kek := cmd.Flags().Bool("kek", false, "the key that wraps the nodes' keys")
	reason := reasonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		uuid, err := kekOrNode(cmd, given, *kek)
		if err != nil {
			return err
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
			if *kek {
				s, err := a.RotateKEK(cmd.Context(), &wire.RotateKEKRequest{Reason: *reason})
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "version %s wraps from now on; cryptctl kms key rewrap brings the older keys under it\n", plain(s.GetPrimary()))
				return err
			}
			n, err := a.RotateNodeKey(cmd.Context(), &wire.RotateNodeKeyRequest{Node: uuid, Reason: *reason})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "key version %d of node %s seals from now on\n", primaryOf(n), uuid)
			return err
		})(cmd, given)
	}
	return cmd
}

// primaryOf is the version of a node's key that seals.
func primaryOf(n *wire.Node) uint32 {
	for _, k := range n.GetKeys() {
		if k.GetPrimary() {
			return k.GetVersion()
		}
	}
	return 0
}

// kmsRetirement is what kms key retire destroys.
type kmsRetirement struct {
	kek, confirm string
	below        uint32
	reason       *string
}

func kmsKeyRetire(k *kmsTarget) *cobra.Command {
	var r kmsRetirement
	cmd := &cobra.Command{
		Use:   "retire NODE --below VERSION | --kek VERSION",
		Short: "Destroy old key versions for good",
		Long: `With NODE: destroys all versions of the node's key below one. What was sealed with
them opens never again: have the node seal anew before (cryptctl sync).

With --kek: destroys a version of the key-encryption key that wraps nothing any
more. Keys that it wrapped are dead then, in backups too: that makes forgotten keys
unrecoverable, and older backups useless.

Both ask for the node's UUID, or the version, to be typed again, and need the role
admin.`,
		Args: maybe("NODE"),
	}
	cmd.Flags().StringVar(&r.kek, "kek", "", "`VERSION` of the key-encryption key to destroy, as kms key status shows it")
	cmd.Flags().Uint32Var(&r.below, "below", 0, "destroy all versions of the node's key below this `VERSION`")
	cmd.Flags().StringVar(&r.confirm, "confirm", "", "do not ask: the `UUID` of the node, or the version, once more")
	r.reason = reasonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		uuid, err := kekOrNode(cmd, given, r.kek != "")
		switch {
		case err != nil:
			return err
		case r.kek != "" && r.below > 0:
			return usageError("--below is about a node's key, and excludes --kek")
		case r.kek == "" && r.below == 0:
			return usageError("--below says which versions are to be destroyed; cryptctl kms node show %s shows them", uuid)
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
			if r.kek != "" {
				return r.retireKEK(cmd, a)
			}
			return r.retireKeys(cmd, a, uuid)
		})(cmd, given)
	}
	return cmd
}

func (r *kmsRetirement) retireKeys(cmd *cobra.Command, a *kmsAdmin, uuid string) error {
	what := fmt.Sprintf("What node %s sealed with key versions below %d will be lost for good", uuid, r.below)
	if err := typed(cmd, r.confirm, what, uuid); err != nil {
		return err
	}
	n, err := a.RetireNodeKey(cmd.Context(), &wire.RetireNodeKeyRequest{Node: uuid, Below: r.below, Confirm: uuid, Reason: *r.reason})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "node %s keeps key versions %s\n", uuid, versionsText(n))
	return err
}

func versionsText(n *wire.Node) (text string) {
	for i, k := range n.GetKeys() {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprint(k.GetVersion())
	}
	return text
}

func (r *kmsRetirement) retireKEK(cmd *cobra.Command, a *kmsAdmin) error {
	what := "All that version " + plain(r.kek) + " of the key-encryption key wrapped, in backups too, will be lost for good"
	if err := typed(cmd, r.confirm, what, r.kek); err != nil {
		return err
	}
	s, err := a.RetireKEK(cmd.Context(), &wire.RetireKEKRequest{Version: r.kek, Confirm: r.kek, Reason: *r.reason})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "version %s is destroyed; %s wraps\n", plain(r.kek), plain(s.GetPrimary()))
	return err
}

func kmsKeyRewrap(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rewrap",
		Short: "Wrap all nodes' keys by the newest version of the key-encryption key",
		Long: `Wraps the keys of all nodes anew after kms key rotate --kek. Nodes notice nothing, and
what they sealed stays as it is. It may be cut off and run again. Needs the role
admin.`,
		Args: args(),
	}
	reason := reasonFlag(cmd)
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
		show := term.IsTerminal(int(os.Stderr.Fd()))
		const clearLine = "\r\x1b[K"
		last := &wire.RewrapProgress{}
		s, err := a.RewrapKEK(cmd.Context(), &wire.RewrapKEKRequest{Reason: *reason})
		err = each(s, err, func(p *wire.RewrapProgress) error {
			if last = p; show {
				fmt.Fprintf(os.Stderr, "%swrapping anew: %d of %d keys", clearLine, p.GetDone(), p.GetTotal())
			}
			return nil
		})
		if show {
			fmt.Fprint(os.Stderr, clearLine)
		}
		if err != nil {
			return fmt.Errorf("%w; %d of %d keys are under the newest version, run it again for the others", err, last.GetDone(), last.GetTotal())
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "all %d keys are under the newest version; wrapped anew: %d\n", last.GetDone(), last.GetRenewed())
		return err
	})
	return cmd
}

// kmsKEK is the key-encryption key for people and for JSON.
type kmsKEKStatus struct {
	Backend  string          `json:"backend"` // file or vault
	Primary  string          `json:"primary"` // wraps what is new
	Versions []kmsKEKVersion `json:"versions"`
}

type kmsKEKVersion struct {
	Version string `json:"version"`
	State   string `json:"state"` // enabled, disabled, missing or unknown
	Wraps   uint64 `json:"wraps"` // keys of nodes
}

func kmsKeyStatus(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the versions of the key-encryption key, and how many keys each wraps",
		Args:  args(),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error {
		s, err := a.GetKEKStatus(cmd.Context(), &wire.GetKEKStatusRequest{})
		if err != nil {
			return err
		}
		v := kmsKEKStatus{Backend: s.GetBackend(), Primary: s.GetPrimary(), Versions: []kmsKEKVersion{}}
		for _, one := range s.GetVersions() {
			v.Versions = append(v.Versions, kmsKEKVersion{one.GetVersion(), kekStateText(one.GetState()), one.GetWraps()})
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), v)
		}
		return v.write(cmd.OutOrStdout())
	})
	return cmd
}

func kekStateText(s wire.KEKVersionState) string {
	switch s {
	case wire.KEKVersionState_KEK_VERSION_STATE_ENABLED:
		return "enabled"
	case wire.KEKVersionState_KEK_VERSION_STATE_DISABLED:
		return "disabled"
	case wire.KEKVersionState_KEK_VERSION_STATE_MISSING:
		return "missing"
	}
	return "unknown"
}

func (s kmsKEKStatus) write(out io.Writer) error {
	fmt.Fprintf(out, "key-encryption key: %s\n", dash(s.Backend))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tSTATE\tWRAPS\tNOTE")
	for _, v := range s.Versions {
		note := ""
		switch {
		case v.Version == s.Primary:
			note = "wraps what is new"
		case v.State == "missing":
			note = "keys under it cannot be unwrapped; restore the keyset file"
		case v.Wraps > 0:
			note = "kms key rewrap brings these keys under the newest version"
		default:
			note = "wraps nothing; kms key retire --kek destroys it"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\n", plain(v.Version), v.State, v.Wraps, note)
	}
	return w.Flush()
}
