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
)

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
		key, err := unlockWith(ctx, h, p, slot, limits)
		key.Wipe()
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
	w, err := k.load(ctx)
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
