package main

import (
	"fmt"
	"io"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"

	"github.com/cryptctl/cryptctl/kms/policy"
	"github.com/cryptctl/cryptctl/kms/wire"
)

func kmsPolicyCommand() *cobra.Command {
	k := &kmsTarget{}
	return k.group(group("policy", "See, set and try who gets keys from where, and how often",
		kmsPolicyShow(k), kmsPolicySet(k), kmsPolicyTest(k)))
}

// policyFlags change a policy: what is not given stays.
type policyFlags struct {
	networks       []string
	perHour, burst uint32
}

func (p *policyFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&p.networks, "network", nil, "`NETWORKS` that requests may come from, such as 192.0.2.0/24; none takes them away, and for a node leaves the default's")
	cmd.Flags().Uint32Var(&p.perHour, "per-hour", 0, "`NUMBER` of unseals of a node in an hour; 0 is no limit, and for a node the default's")
	cmd.Flags().Uint32Var(&p.burst, "burst", 0, "`NUMBER` of unseals at once after a quiet time; 0 is as many as in an hour")
}

// given reports whether there are any, and what is wrong with them.
func (p *policyFlags) given(cmd *cobra.Command) (bool, error) {
	f := cmd.Flags()
	_, err := p.change(cmd, nil)
	return f.Changed("network") || f.Changed("per-hour") || f.Changed("burst"), err
}

// change makes a new policy of the one that there is.
func (p *policyFlags) change(cmd *cobra.Command, now *wire.Policy) (*wire.Policy, error) {
	v := newPolicyView(now)
	if cmd.Flags().Changed("network") {
		v.Networks = nil
		for _, text := range p.networks {
			if text == "none" && len(p.networks) == 1 {
				break
			}
			if _, err := netip.ParsePrefix(text); err != nil {
				return nil, usageError("--network %q: must look like 192.0.2.0/24 or 2001:db8::/32, or be none", text)
			}
			v.Networks = append(v.Networks, text)
		}
	}
	if cmd.Flags().Changed("per-hour") {
		if v.PerHour = p.perHour; p.perHour == 0 {
			v.Burst = 0
		}
	}
	if cmd.Flags().Changed("burst") {
		v.Burst = p.burst
	}
	out := &wire.Policy{Networks: v.Networks}
	if v.PerHour > 0 || v.Burst > 0 {
		out.Rate = &wire.RateLimit{PerHour: v.PerHour, Burst: v.Burst}
	}
	return out, nil
}

// getPolicy asks for a node's policy; for the default with "".
func (a *kmsAdmin) getPolicy(cmd *cobra.Command, uuid string) (*wire.GetPolicyResponse, error) {
	return a.GetPolicy(cmd.Context(), &wire.GetPolicyRequest{Node: uuid})
}

func kmsPolicyShow(k *kmsTarget) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "show [NODE]",
		Short: "Show the default policy, or that of a node",
		Args:  maybe("NODE"),
	}
	asJSON := jsonFlag(cmd)
	cmd.RunE = kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
		uuid, who, err := nodeOrDefault(given)
		if err != nil {
			return err
		}
		r, err := a.getPolicy(cmd, uuid)
		if err != nil {
			return err
		}
		return showPolicy(cmd.OutOrStdout(), uuid, who, r, *asJSON)
	})
	return cmd
}

// showPolicy shows the default policy; of a node its own, and what holds.
func showPolicy(out io.Writer, uuid, who string, r *wire.GetPolicyResponse, asJSON bool) error {
	v := newPolicyView(r.GetPolicy())
	if asJSON && uuid == "" {
		return printJSON(out, v.with(r.GetEnrolment()))
	}
	if asJSON {
		var own *kmsPolicyView
		if !r.GetInherited() {
			own = &v
		}
		return printJSON(out, struct {
			Node  string         `json:"node"`
			Own   *kmsPolicyView `json:"policy"` // null: none of its own
			Holds *kmsEffective  `json:"effective"`
		}{uuid, own, newEffective(r.GetEffective())})
	}
	if uuid == "" {
		_, err := fmt.Fprintf(out, "%s: %s\n", who, v.with(r.GetEnrolment()))
		return err
	}
	_, err := fmt.Fprintf(out, "%s: %s\nin force: %s\n", who, ownText(v, r.GetInherited()), newEffective(r.GetEffective()))
	return err
}

// ownText says what a node has of its own, if it has.
func ownText(v kmsPolicyView, inherited bool) string {
	if inherited {
		return "none of its own"
	}
	return v.own()
}

// nodeOrDefault reads an argument that names a node, if there is one.
func nodeOrDefault(given []string) (uuid, who string, err error) {
	if len(given) == 0 {
		return "", "default policy", nil
	}
	if uuid, err = nodeArg(given[0]); err != nil {
		return "", "", err
	}
	return uuid, "policy of node " + uuid, nil
}

