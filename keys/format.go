package keys

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/cryptctl/cryptctl/luks"
)

// Format makes a volume whose slots are the wanted keys, all of them: when one
// cannot be made nothing is written, since a volume that is protected by the
// weaker keys only is not what was asked for. It costs one key derivation for
// each key. The caller has proven the device empty.
func Format(ctx context.Context, dev luks.Device, name string, want []Key, volume *luks.VolumeKey, layout luks.FormatOptions, opts Options) (*luks.Header, error) {
	if err := checkKeys(want); err != nil {
		return nil, err
	}
	if layout.UUID == "" {
		layout.UUID = luks.NewUUID()
	}
	prints, err := newFingerprinter(volume, layout.UUID)
	if err != nil {
		return nil, err
	}
	defer prints.key.Wipe()
	made, errs := enroll(ctx, want, volume, prints, func(slot int) Request {
		return Request{UUID: layout.UUID, Volume: name, Slot: slot}
	}, opts)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r := newRecord()
	var changes []luks.Change
	var failed []error
	for _, k := range want {
		if err := errs[k.Slot]; err != nil {
			failed = append(failed, fmt.Errorf("%s key of slot %d: %w", k.Kind, k.Slot, err))
			continue
		}
		e := made[k.Slot]
		changes = append(changes, luks.AddKeyslot(k.Slot, e.sealed, e.token))
		r.Slots[strconv.Itoa(k.Slot)] = e.entry
	}
	if len(failed) > 0 {
		return nil, fmt.Errorf("the volume was not formatted: %w", errors.Join(failed...))
	}
	store, err := r.store(nil, false, want)
	if err != nil {
		return nil, err
	}
	h, err := luks.Format(dev, volume, layout, append(store, changes...)...)
	if err != nil {
		return nil, err
	}
	opts.log().Info("volume formatted", "volume", name, "uuid", h.UUID(), "keys", len(want))
	return h, nil
}
