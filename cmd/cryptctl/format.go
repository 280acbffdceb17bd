package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/disk"
	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/probe"
	"github.com/cryptctl/cryptctl/secret"
)

// formatFlags are the choices of a new volume that no configuration makes.
type formatFlags struct {
	target
	keySource
	costFlags
	layout       luks.FormatOptions
	keySize      int
	metadataSize string
	dataOffset   string
	volumeKey    string
	slot         int
}

func formatCommand() *cobra.Command {
	var o formatFlags
	cmd := &cobra.Command{
		Use:   "format DEVICE",
		Short: "Make an encrypted volume on a device that is proven empty",
		Long: `Makes a LUKS2 volume with all keys that the machine configuration declares, or
with one passphrase when there is none. Only a device that is proven empty is
formatted: no known signature anywhere, and zeros in its first and last 4 MiB
and in blocks spread over the rest. Anything else is refused with exit code 6.`,
		Args: args("DEVICE"),
	}
	o.target.flags(cmd)
	o.configFlags(cmd)
	o.costFlags.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&o.keyFile, "key-file", "", "`FILE` with the passphrase of a volume without a configuration, every byte of it; - is stdin")
	f.StringVar(&o.layout.UUID, "uuid", "", "`UUID` of the volume (default random)")
	f.StringVar(&o.layout.Label, "label", "", "`LABEL` of the volume")
	f.StringVar(&o.layout.Subsystem, "subsystem", "", "subsystem `LABEL`")
	f.StringVar(&o.layout.Cipher, "cipher", "", "data `CIPHER` (default aes-xts-plain64, or what the configuration says)")
	f.IntVar(&o.keySize, "key-size", 0, "size of the volume key in `bits` (default 512; 256 for adiantum)")
	f.IntVar(&o.layout.SectorSize, "sector-size", 0, "encryption sector in `bytes` (default 4096 where it fits)")
	f.StringVar(&o.metadataSize, "metadata-size", "64K", "`SIZE` of one header copy, 16K to 4M")
	f.StringVar(&o.dataOffset, "data-offset", "", "where the data begins, in `BYTES` (default 16M; 0 with --header)")
	f.StringVar(&o.volumeKey, "volume-key-file", "", "`FILE` with the volume key (default random)")
	f.IntVar(&o.slot, "slot", 0, "keyslot `N` of the passphrase when there is no configuration")
	cmd.PreRunE = func(*cobra.Command, []string) error { return o.oneStdin(o.volumeKey) }
	asJSON := jsonFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if err := o.resolve(); err != nil {
			return err
		}
		h, err := o.run(cmd, a[0])
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), map[string]any{"uuid": h.UUID(), "slots": slotRows(h)})
		}
		fmt.Fprintf(cmd.OutOrStdout(), "formatted volume %s\n", h.UUID())
		return writeSlots(cmd.OutOrStdout(), slotRows(h))
	}
	return cmd
}

// resolve turns the texts of flags into sizes.
func (o *formatFlags) resolve() (err error) {
	if o.layout.MetadataSize, err = disk.ParseSize(o.metadataSize); err != nil {
		return usageError("--metadata-size: %w", err)
	}
	if o.dataOffset != "" {
		if o.layout.DataOffset, err = disk.ParseSize(o.dataOffset); err != nil {
			return usageError("--data-offset: %w", err)
		}
	}
	o.layout.Detached = o.header != ""
	return nil
}

func (o *formatFlags) run(cmd *cobra.Command, path string) (*luks.Header, error) {
	ctx := withProgress(cmd.Context())
	want, name, free, err := o.wantedKeys(ctx)
	if err != nil {
		return nil, err
	}
	defer free()
	v, err := o.openEmpty(path)
	if err != nil {
		return nil, err
	}
	defer v.Close()
	o.layout.DataSize = v.data.Size()
	o.layout.Empty = func(luks.Device) error { return o.proveEmpty(v) }
	cost, err := o.cost(ctx)
	if err != nil {
		return nil, err
	}
	key, err := o.newVolumeKey(ctx)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	h, err := keys.Format(ctx, v.header, name, want, key, o.layout, keys.Options{Cost: cost})
	if errors.Is(err, luks.ErrNotEmpty) {
		return nil, &exitError{exitNotEmpty, fmt.Errorf("%s: %w; nothing was written", v.name, err)}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", v.name, err)
	}
	return h, nil
}

