//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"

	"github.com/cryptctl/cryptctl/keys"
	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/test/vm/wire"
	"github.com/cryptctl/cryptctl/tpm"
)

// device is the machine's TPM behind the kernel's resource manager.
const device = "/dev/tpmrm0"

// extend extends a PCR with the hash of an event, in all banks.
func extend(e wire.Extend) (none, error) {
	return none{}, withTPM(func(t transport.TPM) error {
		_, err := tpm2.PCREvent{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.PCR), Auth: tpm2.PasswordAuth(nil)},
			EventData: tpm2.TPM2BEvent{Buffer: e.Event},
		}.Execute(t)
		return err
	})
}

func withTPM(do func(transport.TPM) error) error {
	t, err := linuxtpm.Open(device)
	if err != nil {
		return err
	}
	return errors.Join(do(t), t.Close())
}

// unseal recovers the passphrase of a slot as any program can that runs as root
// on the machine.
func unseal(u wire.Unseal) (wire.Unsealed, error) {
	req, token, err := sealedSlot(u)
	if err != nil {
		return wire.Unsealed{}, err
	}
	// The policy is the token's; this one is that of new keys.
	p, err := tpm.New(tpm.Options{Policy: tpm.Policy{AllowWeak: true}})
	if err != nil {
		return wire.Unsealed{}, err
	}
	pass, err := p.Recover(context.Background(), req, token)
	if err != nil {
		return wire.Unsealed{}, err
	}
	defer pass.Wipe()
	sealed, err := unsealRaw(token)
	return wire.Unsealed{Passphrase: append([]byte(nil), pass.Bytes()...), Sealed: sealed}, err
}

// sealedSlot reads a slot's token.
func sealedSlot(u wire.Unseal) (keys.Request, json.RawMessage, error) {
	dev, err := luks.OpenFile(u.Device, luks.ReadOnly)
	if err != nil {
		return keys.Request{}, nil, err
	}
	defer dev.Close()
	h, err := luks.Read(dev)
	if err != nil {
		return keys.Request{}, nil, err
	}
	token := keys.TokenOf(h, u.Slot)
	if token == nil {
		return keys.Request{}, nil, fmt.Errorf("slot %d of %s has no token", u.Slot, u.Device)
	}
	return keys.Request{UUID: h.UUID(), Volume: u.Volume, Slot: u.Slot}, token, nil
}

// seal makes a volume with one sealed key.
func seal(s wire.Seal) (none, error) {
	p, err := tpm.New(tpm.Options{Format: tpm.Format(s.Format), Policy: tpm.Policy{PCRs: s.PCRs}})
	if err != nil {
		return none{}, err
	}
	dev, err := luks.OpenFile(s.Device, luks.Exclusive)
	if err != nil {
		return none{}, err
	}
	defer dev.Close()
	key := luks.NewVolumeKey(luks.DefaultVolumeKeySize)
	defer key.Wipe()
	_, err = keys.Format(context.Background(), dev, "sealed", []keys.Key{{Kind: "tpm", Provider: p, Tokens: tpm.Tokens(), Random: true}},
		key, luks.FormatOptions{}, keys.Options{Cost: kdf.Light()})
	return none{}, err
}
