package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/luks1"
	"github.com/cryptctl/cryptctl/mapping"
)

// readLUKS1 opens a volume that [target.read] refused as LUKS1.
func (t *target) readLUKS1(path string) (*volume, *luks1.Header, error) {
	v, err := t.open(path, luks.ReadOnly)
	if err != nil {
		return nil, nil, err
	}
	h, err := luks1.Read(v.header)
	if err != nil {
		v.Close()
		return nil, nil, fmt.Errorf("%s: %w", v.name, err)
	}
	return v, h, nil
}

// inspectLUKS1 is inspect for a LUKS1 volume.
func (t *target) inspectLUKS1(cmd *cobra.Command, path string, asJSON bool) error {
	v, h, err := t.readLUKS1(path)
	if err != nil {
		return err
	}
	defer v.Close()
	refusals := h.Trust(kdf.Limits{})
	if refusals == nil {
		refusals = []*luks.Refusal{}
	}
	if asJSON {
		return printJSON(cmd.OutOrStdout(), struct {
			Format   string          `json:"format"`
			UUID     string          `json:"uuid"`
			Cipher   string          `json:"cipher"`
			Hash     string          `json:"hash"`
			KeySize  int             `json:"key_size"`
			Payload  int64           `json:"payload_offset"`
			Slots    []luks1.Slot    `json:"slots"`
			Refusals []*luks.Refusal `json:"refusals"`
		}{"LUKS1", h.UUID(), h.Cipher(), h.Hash(), h.KeySize(), h.PayloadOffset(), h.Slots(), refusals})
	}
	return writeLUKS1(cmd.OutOrStdout(), v.name, h, refusals)
}

func writeLUKS1(w io.Writer, name string, h *luks1.Header, refusals []*luks.Refusal) error {
	fmt.Fprintf(w, "%s: LUKS1 volume %s\n", name, h.UUID())
	fmt.Fprintf(w, "%s with a key of %d bytes, hash %s; the data begins at byte %d\n", h.Cipher(), h.KeySize(), h.Hash(), h.PayloadOffset())
	fmt.Fprintf(w, "it can be opened and is never changed here\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SLOT\tOFFSET\tSIZE\tKEY DERIVATION")
	for _, s := range h.Slots() {
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\n", s.ID, s.Offset, bytesText(s.Size), kdf.Cost{Kind: kdf.PBKDF2, Hash: h.Hash(), Iterations: s.Iterations})
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range refusals {
		fmt.Fprintf(w, "not used: %v\n", r)
	}
	return nil
}

// openLUKS1 is open for a LUKS1 volume, with --test when there is no name.
func (o *openFlags) openLUKS1(cmd *cobra.Command, path, name string) error {
	v, h, err := o.readLUKS1(path)
	if err != nil {
		return err
	}
	defer v.Close()
	device := v.files[0] // the one with the data
	if name != "" {
		if err := o.mappable(v, device); err != nil {
			return err
		}
		if _, err := mapping.FindLUKS1(h, name); err != nil && !errors.Is(err, mapping.ErrNotOpen) {
			return fmt.Errorf("%s: %w", v.name, err)
		}
	}
	key, err := o.findLUKS1(withProgress(cmd.Context()), h)
	if err != nil {
		return unlockFailed(v, err)
	}
	defer key.Wipe()
	if name == "" {
		return o.writeTried(cmd, h.UUID(), key.Slot())
	}
	opts := o.options(name)
	m, err := mapping.ActivateLUKS1(h, key, device.File(), opts)
	if err != nil {
		return err
	}
	return o.writeOpened(cmd, h.UUID(), key.Slot(), m, opts.Flags)
}

// findLUKS1 finds the volume key with a passphrase.
func (o *openFlags) findLUKS1(ctx context.Context, h *luks1.Header) (*luks1.Key, error) {
	configured, err := o.configured()
	if err != nil {
		return nil, err
	}
	if configured {
		return nil, usageError("this is a LUKS1 volume, and the keys of a machine configuration are for LUKS2; give its passphrase with --key-file")
	}
	limits, err := o.limits()
	if err != nil {
		return nil, err
	}
	p, err := o.passphrase(ctx)
	if err != nil {
		return nil, err
	}
	defer p.Wipe()
	if o.slot >= 0 {
		return h.Unlock(ctx, p, limits, o.slot)
	}
	return h.Unlock(ctx, p, limits)
}
