package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/secret"
	volumes "github.com/cryptctl/cryptctl/volume"
)

// openFlags say how a volume is opened.
type openFlags struct {
	target
	keySource
	slot     int
	test     bool
	asJSON   bool
	readOnly bool
	keyInMap bool
	dmFlags  map[mapping.Flag]*bool
	ofMap    *pflag.FlagSet // those that mean nothing without a mapping
}

func openCommand() *cobra.Command {
	var o openFlags
	cmd := &cobra.Command{
		Use:   "open DEVICE [NAME]",
		Short: "Open a volume as /dev/mapper/NAME, or try a key with --test",
		Long: `Unlocks the volume with the keys of a machine configuration or with a passphrase,
and maps it with dm-crypt as cryptsetup does; cryptctl close or cryptsetup close
ends that. A volume that is open under the name already is left as it is.

With a configuration NAME is luks2-VOLUME unless it is given, and the options and
allowDiscards of the configuration apply. So do the flags that the header makes
persistent; those of the command line are for this mapping only, and the header
is never written. Only block devices can be mapped: an image file needs a loop
device.

A LUKS1 volume opens with a passphrase only; its key stands in the table, where
root can read it, as cryptsetup has it.

With --test nothing is mapped: it says which slot the key opens, on image files
too. Exit code 5 when none does, with and without --test.`,
		Args: func(cmd *cobra.Command, given []string) error {
			if len(given) < 2 {
				return args("DEVICE")(cmd, given)
			}
			return args("DEVICE", "NAME")(cmd, given)
		},
	}
	o.target.flags(cmd)
	o.keySource.flags(cmd)
	f := cmd.Flags()
	slotFlag(cmd, &o.slot, -1, "try slot `N` only")
	f.BoolVar(&o.test, "test", false, "only try, do not map")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	o.mapFlags()
	f.AddFlagSet(o.ofMap)
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "disable-keyring" { // cryptsetup's name
			name = "no-keyring"
		}
		return pflag.NormalizedName(name)
	})
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if o.test {
			return o.try(cmd, a)
		}
		return o.run(cmd, a)
	}
	return cmd
}

// mapFlags defines the flags of mappings, by cryptsetup's names where they say it.
func (o *openFlags) mapFlags() {
	o.ofMap = pflag.NewFlagSet("mapping", pflag.ContinueOnError)
	o.ofMap.BoolVar(&o.readOnly, "readonly", false, "map for reading only")
	o.ofMap.BoolVar(&o.keyInMap, "no-keyring", false, "give the kernel the key in the table, where root can read it, and not through the keyring; also --disable-keyring")
	o.dmFlags = map[mapping.Flag]*bool{
		mapping.AllowDiscards:       o.ofMap.Bool("allow-discards", false, "pass discards on, which shows on the disk which blocks are unused"),
		mapping.NoReadWorkqueue:     o.ofMap.Bool("perf-no_read_workqueue", false, "decrypt at once and not in a work queue"),
		mapping.NoWriteWorkqueue:    o.ofMap.Bool("perf-no_write_workqueue", false, "encrypt at once and not in a work queue"),
		mapping.SameCPUCrypt:        o.ofMap.Bool("perf-same_cpu_crypt", false, "encrypt on the processor that the request comes from"),
		mapping.SubmitFromCryptCPUs: o.ofMap.Bool("perf-submit_from_crypt_cpus", false, "submit writes from where they were encrypted, without sorting them"),
	}
}

// options are those of the command line.
func (o *openFlags) options(name string) mapping.Options {
	opts := mapping.Options{Name: name, ReadOnly: o.readOnly, NoKeyring: o.keyInMap}
	for _, f := range mapping.Flags() {
		if set := o.dmFlags[f]; set != nil && *set {
			opts.Flags = append(opts.Flags, f)
		}
	}
	return opts
}

// name is that of the mapping.
func (o *openFlags) name(a []string) (string, error) {
	switch {
	case len(a) > 1:
		return a[1], nil
	case o.volume != "":
		return volumes.MappingName(o.volume), nil
	}
	return "", usageError("NAME says how the volume is called below /dev/mapper; only with --volume it has a default. open --test tries a key without a mapping")
}

// try is open --test.
func (o *openFlags) try(cmd *cobra.Command, a []string) error {
	if len(a) > 1 {
		return usageError("--test makes no mapping: %q is one argument too many", a[1])
	}
	var unused []string
	o.ofMap.VisitAll(func(f *pflag.Flag) {
		if f.Changed {
			unused = append(unused, "--"+f.Name)
		}
	})
	if len(unused) > 0 {
		return usageError("--test makes no mapping: leave out %s", strings.Join(unused, ", "))
	}
	v, h, err := o.read(a[0], luks.ReadOnly)
	if errors.Is(err, luks.LUKS1) {
		return o.openLUKS1(cmd, a[0], "")
	} else if err != nil {
		return err
	}
	defer v.Close()
	key, _, err := o.findKey(withProgress(cmd.Context()), h, o.slot)
	if err != nil {
		return unlockFailed(v, err)
	}
	defer key.Wipe()
	return o.writeTried(cmd, h.UUID(), key.Slot())
}

func (o *openFlags) writeTried(cmd *cobra.Command, uuid string, slot int) error {
	if o.asJSON {
		return printJSON(cmd.OutOrStdout(), map[string]any{"slot": slot, "uuid": uuid})
	}
	fmt.Fprintf(cmd.OutOrStdout(), "slot %d opens volume %s\n", slot, plain(uuid))
	return nil
}

