//go:build linux

package main

import (
	"cmp"
	"context"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/mapping"
	"github.com/cryptctl/cryptctl/secret"
	"github.com/cryptctl/cryptctl/test/vm/wire"
)

// cheap is the least that the format knows: an emulated processor takes ten
// times as long for Argon2.
func cheap() kdf.Cost { return kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000} }

// format makes a volume as [luks.Format] does.
func format(f wire.Format) (none, error) {
	dev, err := luks.OpenFile(f.Device, luks.Exclusive)
	if err != nil {
		return none{}, err
	}
	defer dev.Close()
	size := f.KeySize
	if size == 0 {
		size = luks.DefaultVolumeKeySize
	}
	key := luks.NewVolumeKey(size)
	defer key.Wipe()
	pass := secret.Copy([]byte(f.Passphrase))
	defer pass.Wipe()
	sealed, err := key.Seal(context.Background(), pass, cheap())
	if err != nil {
		return none{}, err
	}
	_, err = luks.Format(dev, key, luks.FormatOptions{UUID: f.UUID, Cipher: f.Cipher, SectorSize: f.SectorSize, Detached: f.Detached},
		luks.AddKeyslot(0, sealed, nil), luks.SetFlags(f.Flags...))
	return none{}, err
}

// activate unlocks a volume and maps it, in this process.
func activate(a wire.Activate) (*mapping.Mapping, error) {
	dev, err := luks.OpenFile(a.Device, luks.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	h, key, err := unlock(cmp.Or(a.Header, a.Device), a.Passphrase)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	if a.KeyOf != "" {
		_, other, err := unlock(a.KeyOf, a.Passphrase)
		if err != nil {
			return nil, err
		}
		defer other.Wipe()
		key = other
	}
	return mapping.Activate(h, key, dev.File(), a.Options)
}

// unlock reads a header and opens it.
func unlock(path, passphrase string) (*luks.Header, *luks.VolumeKey, error) {
	dev, err := luks.OpenFile(path, luks.ReadOnly)
	if err != nil {
		return nil, nil, err
	}
	defer dev.Close()
	h, err := luks.Read(dev)
	if err != nil {
		return nil, nil, err
	}
	pass := secret.Copy([]byte(passphrase))
	defer pass.Wipe()
	key, err := h.Unlock(context.Background(), pass, luks.UnlockOptions{})
	return h, key, err
}

func closeMapping(m wire.Mapping) (none, error) {
	return none{}, mapping.Close(m.Name, mapping.CloseOptions{Deferred: m.Deferred})
}

func cancelDeferred(m wire.Mapping) (none, error) { return none{}, mapping.CancelDeferred(m.Name) }

// status returns a mapping; with a device, only when it is of that volume.
func status(m wire.Mapping) (*mapping.Mapping, error) {
	if m.Device == "" {
		return mapping.Status(m.Name)
	}
	dev, err := luks.OpenFile(m.Device, luks.ReadOnly)
	if err != nil {
		return nil, err
	}
	defer dev.Close()
	h, err := luks.Read(dev)
	if err != nil {
		return nil, err
	}
	return mapping.Find(h, m.Name)
}
