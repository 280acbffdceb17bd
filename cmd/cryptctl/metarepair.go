package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/meta"
)

// metaRepair are the flags of meta repair.
type metaRepair struct {
	metaTarget
	yes, reset, values bool
}

func metaRepairCommand() *cobra.Command {
	var r metaRepair
	cmd := &cobra.Command{
		Use:   "repair DEVICE",
		Short: "Mend a damaged copy of META from the other one",
		Long: `Shows what is damaged and what would be done, and does it when that is confirmed:
the copy that counts is written over the other one. The legacy vector is never
touched. When both copies are damaged nothing is written, unless --reset makes
META empty; what still looks like values is listed before, and lost with it.`,
		Args: args("DEVICE"),
	}
	r.flags(cmd)
	f := cmd.Flags()
	f.BoolVar(&r.yes, "yes", false, "do not ask")
	f.BoolVar(&r.reset, "reset", false, "make META empty when both copies are damaged")
	f.BoolVar(&r.values, "values", false, "show the values that can be salvaged, except those that may hold a passphrase")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, err := r.open(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		out := cmd.OutOrStdout()
		if *asJSON {
			out = io.Discard
		}
		done, err := r.run(cmd, out, v)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), done)
		}
		for _, d := range done.Done {
			fmt.Fprintln(out, d)
		}
		if len(done.Done) == 0 {
			fmt.Fprintln(out, "nothing to repair")
		}
		return nil
	}
	return cmd
}

// repaired is what meta repair found and did.
type repaired struct {
	Damage  []string  `json:"damage"`
	Salvage []metaRow `json:"salvage"` // of a META that was made empty
	Done    []string  `json:"done"`
}

// run shows the damage, asks, and mends it.
func (r *metaRepair) run(cmd *cobra.Command, out io.Writer, v *volume) (*repaired, error) {
	did := &repaired{Damage: []string{}, Salvage: []metaRow{}, Done: []string{}}
	m, err := meta.Read(v.data)
	var lost *meta.DamageError
	switch {
	case errors.As(err, &lost):
		if err := r.writeLost(out, v, lost, did); err != nil {
			return nil, err
		}
		if !r.reset {
			return nil, r.explain(v, err)
		}
		err = confirm(cmd, r.yes, "META of "+v.name+" will be made empty, and what it held is lost", "reset")
	case err != nil:
		return nil, r.explain(v, err)
	default:
		for _, d := range m.Damage() {
			did.Damage = append(did.Damage, d)
			fmt.Fprintf(out, "%s: %s\n", v.name, d)
		}
		if needed, err := needsRepair(v.data); err != nil || !needed {
			return did, err
		}
		err = confirm(cmd, r.yes, "The copy of META on "+v.name+" that counts will be written over the other one", "repair")
	}
	if err != nil {
		return nil, err
	}
	done, err := meta.Repair(v.data, meta.RepairOptions{Reset: lost != nil})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	did.Done = append(did.Done, done...)
	return did, nil
}

// writeLost shows what is left of a META that cannot be read.
func (r *metaRepair) writeLost(out io.Writer, v *volume, lost *meta.DamageError, did *repaired) error {
	for _, c := range lost.Copies {
		did.Damage = append(did.Damage, c.Name+" is not used: "+c.Flaw)
		fmt.Fprintf(out, "%s: %s is not used: %s\n", v.name, c.Name, c.Flaw)
		if len(c.Salvage) == 0 {
			fmt.Fprintln(out, "nothing in it looks like a value")
			continue
		}
		fmt.Fprintln(out, "what looks like values in it, which nothing vouches for:")
		var rows []metaRow
		for _, s := range c.Salvage {
			rows = append(rows, newMetaRow(s.Tag, s.Value, r.values))
		}
		did.Salvage = append(did.Salvage, rows...)
		if err := writeMeta(out, rows, r.values); err != nil {
			return err
		}
	}
	return nil
}

// needsRepair repairs a copy in memory: damage of the legacy vector is shown and
// never mended, and nobody is asked about that.
func needsRepair(dev luks.Device) (bool, error) {
	trial := make(memory, meta.Size)
	if _, err := dev.ReadAt(trial, 0); err != nil && err != io.EOF {
		return false, err
	}
	done, err := meta.Repair(trial, meta.RepairOptions{})
	return len(done) > 0, err
}

// memory is a device in memory, of the size of the slice.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) { return copy(p, m[off:]), nil }

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

func (m memory) Sync() error { return nil }

func (m memory) Size() int64 { return int64(len(m)) }
