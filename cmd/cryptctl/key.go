package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/secret"
)

func keyCommand() *cobra.Command {
	return group("key", "List, add, replace, remove and test keys by hand",
		keyListCommand(), keyAddCommand(), keyReplaceCommand(), keyRemoveCommand(), keyTestCommand())
}

func keyListCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{Use: "list DEVICE", Short: "List the keyslots", Args: args("DEVICE")}
	t.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		v, h, err := t.read(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), slotRows(h))
		}
		return writeSlots(cmd.OutOrStdout(), slotRows(h))
	}
	return cmd
}

// newKey are the flags of commands that make a key by hand.
type newKey struct {
	target
	keySource
	costFlags
	slot     int
	newFile  string
	priority string
}

func (n *newKey) flags(cmd *cobra.Command) {
	n.target.flags(cmd)
	n.keySource.flags(cmd)
	n.costFlags.flags(cmd)
	cmd.PreRunE = func(*cobra.Command, []string) error { return n.oneStdin(n.newFile) }
	cmd.Flags().StringVar(&n.newFile, "new-key-file", "", "`FILE` with the new passphrase, every byte of it; - is stdin")
	cmd.Flags().StringVar(&n.priority, "priority", "", "`WHEN` the slot is tried: prefer, normal or ignore")
}

// change unlocks the volume, seals the new passphrase and commits.
func (n *newKey) change(cmd *cobra.Command, path string, change func(*luks.Header, *luks.SealedKey) []luks.Change) (slot int, err error) {
	ctx := withProgress(cmd.Context())
	priority, err := parsePriority(n.priority)
	if err != nil {
		return 0, err
	}
	cost, err := n.cost(ctx)
	if err != nil {
		return 0, err
	}
	v, h, err := n.read(path, luks.ReadWrite)
	if err != nil {
		return 0, err
	}
	defer v.Close()
	key, err := n.unlock(ctx, h, nil)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", v.name, err)
	}
	defer key.Wipe()
	p, err := n.newPassphrase(ctx)
	if err != nil {
		return 0, err
	}
	defer p.Wipe()
	sealed, err := key.Seal(ctx, p, cost)
	if err != nil {
		return 0, err
	}
	sealed.Priority = priority
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if _, err := h.Commit(change(h, sealed)...); err != nil {
		return 0, fmt.Errorf("%s: %w", v.name, err)
	}
	return sealed.Slot(), nil
}

func (n *newKey) newPassphrase(ctx context.Context) (*secret.Bytes, error) {
	if isAsked(n.newFile) {
		return askNew(ctx, "no new passphrase was given: use --new-key-file")
	}
	return readKey(ctx, n.newFile)
}

// unlock opens the volume with the configuration or a passphrase; slots says
// which slots may be used, nil means all.
func (k *keySource) unlock(ctx context.Context, h *luks.Header, slots []int) (*luks.VolumeKey, error) {
	limits, err := k.limits()
	if err != nil {
		return nil, err
	}
	configured, err := k.configured()
	if err != nil {
		return nil, err
	}
	if configured {
		w, err := k.load(ctx)
		if err != nil {
			return nil, err
		}
		defer w.free()
		want := slices.DeleteFunc(w.keys, func(key keys.Key) bool { return slots != nil && !slices.Contains(slots, key.Slot) })
		if len(want) == 0 {
			return nil, fmt.Errorf("%w: the configuration has no key for a slot of %v", keys.ErrNoKey, slots)
		}
		return keys.Unlock(ctx, h, k.volume, want, keys.Options{Limits: limits})
	}
	p, err := k.passphrase(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Wipe()
	return h.Unlock(ctx, p, luks.UnlockOptions{Slots: slots, Limits: limits})
}

func parsePriority(s string) (luks.Priority, error) {
	for _, p := range []luks.Priority{luks.PriorityIgnore, luks.PriorityNormal, luks.PriorityPrefer} {
		if s == p.String() {
			return p, nil
		}
	}
	if s == "" {
		return luks.PriorityNormal, nil
	}
	return 0, usageError("--priority %q is not prefer, normal or ignore", s)
}

func keyAddCommand() *cobra.Command {
	var n newKey
	cmd := &cobra.Command{
		Use:   "add DEVICE",
		Short: "Add a passphrase",
		Long: `Adds a passphrase to a free slot. The slot does not belong to any configuration:
sync leaves it alone unless it is told to prune.`,
		Args: args("DEVICE"),
	}
	n.flags(cmd)
	slotFlag(cmd, &n.slot, luks.AnySlot, "slot `N` to use (default: the lowest free one)")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		slot, err := n.change(cmd, a[0], func(_ *luks.Header, s *luks.SealedKey) []luks.Change {
			return []luks.Change{luks.AddKeyslot(n.slot, s, nil)}
		})
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "added slot %d\n", slot)
		}
		return err
	}
	return cmd
}

