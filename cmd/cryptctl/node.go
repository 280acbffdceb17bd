package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/node"
	"github.com/cryptctl/cryptctl/provide"
	"github.com/cryptctl/cryptctl/secret"
	volumes "github.com/cryptctl/cryptctl/volume"
)

// exitMaintenance: the node waits for a machine configuration.
const exitMaintenance = 3

// daemon is the flag of commands that talk to a node daemon.
func daemon(cmd *cobra.Command) *node.Client {
	c := &node.Client{}
	cmd.Flags().StringVar(&c.Socket, "socket", node.Socket, "`PATH` where the node daemon answers")
	return c
}

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the volumes of the running node",
		Long: `Shows for each volume how far it came, the slot that opened it, the kinds of its
keys, changes that are not in force yet, and the last errors.`,
		Args: args(),
	}
	client := daemon(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := client.Status(cmd.Context())
		if err != nil {
			return err
		}
		return writeStatus(cmd, s, *asJSON)
	}
	return cmd
}

func writeStatus(cmd *cobra.Command, s node.Status, asJSON bool) error {
	if asJSON {
		return printJSON(cmd.OutOrStdout(), s)
	}
	return s.WriteTable(cmd.OutOrStdout())
}

func applyCommand() *cobra.Command {
	var file, mode string
	cmd := &cobra.Command{
		Use:   "apply --file FILE",
		Short: "Bring a machine configuration to the running node",
		Long: `Hands a machine configuration to the node daemon and says which changes take
effect now, on the next boot, or need a wipe. Modes:

  auto       at once; what needs a reboot brings one about
  no-reboot  at once, or nothing is done, and the fields in the way are named
  staged     on the next boot
  try        at once, and taken back unless another apply follows within --timeout

A node in maintenance takes its first configuration with auto: STATE is made as
it says.`,
		Args: args(),
	}
	client := daemon(cmd)
	configFlag(cmd, &file, "machine configuration `FILE`; - is stdin")
	modeFlag(cmd, &mode)
	cmd.Flags().DurationVar(&client.TryTimeout, "timeout", 0, "`TIME` after which --mode try is taken back (default the daemon's, a minute unless it was told otherwise)")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch timed := cmd.Flags().Changed("timeout"); {
		case file == "":
			return usageError("--file says which configuration is meant")
		case timed && node.Mode(mode) != node.Try:
			return usageError("--timeout is for --mode try")
		case timed && client.TryTimeout <= 0:
			return usageError("--timeout %s: must be more than nothing, such as 2m", client.TryTimeout)
		}
		text, err := readMachine(cmd.Context(), file)
		if err != nil {
			return err
		}
		defer text.Wipe()
		a, err := client.Apply(cmd.Context(), text.Bytes(), node.Mode(mode))
		return writeApplied(cmd, a, err, *asJSON)
	}
	return cmd
}

// readMachine reads the machine configuration for a node, "-" is stdin, of which
// the node says whether it is right. An empty one is a mistake.
func readMachine(ctx context.Context, path string) (*secret.Bytes, error) {
	name, text, err := readSource(ctx, path)
	if err == nil && text.Len() == 0 {
		return nil, fmt.Errorf("%s holds no machine configuration: it is empty", name)
	}
	return text, err
}

// writeApplied says what became of a configuration, beside an error too, which it
// returns.
func writeApplied(cmd *cobra.Command, a node.Applied, err error, asJSON bool) error {
	if a.Mode == "" {
		return err
	}
	if asJSON {
		return errors.Join(err, printJSON(cmd.OutOrStdout(), a))
	}
	for _, c := range a.Changes {
		fmt.Fprintln(cmd.OutOrStdout(), c)
	}
	return errors.Join(err, a.Status.WriteTable(cmd.OutOrStdout()))
}

func resetCommand() *cobra.Command {
	var labels []string
	cmd := &cobra.Command{
		Use:   "reset --system-labels-to-wipe LABEL[,LABEL]",
		Short: "Destroy volumes of the running node, by name",
		Long: `Wipes the named volumes: their headers, their keys and all data. On the next boot
they are made anew as the configuration says; a node without STATE waits for
one. What is in use is wiped on the next boot.`,
		Args: args(),
	}
	client := daemon(cmd)
	cmd.Flags().StringSliceVar(&labels, "system-labels-to-wipe", nil, "`LABELS` of the volumes to destroy")
	reboot := cmd.Flags().Bool("reboot", false, "reboot afterwards")
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if len(labels) == 0 {
			return usageError("--system-labels-to-wipe says which volumes are to be destroyed")
		}
		if err := confirm(cmd, *yes, fmt.Sprintf("All data of %v will be lost for good", labels), labels[0]); err != nil {
			return err
		}
		s, err := client.Reset(cmd.Context(), labels, *reboot)
		if err != nil {
			return err
		}
		return writeStatus(cmd, s, *asJSON)
	}
	return cmd
}