// run maps the volume.
func (o *openFlags) run(cmd *cobra.Command, a []string) error {
	name, err := o.name(a)
	if err != nil {
		return err
	}
	v, h, err := o.read(a[0], luks.ReadOnly)
	if errors.Is(err, luks.LUKS1) {
		return o.openLUKS1(cmd, a[0], name)
	} else if err != nil {
		return err
	}
	defer v.Close()
	device := v.files[0] // the one with the data
	if err := o.mappable(v, device); err != nil {
		return err
	}
	// What fails without a key fails before one is asked for.
	if _, err := mapping.Find(h, name); err != nil && !errors.Is(err, mapping.ErrNotOpen) {
		return fmt.Errorf("%s: %w", v.name, err)
	}
	key, enc, err := o.findKey(withProgress(cmd.Context()), h, o.slot)
	if err != nil {
		return unlockFailed(v, err)
	}
	defer key.Wipe()
	opts := o.options(name)
	opts.Flags = append(opts.Flags, flagsOf(enc)...)
	m, err := mapping.Activate(h, key, device.File(), opts)
	if err != nil {
		return err
	}
	return o.writeOpened(cmd, h.UUID(), key.Slot(), m, opts.Flags)
}

// mappable refuses an image file and says what to do.
func (o *openFlags) mappable(v *volume, device *luks.File) error {
	info, err := device.File().Stat()
	if err != nil || info.Mode()&fs.ModeDevice != 0 {
		return err
	}
	path, how := device.File().Name(), "losetup --find --show"
	switch {
	case o.partition != "":
		how += " --partscan " + path + ", then open the partition's own device"
	case o.offset != "":
		how += " --offset " + o.offset + " " + path
	default:
		how += " " + path
	}
	return usageError("%s: only a block device can be mapped, and this is an image file; make a loop device of it: %s", v.name, how)
}

// flagsOf is what a configuration says of a mapping; nil says nothing.
func flagsOf(enc *config.Encryption) []mapping.Flag {
	if enc == nil {
		return nil
	}
	return mapping.Configured(enc.Options, enc.AllowDiscards)
}

// notes say in what a mapping is not as it was asked for.
func notes(m *mapping.Mapping, asked []mapping.Flag) (out []string) {
	for _, f := range m.Dropped {
		out = append(out, fmt.Sprintf("the kernel does not know the flag %s; the volume is open without it", f))
	}
	if !m.Existing || m.Table == nil {
		return out
	}
	for _, f := range asked {
		if !slices.Contains(m.Table.Flags, f) {
			out = append(out, fmt.Sprintf("the volume was open already, without the flag %s; close it first to change that", f))
		}
	}
	return out
}

// writeOpened says what is open now, and in what it is not as it was asked for.
func (o *openFlags) writeOpened(cmd *cobra.Command, uuid string, slot int, m *mapping.Mapping, asked []mapping.Flag) error {
	for _, n := range notes(m, asked) {
		fmt.Fprintln(cmd.ErrOrStderr(), "note:", n)
	}
	w := cmd.OutOrStdout()
	switch {
	case o.asJSON:
		return printJSON(w, map[string]any{"slot": slot, "uuid": uuid, "mapping": m})
	case m.Existing:
		fmt.Fprintf(w, "volume %s is open already as %s\n", plain(uuid), m.Path)
	case m.ReadOnly:
		fmt.Fprintf(w, "slot %d opened volume %s as %s, read-only\n", slot, plain(uuid), m.Path)
	default:
		fmt.Fprintf(w, "slot %d opened volume %s as %s\n", slot, plain(uuid), m.Path)
	}
	return nil
}

// unlockFailed gives the error of findKey its exit code.
func unlockFailed(v *volume, err error) error {
	err = fmt.Errorf("%s: %w", v.name, err)
	if errors.Is(err, luks.ErrWrongPassphrase) || errors.Is(err, luks.ErrNoUsableSlot) || errors.Is(err, keys.ErrNoKey) {
		return &exitError{exitNoKey, err}
	}
	return err
}

// findKey finds the volume key with a passphrase or with the configuration, which
// it returns then. The caller wipes the key. A slot below 0 is any.
func (k *keySource) findKey(ctx context.Context, h *luks.Header, slot int) (*luks.VolumeKey, *config.Encryption, error) {
	limits, err := k.limits()
	if err != nil {
		return nil, nil, err
	}
	configured, err := k.configured()
	if err != nil {
		return nil, nil, err
	}
	if configured {
		return k.findConfigured(ctx, h, slot, limits)
	}
	p, err := k.passphrase(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer p.Wipe()
	key, err := unlockWith(ctx, h, p, slot, limits)
	return key, nil, err
}

func (k *keySource) findConfigured(ctx context.Context, h *luks.Header, slot int, limits kdf.Limits) (*luks.VolumeKey, *config.Encryption, error) {
	w, err := k.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer w.free()
	want := slices.DeleteFunc(w.keys, func(key keys.Key) bool { return slot >= 0 && key.Slot != slot })
	if len(want) == 0 {
		return nil, nil, usageError("the configuration has no key for slot %d", slot)
	}
	key, err := keys.Unlock(ctx, h, k.volume, want, keys.Options{Limits: limits})
	return key, &w.Encryption, err
}

func unlockWith(ctx context.Context, h *luks.Header, p *secret.Bytes, slot int, limits kdf.Limits) (*luks.VolumeKey, error) {
	opts := luks.UnlockOptions{Limits: limits}
	if slot >= 0 {
		opts.Slots = []int{slot}
	}
	return h.Unlock(ctx, p, opts)
}
