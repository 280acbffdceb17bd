package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

func openCommand() *cobra.Command {
	var t target
	var k keySource
	var slot int
	cmd := &cobra.Command{
		Use:   "open DEVICE --test",
		Short: "Try whether a key opens a volume",
		Long: `Tries the keys of a machine configuration, or a passphrase, and says which slot
opens. Exit code 5 when none does. Nothing is written and no mapping is made:
this build does not activate volumes, so --test is required.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	k.flags(cmd)
	cmd.Flags().IntVar(&slot, "slot", -1, "try this slot only")
	test := cmd.Flags().Bool("test", false, "only try, do not activate")
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if !*test {
			return usageError("this build does not activate volumes; open --test says whether a key opens one")
		}
		ctx := withProgress(cmd.Context())
		v, h, err := t.read(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		opened, err := k.tryOpen(ctx, h, slot)
		switch {
		case errors.Is(err, luks.ErrWrongPassphrase) || errors.Is(err, luks.ErrNoUsableSlot) || errors.Is(err, keys.ErrNoKey):
			return &exitError{exitNoKey, fmt.Errorf("%s: %w", v.name, err)}
		case err != nil:
			return fmt.Errorf("%s: %w", v.name, err)
		case *asJSON:
			return printJSON(cmd.OutOrStdout(), map[string]any{"slot": opened, "uuid": h.UUID()})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "slot %d opens volume %s\n", opened, plain(h.UUID()))
		return nil
	}
	return cmd
}

// tryOpen returns the slot that a passphrase or the configuration opens.
func (k *keySource) tryOpen(ctx context.Context, h *luks.Header, slot int) (int, error) {
	limits, err := k.limits()
	if err != nil {
		return 0, err
	}
	configured, err := k.configured()
	if err != nil {
		return 0, err
	}
	if configured {
		w, err := k.load()
		if err != nil {
			return 0, err
		}
		defer w.free()
		want := slices.DeleteFunc(w.keys, func(key keys.Key) bool { return slot >= 0 && key.Slot != slot })
		if len(want) == 0 {
			return 0, usageError("the configuration has no key for slot %d", slot)
		}
		s, err := keys.Open(ctx, h, k.volume, want, keys.Options{Limits: limits})
		if err != nil {
			return 0, err
		}
		defer s.Close()
		return s.VolumeKey().Slot(), nil
	}
	p, err := k.passphrase(ctx)
	if err != nil {
		return 0, err
	}
	defer p.Wipe()
	return tryPassphrase(ctx, h, p, slot, limits)
}

func tryPassphrase(ctx context.Context, h *luks.Header, p *secret.Bytes, slot int, limits kdf.Limits) (int, error) {
	opts := luks.UnlockOptions{Limits: limits}
	if slot >= 0 {
		opts.Slots = []int{slot}
	}
	key, err := h.Unlock(ctx, p, opts)
	if err != nil {
		return 0, err
	}
	defer key.Wipe()
	return key.Slot(), nil
}

// testRow is what one slot said to a passphrase or to its configured key.
type testRow struct {
	Slot  int    `json:"slot"`
	Opens bool   `json:"opens"`
	How   string `json:"how"`
}

func keyTestCommand() *cobra.Command {
	var t target
	var k keySource
	cmd := &cobra.Command{
		Use:   "test DEVICE",
		Short: "Say for each slot whether its key opens it",
		Long: `With a machine configuration, checks each configured key against its slot. With a
passphrase, tries it on every slot. Exit code 5 when nothing opens.`,
		Args: args("DEVICE"),
	}
	t.flags(cmd)
	k.flags(cmd)
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ctx := withProgress(cmd.Context())
		v, h, err := t.read(a[0], luks.ReadOnly)
		if err != nil {
			return err
		}
		defer v.Close()
		rows, err := k.testAll(ctx, h)
		if err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		if *asJSON {
			err = printJSON(cmd.OutOrStdout(), rows)
		} else {
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "SLOT\tOPENS\tHOW")
			for _, r := range rows {
				fmt.Fprintf(w, "%d\t%s\t%s\n", r.Slot, map[bool]string{true: "yes", false: "no"}[r.Opens], r.How)
			}
			err = w.Flush()
		}
		if err == nil && !slices.ContainsFunc(rows, func(r testRow) bool { return r.Opens }) {
			return &exitError{code: exitNoKey}
		}
		return err
	}
	return cmd
}

func (k *keySource) testAll(ctx context.Context, h *luks.Header) ([]testRow, error) {
	limits, err := k.limits()
	if err != nil {
		return nil, err
	}
	configured, err := k.configured()
	if err != nil {
		return nil, err
	}
	if configured {
		return k.testConfigured(ctx, h, keys.Options{Limits: limits})
	}
	p, err := k.passphrase(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Wipe()
	rows := []testRow{}
	for _, slot := range sortedSlots(h) {
		row := testRow{Slot: slot}
		_, err := tryPassphrase(ctx, h, p, slot, limits)
		switch {
		case err == nil:
			row.Opens, row.How = true, "the passphrase opens it"
		case ctx.Err() != nil:
			return nil, err
		case errors.Is(err, luks.ErrWrongPassphrase):
			row.How = "the passphrase does not open it"
		default:
			row.How = err.Error()
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func (k *keySource) testConfigured(ctx context.Context, h *luks.Header, opts keys.Options) ([]testRow, error) {
	w, err := k.load()
	if err != nil {
		return nil, err
	}
	defer w.free()
	s, err := keys.Open(ctx, h, k.volume, w.keys, opts)
	if err != nil {
		if errors.Is(err, keys.ErrNoKey) {
			return nil, &exitError{exitNoKey, err}
		}
		return nil, err
	}
	defer s.Close()
	state, err := s.State(ctx)
	if err != nil {
		return nil, err
	}
	rows := []testRow{}
	for _, key := range state.Keys {
		row := testRow{Slot: key.Slot, Opens: key.Proof != "", How: key.Kind + " key opens it (" + string(key.Proof) + ")"}
		if _, there := h.Keyslot(key.Slot); !there {
			row.How = key.Kind + " key: the slot does not exist"
		} else if key.Err != nil {
			row.How = key.Kind + " key: " + key.Err.Error()
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func sortedSlots(h *luks.Header) []int {
	var ids []int
	for _, k := range h.Keyslots() {
		ids = append(ids, k.ID)
	}
	slices.Sort(ids)
	return ids
}