// openEmpty opens the device, and the header's when it is detached, and refuses
// all but those that hold nothing. A file for the header that is not there is
// made, and goes again when the device is refused.
func (o *formatFlags) openEmpty(path string) (v *volume, err error) {
	if o.layout.Detached {
		made, err := createHeader(o.header)
		if err != nil {
			return nil, fmt.Errorf("detached header: %w", err)
		}
		defer func() {
			if made && v == nil {
				os.Remove(o.header)
			}
		}()
	}
	if v, err = o.open(path, luks.Exclusive); err != nil {
		return nil, err
	}
	// Said at once, and not only after the keys were derived; what counts is
	// said again under the lock.
	name := v.name
	if o.layout.Detached {
		name = "detached header " + o.header
	}
	if h, readErr := luks.Read(v.header); readErr == nil {
		err = &exitError{exitNotEmpty, fmt.Errorf("%s is not empty: it holds LUKS2 volume %s; nothing was written", name, plain(h.UUID()))}
	} else {
		err = o.proveEmpty(v)
	}
	if err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// proveEmpty looks at the device, and at the header's when it is detached.
func (o *formatFlags) proveEmpty(v *volume) error {
	err := proveEmpty(v.data, v.name)
	if err == nil && o.layout.Detached {
		err = proveEmpty(v.header, "detached header "+o.header)
	}
	return err
}

// proveEmpty refuses all devices but those that hold nothing.
func proveEmpty(dev luks.Device, name string) error {
	err := probe.Prove(dev)
	var content *probe.NotEmptyError
	switch {
	case errors.As(err, &content):
		return &exitError{exitNotEmpty, fmt.Errorf("%s is %w; nothing was written (only an empty device is formatted)", name, content)}
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// wantedKeys are those of the configuration, or one passphrase.
func (o *formatFlags) wantedKeys(ctx context.Context) (want []keys.Key, name string, free func(), err error) {
	if len(o.files) > 0 || o.volume != "" {
		if o.keyFile != "" {
			return nil, "", nil, usageError("--key-file is for a volume without a configuration; here --file says which keys it gets")
		}
		w, err := o.load(ctx)
		if err != nil {
			return nil, "", nil, err
		}
		if err := o.follow(w.Encryption); err != nil {
			w.free()
			return nil, "", nil, err
		}
		return w.keys, w.Volume, w.free, nil
	}
	p, err := o.newPassphrase(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	key := keys.Key{Slot: o.slot, Kind: "static", Provider: keys.Static{Passphrase: p}}
	return []keys.Key{key}, "", p.Wipe, nil
}

// newPassphrase of a volume that is being made is its only one.
func (o *formatFlags) newPassphrase(ctx context.Context) (*secret.Bytes, error) {
	if isAsked(o.keyFile) {
		return askNew(ctx, noKey)
	}
	return readKey(ctx, o.keyFile)
}

// follow takes the layout from the configuration; a flag that says something
// else is a mistake.
func (o *formatFlags) follow(enc config.Encryption) error {
	if o.layout.Cipher != "" && o.layout.Cipher != enc.Cipher || o.keySize != 0 && o.keySize != enc.KeySize ||
		enc.BlockSize != 0 && o.layout.SectorSize != 0 && o.layout.SectorSize != enc.BlockSize {
		return usageError("--cipher, --key-size and --sector-size say something else than %s", enc.Source)
	}
	o.layout.Cipher, o.keySize = enc.Cipher, enc.KeySize
	if enc.BlockSize != 0 {
		o.layout.SectorSize = enc.BlockSize
	}
	return nil
}

func (o *formatFlags) newVolumeKey(ctx context.Context) (*luks.VolumeKey, error) {
	if o.volumeKey != "" {
		key, err := readKey(ctx, o.volumeKey)
		if err != nil {
			return nil, err
		}
		if o.keySize != 0 && o.keySize != 8*key.Len() {
			return nil, errors.Join(usageError("%s holds %d bits, --key-size or the configuration asks for %d", o.volumeKey, 8*key.Len(), o.keySize))
		}
		return luks.VolumeKeyFrom(key), nil
	}
	bits := o.keySize
	if bits == 0 {
		bits = config.DefaultKeySize(cmp.Or(o.layout.Cipher, config.DefaultCipher))
	}
	if bits != 256 && bits != 512 {
		return nil, usageError("--key-size %d: must be 256 or 512", bits)
	}
	return luks.NewVolumeKey(bits / 8), nil
}
