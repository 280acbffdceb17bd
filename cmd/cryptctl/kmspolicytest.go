package main

import (
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
)

// kmsTrial is a request that is only thought of.
type kmsTrial struct {
	policyFlags
	address, operation, at string
	some                   bool // flags of a policy are given
}

func kmsPolicyTest(k *kmsTarget) *cobra.Command {
	var t kmsTrial
	cmd := &cobra.Command{
		Use:   "test [NODE]",
		Short: "Say what would be decided; nothing changes",
		Long: `With NODE and --address: says whether the node would be served, and which rule
decides. With --network, --per-hour or --burst that policy is tried in the place of
the node's own.

Without NODE: says which nodes a new default policy would refuse that are served
now, judged by where each called from last. A node that the server has not seen
since its start cannot be judged if networks decide, and is shown as such.`,
		Args: maybe("NODE"),
	}
	t.flags(cmd)
	cmd.Flags().StringVar(&t.address, "address", "", "`ADDRESS` that the node would call from")
	cmd.Flags().StringVar(&t.operation, "operation", string(policy.Unseal), "`OPERATION` that it would ask for: unseal or seal")
	cmd.Flags().StringVar(&t.at, "at", "", "`TIME` of the request: 2026-12-31T12:00:00Z, or from now: 72h (default now)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		uuid, _, err := nodeOrDefault(given)
		if err != nil {
			return err
		}
		at, err := timeFlag("at", t.at)
		if err != nil {
			return err
		}
		if t.some, err = t.given(cmd); err != nil {
			return err
		}
		if uuid != "" {
			r, err := t.request(uuid, at)
			if err != nil {
				return err
			}
			return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error { return t.explain(cmd, a, r, *asJSON) })(cmd, given)
		}
		if t.address != "" || cmd.Flags().Changed("operation") {
			return usageError("--address and --operation are about one node; name it")
		}
		if !t.some {
			return usageError("name a node, or a new default policy with --network, --per-hour or --burst")
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, _ []string) error { return t.judge(cmd, a, at, *asJSON) })(cmd, given)
	}
	return cmd
}

func (t *kmsTrial) request(uuid string, at *timestamppb.Timestamp) (*wire.ExplainRequest, error) {
	r := &wire.ExplainRequest{Node: uuid, Address: t.address, At: at}
	if _, err := netip.ParseAddr(t.address); err != nil {
		return nil, usageError("--address %q: give the address that the node would call from", t.address)
	}
	switch policy.Op(t.operation) {
	case policy.Unseal:
		r.Operation = wire.Operation_OPERATION_UNSEAL
	case policy.Seal:
		r.Operation = wire.Operation_OPERATION_SEAL
	default:
		return nil, usageError("--operation %q: must be seal or unseal", t.operation)
	}
	return r, nil
}

// explain asks about one request of a node.
func (t *kmsTrial) explain(cmd *cobra.Command, a *kmsAdmin, r *wire.ExplainRequest, asJSON bool) error {
	if t.some {
		now, err := a.own(cmd, r.GetNode())
		if err != nil {
			return err
		}
		if r.Policy, err = t.change(cmd, now); err != nil {
			return err
		}
	}
	d, err := a.Explain(cmd.Context(), r)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), struct {
			Allowed bool   `json:"allowed"`
			Code    string `json:"code"`
			Rule    string `json:"rule"`
			Detail  string `json:"detail"`
			Retry   int64  `json:"retry_after_seconds,omitempty"`
		}{d.GetAllowed(), d.GetCode(), d.GetRule(), d.GetDetail(), d.GetRetryAfter().GetSeconds()})
	}
	verdict := "allowed"
	if !d.GetAllowed() {
		verdict = "refused: " + plain(d.GetDetail())
	}
	if after := d.GetRetryAfter(); after != nil {
		verdict += fmt.Sprintf(", for %v more", after.AsDuration().Round(1e9))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s (%s)\n", verdict, plain(d.GetRule()))
	return err
}

// kmsRefused is a node that a new default policy refuses, or that cannot be judged.
type kmsRefused struct {
	Node    string `json:"node"`
	Verdict string `json:"verdict"` // refused, or not-judged
	Address string `json:"address,omitempty"`
	Code    string `json:"code,omitempty"`
	Rule    string `json:"rule,omitempty"`
	Detail  string `json:"detail"`
}

// judge asks which nodes a new default policy would refuse.
func (t *kmsTrial) judge(cmd *cobra.Command, a *kmsAdmin, at *timestamppb.Timestamp, asJSON bool) error {
	now, err := a.own(cmd, "")
	if err != nil {
		return err
	}
	p, err := t.change(cmd, now)
	if err != nil {
		return err
	}
	all, err := a.refusedBy(cmd, &wire.TestPolicyRequest{Policy: p, At: at})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), all)
	}
	return writeRefused(cmd.OutOrStdout(), newPolicyView(p), all)
}

// refusedBy are the nodes that a new default policy refuses, or that cannot be judged.
func (a *kmsAdmin) refusedBy(cmd *cobra.Command, q *wire.TestPolicyRequest) ([]kmsRefused, error) {
	all := []kmsRefused{}
	s, err := a.TestPolicy(cmd.Context(), q)
	err = each(s, err, func(r *wire.Refusal) error {
		one := kmsRefused{r.GetNode(), "refused", r.GetAddress(), r.GetCode(), r.GetRule(), r.GetDetail()}
		if r.GetNotJudged() {
			one.Verdict = "not-judged"
		}
		all = append(all, one)
		return nil
	})
	return all, err
}

func writeRefused(out io.Writer, p kmsPolicyView, all []kmsRefused) error {
	fmt.Fprintf(out, "default policy to be tried: %s\n", p)
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "it refuses no node that is served now")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NODE\tVERDICT\tADDRESS\tRULE\tDETAIL")
	for _, r := range all {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", plain(r.Node), r.Verdict, dash(r.Address), dash(r.Rule), dash(r.Detail))
	}
	return w.Flush()
}
