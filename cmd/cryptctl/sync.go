package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

// reconcile are the flags of plan and sync.
type reconcile struct {
	target
	keySource
	keys.Policy
}

func (r *reconcile) flags(cmd *cobra.Command) {
	r.target.flags(cmd)
	r.keySource.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&r.Adopt, "adopt", false, "replace slots that another tool made where a configured key belongs")
	f.BoolVar(&r.Prune, "prune", false, "remove slots that this tool did not make and the configuration does not have")
	f.BoolVar(&r.Reseal, "reseal", false, "seal keys anew that are sealed to another state of the machine")
}

// session opens the volume with the configured keys or, when none of them does,
// with the passphrase that was given.
func (r *reconcile) session(ctx context.Context, path string, mode luks.Mode, opts keys.Options) (s *keys.Session, done func(), err error) {
	w, err := r.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	if opts.Limits, err = r.limits(); err != nil {
		w.free()
		return nil, nil, err
	}
	v, h, err := r.read(path, mode)
	if err != nil {
		w.free()
		return nil, nil, err
	}
	done = func() {
		if s != nil {
			s.Close()
		}
		v.Close()
		w.free()
	}
	opts.Policy = r.Policy
	if r.keyFile != "" {
		p, err := r.passphrase(ctx)
		if err != nil {
			done()
			return nil, nil, err
		}
		defer p.Wipe()
		opts.Passphrases = []*secret.Bytes{p}
	}
	if s, err = keys.Open(ctx, h, r.volume, w.keys, opts); err != nil {
		done()
		if errors.Is(err, keys.ErrNoKey) && r.keyFile == "" {
			err = fmt.Errorf("%w\ngive a passphrase that opens it with --key-file", err)
		}
		return nil, nil, fmt.Errorf("%s: %w", v.name, err)
	}
	return s, done, nil
}

func planCommand() *cobra.Command {
	var r reconcile
	cmd := &cobra.Command{
		Use:   "plan DEVICE",
		Short: "Show what sync would do to the slots, without doing it",
		Long: `Opens the volume, checks every configured key against its slot, and shows what
sync would do and why. It writes nothing.`,
		Args: args("DEVICE"),
	}
	r.flags(cmd)
	asJSON := jsonFlag(cmd)
	verdict := cmd.Flags().Bool("exit-code", false, "exit with 3 when changes are pending")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ctx := withProgress(cmd.Context())
		s, done, err := r.session(ctx, a[0], luks.ReadOnly, keys.Options{})
		if err != nil {
			return err
		}
		defer done()
		state, err := s.State(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", a[0], err)
		}
		steps := keys.Plan(state, r.Policy)
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), steps)
		} else {
			err = keys.WriteSteps(cmd.OutOrStdout(), steps)
		}
		if err != nil || !*verdict {
			return err
		}
		if keys.Pending(steps) {
			return &exitError{code: exitPending}
		}
		return notAsConfigured(a[0], steps)
	}
	return cmd
}

// notAsConfigured is an error when slots are not as they should be and sync
// would leave them so.
func notAsConfigured(name string, steps []keys.Step) error {
	n := 0
	for _, s := range steps {
		if s.Action == keys.Blocked {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s: %d of %d slots are not as configured and sync cannot mend it; the reasons are above", name, n, len(steps))
}

func syncCommand() *cobra.Command {
	var r reconcile
	var c costFlags
	cmd := &cobra.Command{
		Use:   "sync DEVICE",
		Short: "Make the slots match the configuration",
		Long: `Opens the volume and makes its keyslots match the machine configuration, in one
step: after a power cut the old keys open it or the new ones. A key is removed
only if a configured one was seen to open the volume. Slots that another tool
made stay, unless --prune or --adopt says otherwise.

When all keys change at once, give the old one with --key-file.`,
		Args: args("DEVICE"),
	}
	r.flags(cmd)
	c.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ctx := withProgress(cmd.Context())
		var opts keys.Options // without a cost it is calibrated when a slot is made, which mostly none is
		if c != defaultCost() {
			var err error
			if opts.Cost, err = c.cost(ctx); err != nil {
				return err
			}
		}
		s, done, err := r.session(ctx, a[0], luks.ReadWrite, opts)
		if err != nil {
			return err
		}
		defer done()
		report, err := s.Apply(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", a[0], err)
		}
		if report == nil {
			return err
		}
		if *asJSON {
			err = errors.Join(err, printJSON(cmd.OutOrStdout(), report))
		} else {
			err = errors.Join(err, report.WriteTable(cmd.OutOrStdout()))
		}
		if n := report.Blocked(); err == nil && n > 0 {
			return fmt.Errorf("%s: %d of %d slots are not as configured; the reasons are above", a[0], n, len(report.Slots))
		}
		return err
	}
	return cmd
}