func keyReplaceCommand() *cobra.Command {
	var n newKey
	cmd := &cobra.Command{
		Use:   "replace DEVICE --slot N",
		Short: "Give a slot another passphrase",
		Long: `Seals the volume key in a slot anew, under another passphrase, in one step: after
a power cut the slot opens with the old passphrase or with the new one.`,
		Args: args("DEVICE"),
	}
	n.flags(cmd)
	slotFlag(cmd, &n.slot, -1, "slot `N` to replace")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if n.slot < 0 {
			return usageError("--slot says which slot to replace")
		}
		_, err := n.change(cmd, a[0], func(h *luks.Header, s *luks.SealedKey) []luks.Change {
			changes := keys.ReplaceSlot(h, n.slot, s)
			if n.priority != "" {
				changes = append(changes, luks.SetPriority(n.slot, s.Priority))
			}
			return changes
		})
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "replaced slot %d\n", n.slot)
		}
		return err
	}
	return cmd
}

func keyRemoveCommand() *cobra.Command {
	var t target
	var k keySource
	var slot int
	cmd := &cobra.Command{
		Use:   "remove DEVICE --slot N",
		Short: "Remove a slot, proving first that another key opens the volume",
		Long: `Removes a keyslot and its token and overwrites its key material. A key that opens
another slot must be given: the last key that is known to open a volume is not
removed. To make a volume unreadable for good, use erase.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	k.flags(cmd)
	slotFlag(cmd, &slot, -1, "slot `N` to remove")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if slot < 0 {
			return usageError("--slot says which slot to remove")
		}
		ctx := withProgress(cmd.Context())
		v, h, err := t.read(a[0], luks.ReadWrite)
		if err != nil {
			return err
		}
		defer v.Close()
		if err := k.removeSlot(ctx, h, slot); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "removed slot %d\n", slot)
		return nil
	}
	return cmd
}

func (k *keySource) removeSlot(ctx context.Context, h *luks.Header, slot int) error {
	if _, there := h.Keyslot(slot); !there {
		return fmt.Errorf("keyslot %d: %w", slot, luks.ErrNoSlot)
	}
	var others []int
	for _, id := range sortedSlots(h) {
		if id != slot {
			others = append(others, id)
		}
	}
	if len(others) == 0 {
		return luks.ErrLastKeyslot
	}
	key, err := k.unlock(ctx, h, others)
	if err != nil {
		if errors.Is(err, luks.ErrWrongPassphrase) || errors.Is(err, keys.ErrNoKey) {
			return fmt.Errorf("the key given must open a slot other than %d, so that one is known to be left: %w", slot, err)
		}
		return err
	}
	defer key.Wipe()
	// The slot that was seen to open must still be there when the other goes.
	changes := append([]luks.Change{luks.ExpectKeyslot(key.Slot())}, keys.RemoveSlot(h, slot)...)
	if err := ctx.Err(); err != nil {
		return err
	}
	_, err = h.Commit(changes...)
	return err
}
