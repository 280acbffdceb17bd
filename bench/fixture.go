package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	imageSize = 64 << 20
	maxKeys   = 8 // that a case uses
	volume    = "STATE"
)

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) keyFile(i int) string { return b.path(fmt.Sprintf("key%d", i)) }

func passphrase(i int) string { return fmt.Sprintf("passphrase %d of the benchmark", i) }

func (b *bench) writeKeys() error {
	for i := range maxKeys {
		if err := os.WriteFile(b.keyFile(i), []byte(passphrase(i)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// config writes a machine configuration whose volume has the first n keys.
func (b *bench) config(n int) (path string, err error) {
	var text strings.Builder
	text.WriteString("version: v1alpha1\nmachine:\n  systemDiskEncryption:\n    state:\n      provider: luks2\n      keys:\n")
	for i := range n {
		fmt.Fprintf(&text, "        - slot: %d\n          static:\n            passphrase: %s\n", i, passphrase(i))
	}
	path = b.path(fmt.Sprintf("machine%d.yaml", n))
	return path, os.WriteFile(path, []byte(text.String()), 0o600)
}

// blank makes an empty image, in place of what is there.
func blank(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(imageSize), f.Close())
}

// duplicate copies the header of an image, without data behind it.
func duplicate(from, to string) error {
	if err := blank(to); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = io.CopyN(dst, src, luks.DefaultDataOffset)
	return errors.Join(err, dst.Close())
}

// ourFormat and peerFormat make a volume with the first n keys; flags are those
// of the cost.
func (b *bench) ourFormat(image string, n int, flags ...string) (side, error) {
	config, err := b.config(n)
	s := command(append([]string{b.cryptctl, "format", image, "--file", config, "--volume", volume}, flags...)...)
	s.before = func() error { return blank(image) }
	return s, err
}

func (b *bench) peerFormat(image string, n int, flags ...string) side {
	first := []string{b.cryptsetup, "luksFormat", "--type", "luks2", "-q", "--key-file", b.keyFile(0), image}
	s := side{steps: [][]string{append(first, flags...)}, before: func() error { return blank(image) }}
	for i := 1; i < n; i++ {
		add := []string{b.cryptsetup, "luksAddKey", "-q", "--key-file", b.keyFile(0), image, b.keyFile(i)}
		s.steps = append(s.steps, append(add, flags...))
	}
	return s
}

func (b *bench) ourOpen(image string) side {
	return command(b.cryptctl, "open", "--test", "--key-file", b.keyFile(0), image)
}

func (b *bench) peerOpen(image string, flags ...string) side {
	return command(append([]string{b.cryptsetup, "open", "--test-passphrase", "--key-file", b.keyFile(0), image}, flags...)...)
}

// peerVolume makes a volume that both sides then read, with the peer.
func (b *bench) peerVolume(ctx context.Context, name string, n int, flags ...string) (image string, err error) {
	image = b.path(name)
	_, err = b.peerFormat(image, n, flags...).run(ctx)
	return image, err
}

// fullVolume makes a volume with our defaults, all 32 slots in use, each with a
// token of 800 bytes.
func (b *bench) fullVolume(ctx context.Context, name string) (image string, err error) {
	image = b.path(name)
	if err := blank(image); err != nil {
		return "", err
	}
	f, err := luks.OpenFile(image, luks.Exclusive)
	if err != nil {
		return "", err
	}
	defer f.Close()
	_, err = formatFull(ctx, f)
	return image, err
}

func formatFull(ctx context.Context, dev luks.Device) (*luks.Header, error) {
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer key.Wipe()
	var changes []luks.Change
	for slot := range luks.MaxSlots {
		p := secret.Copy([]byte(passphrase(slot)))
		sealed, err := key.Seal(ctx, p, kdf.Light())
		p.Wipe()
		if err != nil {
			return nil, err
		}
		changes = append(changes, luks.AddKeyslot(slot, sealed, largeToken(slot)))
	}
	return luks.Format(dev, key, luks.FormatOptions{}, changes...)
}

// largeToken has the size of a TPM token.
func largeToken(slot int) json.RawMessage {
	token := fmt.Sprintf(`{"type":"benchmark","keyslots":["%d"],"blob":""}`, slot)
	const size = 800
	return json.RawMessage(token[:len(token)-2] + strings.Repeat("A", size-len(token)) + `"}`)
}

// costs says what key derivations an image has.
func costs(image string) (string, error) {
	f, err := luks.OpenFile(image, luks.ReadOnly)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, err := luks.Read(f)
	if err != nil {
		return "", err
	}
	var all []string
	for _, k := range h.Keyslots() {
		all = append(all, k.KDF.String())
	}
	return strings.Join(slices.Compact(all), "; "), nil
}