func kmsPolicySet(k *kmsTarget) *cobra.Command {
	var p policyFlags
	cmd := &cobra.Command{
		Use:   "set [NODE]",
		Short: "Change the default policy, or that of a node",
		Long: `Changes what is given and leaves the rest as it is: without NODE the default policy,
which holds for all nodes; with it the node's own. A node's networks hold besides
those of the default policy, its limit in the place of theirs.

A new default policy that refuses nodes which are served now, as kms policy test
shows them, is asked about: type their number, or give it with --confirm. If someone
else changes the policy at the same time, nothing is changed. Needs the role admin.`,
		Args: maybe("NODE"),
	}
	p.flags(cmd)
	enrol := cmd.Flags().String("enrol", "", "`MODE` for nodes that are not known: allow-list has an operator approve each, open lets in whoever seals first")
	inherit := cmd.Flags().Bool("inherit", false, "take the node's own policy away, so that the default applies")
	reason := reasonFlag(cmd)
	again := confirmFlag(cmd, "NUMBER")
	cmd.RunE = func(cmd *cobra.Command, given []string) error {
		uuid, _, err := nodeOrDefault(given)
		some, wrong := p.given(cmd)
		r := &wire.SetPolicyRequest{Reason: *reason, Target: &wire.SetPolicyRequest_Default{Default: true}}
		if uuid != "" {
			r.Target = &wire.SetPolicyRequest_Node{Node: uuid}
		}
		switch {
		case err != nil:
			return err
		case uuid == "" && *inherit:
			return usageError("--inherit is about a node; name it")
		case wrong != nil:
			return wrong
		case *inherit && some:
			return usageError("--inherit and a policy exclude each other")
		case uuid != "" && *enrol != "":
			return usageError("--enrol is of the default policy; leave the node out")
		case !some && !*inherit && *enrol == "":
			return usageError("nothing to change is given; see %s --help", cmd.CommandPath())
		}
		if r.Enrolment, err = readEnrol(*enrol); err != nil {
			return err
		}
		return kmsAsk(k, func(cmd *cobra.Command, a *kmsAdmin, given []string) error {
			if !*inherit {
				if err := a.prepare(cmd, &p, uuid, r); err != nil {
					return err
				}
			}
			if uuid == "" && some {
				if err := a.confirmDefault(cmd, r.GetPolicy(), *again); err != nil {
					return err
				}
			}
			return a.setPolicy(cmd, r)
		})(cmd, given)
	}
	return cmd
}

// prepare makes the new policy of the one that there is, and has the change refused if
// that is another one by then.
func (a *kmsAdmin) prepare(cmd *cobra.Command, p *policyFlags, uuid string, r *wire.SetPolicyRequest) (err error) {
	if uuid != "" {
		r.Expected, err = a.own(cmd, uuid)
	} else {
		var now *wire.GetPolicyResponse
		now, err = a.getPolicy(cmd, "")
		if r.Expected = now.GetPolicy(); r.GetEnrolment() != wire.Enrolment_ENROLMENT_UNSPECIFIED {
			r.ExpectedEnrolment = now.GetEnrolment()
		}
	}
	if err == nil {
		r.Policy, err = p.change(cmd, r.GetExpected())
	}
	return err
}

// confirmDefault asks about a default policy that refuses nodes which are served.
func (a *kmsAdmin) confirmDefault(cmd *cobra.Command, p *wire.Policy, given string) error {
	all, err := a.refusedBy(cmd, &wire.TestPolicyRequest{Policy: p})
	if err != nil {
		return err
	}
	refused := 0
	for _, r := range all {
		if r.Verdict == "refused" {
			refused++
		}
	}
	if open := len(all) - refused; open > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "nodes that the server has not seen since its start, and that cannot be judged: %d (cryptctl kms policy test shows them)\n", open)
	}
	if refused == 0 {
		return nil
	}
	return typed(cmd, given, fmt.Sprintf("This default policy refuses %d nodes that are served now (cryptctl kms policy test shows them)", refused), strconv.Itoa(refused))
}

// own is the policy that a change begins with: a node's own, an empty one for a node
// that has none or is not known, or the default.
func (a *kmsAdmin) own(cmd *cobra.Command, uuid string) (*wire.Policy, error) {
	r, err := a.getPolicy(cmd, uuid)
	if uuid != "" && (r.GetInherited() || refusedAs(err, codes.NotFound)) {
		return &wire.Policy{}, nil
	}
	return r.GetPolicy(), err
}

func (a *kmsAdmin) setPolicy(cmd *cobra.Command, r *wire.SetPolicyRequest) error {
	before, err := a.SetPolicy(cmd.Context(), r)
	if err != nil {
		return err
	}
	now, err := a.getPolicy(cmd, r.GetNode())
	if err != nil {
		return err
	}
	was, is := newPolicyView(before.GetPrevious()), newPolicyView(now.GetPolicy())
	if r.GetNode() == "" {
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "before: %s\nnow:    %s\n", was.with(before.GetPreviousEnrolment()), is.with(now.GetEnrolment()))
		return err
	}
	none := len(was.Networks) == 0 && was.PerHour == 0
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "before:   %s\nnow:      %s\nin force: %s\n",
		ownText(was, none), ownText(is, now.GetInherited()), newEffective(now.GetEffective()))
	return err
}

func readEnrol(text string) (wire.Enrolment, error) {
	switch policy.Enrolment(text) {
	case "":
		return wire.Enrolment_ENROLMENT_UNSPECIFIED, nil
	case policy.AllowList:
		return wire.Enrolment_ENROLMENT_ALLOW_LIST, nil
	case policy.Open:
		return wire.Enrolment_ENROLMENT_OPEN, nil
	}
	return 0, usageError("--enrol %q: must be %s or %s", text, policy.AllowList, policy.Open)
}
