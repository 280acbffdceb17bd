package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/luks"
)

func headerCommand() *cobra.Command {
	return group("header", "Back up, restore and repair headers",
		headerBackupCommand(), headerRestoreCommand(), headerRepairCommand())
}

func headerBackupCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "backup DEVICE FILE",
		Short: "Write the header to a new file, in cryptsetup's format",
		Long: `Writes both header copies and the key material in use to a new file that only its
owner may read. Keys that are removed later open the volume again when such a
backup is restored: keep it as safe as the keys.`,
		Args: args("DEVICE", "FILE"),
	}
	t.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, h, err := t.read(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		if err := h.BackupFile(a[1]); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "backed up the header of volume %s, sequence %d, %d slots, to %s\n", plain(h.UUID()), h.SeqID(), len(h.Keyslots()), a[1])
		return nil
	}
	return cmd
}

func headerRestoreCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "restore DEVICE FILE",
		Short: "Bring back a header from a backup",
		Long: `Shows which slots would open the volume again and which would be lost, and
restores the backup when that is confirmed. A backup of another volume, of
another layout or onto a device without a header needs --force.`,
		Args: args("DEVICE", "FILE"),
	}
	t.flags(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	asJSON := jsonFlag(cmd)
	force := cmd.Flags().Bool("force", false, "restore in spite of the concerns that are listed")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		backup, done, err := readBackup(a[1])
		if err != nil {
			return err
		}
		defer done()
		v, err := t.open(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		r, err := luks.PlanRestore(v.header, backup)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		out := cmd.OutOrStdout()
		if *asJSON {
			out = io.Discard
		}
		writeRestore(out, backup, r)
		if err := confirm(cmd, *yes, "The header of "+v.name+" will be replaced", "restore"); err != nil {
			return err
		}
		h, err := r.Run(*force)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{
				"uuid": h.UUID(), "seqid": h.SeqID(), "revived": orEmpty(r.Revived), "lost": orEmpty(r.Lost), "concerns": orEmpty(r.Concerns),
			})
		}
		fmt.Fprintf(out, "restored; sequence is now %d\n", h.SeqID())
		return nil
	}
	return cmd
}

// readBackup returns a backup's header; done closes its file.
func readBackup(path string) (_ *luks.Header, done func(), err error) {
	file, err := luks.OpenFile(path, luks.ReadOnly)
	if err != nil {
		return nil, nil, fmt.Errorf("backup: %w", err)
	}
	backup, err := luks.Read(file)
	if err != nil {
		file.Close()
		return nil, nil, fmt.Errorf("backup %s: %w", path, err)
	}
	return backup, func() { file.Close() }, nil
}

func writeRestore(w io.Writer, backup *luks.Header, r *luks.Restoration) {
	fmt.Fprintf(w, "backup of volume %s, sequence %d\n", plain(backup.UUID()), backup.SeqID())
	fmt.Fprintf(w, "  slots that open again: %s\n", slotList(r.Revived))
	fmt.Fprintf(w, "  slots that are lost:   %s\n", slotList(r.Lost))
	for _, c := range r.Concerns {
		fmt.Fprintf(w, "  concern: %s\n", c)
	}
}

// orEmpty makes JSON of nothing [], not null.
func orEmpty[T any](list []T) []T { return append([]T{}, list...) }

func slotList(slots []int) string {
	if len(slots) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(slots), "[]")
}

func headerRepairCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "repair DEVICE",
		Short: "Mend a damaged header copy from the other one",
		Long: `Writes the copy that is in force over one that is damaged or stale, and wipes key
material that no keyslot uses. Without a good copy nothing is written; restore a
backup then.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, err := t.open(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		_, done, err := luks.Repair(v.header)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, explain(err))
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"done": orEmpty(done)})
		}
		for _, d := range done {
			fmt.Fprintln(cmd.OutOrStdout(), d)
		}
		if len(done) == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "nothing to repair")
		}
		return nil
	}
	return cmd
}

func eraseCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "erase DEVICE",
		Short: "Destroy all keys of a volume, and with them its data, for good",
		Long: `Removes every keyslot and token and overwrites all key material. The data can be
read by nobody afterwards, except with a backup of the header.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	yes := cmd.Flags().Bool("yes", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, h, err := t.read(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		what := fmt.Sprintf("All data of volume %s on %s will be lost for good", plain(h.UUID()), v.name)
		if err := confirm(cmd, *yes, what, plain(h.UUID())); err != nil {
			return err
		}
		if _, err := h.Erase(); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "erased volume %s\n", plain(h.UUID()))
		return nil
	}
	return cmd
}