// bootFlags say how `boot` boots.
type bootFlags struct {
	disks    []string
	root     string
	config   string
	uuid     string
	cost     string
	accept   []string
	once     bool
	closing  bool
	trialFor time.Duration
	socket   string
	tpm      tpmTarget
	pin      pinSource
	kms      kmsFlags
}

func bootCommand() *cobra.Command {
	var b bootFlags
	cmd := &cobra.Command{
		Use:   "boot",
		Short: "Bring up the volumes of this machine, and answer status, apply and reset",
		Long: `Does what a node daemon does when the machine starts: META says how STATE opens,
STATE holds the machine configuration, and that says what the other volumes are.
Then it stays and answers the commands status, apply and reset. Only empty
partitions are formatted. Its log goes to stderr and to the destinations of the
configuration's machine.logging, the kernel's messages to those of KmsgLogConfig.

With --once it does not stay, and logs nothing: exit code 0 when the node runs,
3 when it has no configuration (maintenance), 1 when STATE does not open. Key
servers then have --kms-timeout to answer, also where other keys open the
volumes.`,
		Args: args(),
	}
	f := cmd.Flags()
	f.StringSliceVar(&b.disks, "disk", nil, "`DISKS` to look for partitions on (default all)")
	f.StringVar(&b.root, "root", "", "`DIR` that goes before every mount point")
	configFlag(cmd, &b.config, "machine configuration `FILE` for a node that has none; - is stdin")
	f.StringVar(&b.uuid, "node-uuid", "", "the node's `UUID` (default: what the firmware says)")
	f.StringVar(&b.cost, "cost", "", "`COST` of new passphrase slots: light, for tests (default calibrated)")
	f.StringSliceVar(&b.accept, "accept", nil, "`VOLUMES` to accept although they are not the ones recorded")
	f.BoolVar(&b.once, "once", false, "boot, say how it went, and leave the volumes open")
	f.BoolVar(&b.closing, "close", false, "with --once: unmount and close everything again")
	f.DurationVar(&b.trialFor, "try-timeout", time.Minute, "`TIME` after which apply --mode try is taken back")
	f.StringVar(&b.socket, "socket", node.Socket, "`PATH` to answer on")
	b.tpm.flags(cmd)
	b.pin.flag(cmd)
	b.kms.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if b.closing && !b.once {
			return usageError("--close is for --once")
		}
		if err := oneStdin(append(unasked(b.pin.file), b.config)...); err != nil {
			return err
		}
		opts, free, err := b.options(cmd)
		if err != nil {
			return err
		}
		defer free()
		n := node.New(opts)
		if b.once {
			return b.bootOnce(cmd, n, *asJSON)
		}
		return b.serve(cmd.Context(), n)
	}
	return cmd
}

func (b *bootFlags) options(cmd *cobra.Command) (opts node.Options, free func(), err error) {
	device, err := b.tpm.dial()
	if err != nil {
		return opts, nil, err
	}
	opts = node.Options{
		System: volumes.Linux{Disks: b.disks}, Root: b.root, Machine: provide.Machine{UUID: b.uuid, TPM: device, PIN: b.pin.get, KMS: b.kms.options()},
		TryTimeout: b.trialFor, Accept: b.accept,
	}
	switch b.cost {
	case "":
	case "light":
		opts.Keys.Cost = kdf.Light()
	default:
		return opts, nil, usageError("--cost %q: must be light, or left out", b.cost)
	}
	var text *secret.Bytes
	if b.config != "" {
		if text, err = readMachine(cmd.Context(), b.config); err != nil {
			return opts, nil, err
		}
		opts.Config = text.Bytes()
	}
	if b.once { // then the status says it all
		return opts, text.Wipe, nil
	}
	remote, log, end := remoteLog("cryptctl", slog.NewTextHandler(cmd.ErrOrStderr(), nil))
	opts.Keys.Log, opts.Configured = log, func(c *config.Config) { remote.Set(c.Logging) }
	return opts, func() { text.Wipe(); end() }, nil
}

func (b *bootFlags) bootOnce(cmd *cobra.Command, n *node.Node, asJSON bool) error {
	err := n.Boot(cmd.Context())
	n.Finish(cmd.Context()) // who could do it later?
	s := n.Status()
	if s.Phase != node.Running { // whoever called has control from here on
		err = errors.Join(err, n.Latch(cmd.Context()))
	}
	err = errors.Join(err, writeStatus(cmd, s, asJSON))
	if b.closing {
		err = errors.Join(err, n.Close(context.WithoutCancel(cmd.Context())))
	}
	if err == nil && s.Phase == node.Maintenance {
		return &exitError{code: exitMaintenance}
	}
	return err
}

// serve boots and answers until a signal comes. The volumes stay open.
func (b *bootFlags) serve(ctx context.Context, n *node.Node) error {
	l, err := node.Listen(b.socket)
	if err != nil {
		return err
	}
	defer l.Close()
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(l) }()
	if err := n.BootUntilUp(ctx, node.DefaultBackoff); err != nil {
		fmt.Fprintf(os.Stderr, "cryptctl: %v\ncryptctl: still answering on %s\n", err, b.socket)
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}
