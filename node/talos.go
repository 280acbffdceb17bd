package node

import (
	"slices"

	"github.com/cryptctl/cryptctl/config"
	"github.com/cryptctl/cryptctl/meta"
)

// fromMeta is how META says that STATE is encrypted, in the form of the
// configuration. A kind of key that is not known here is left out: its slot is
// then foreign, and stays.
func fromMeta(m *meta.Encryption) *config.Encryption {
	if m == nil {
		return nil
	}
	e := &config.Encryption{
		Volume: stateName, Source: config.Position{File: "META, tag 9"}, Provider: "luks2",
		Cipher: m.Cipher, KeySize: int(m.KeySize), BlockSize: int(m.BlockSize), Options: m.PerfOptions, AllowDiscards: m.AllowDiscards,
	}
	if e.Cipher == "" {
		e.Cipher = config.DefaultCipher
	}
	if e.KeySize == 0 {
		e.KeySize = config.DefaultKeySize(e.Cipher)
	}
	for _, k := range m.Keys {
		key := config.Key{Slot: k.Slot, Source: e.Source, LockToState: k.LockToState}
		switch {
		case k.Static != nil:
			key.Static = &config.Static{Passphrase: k.Static}
		case k.NodeID:
			key.NodeID = &config.NodeID{}
		case k.KMS != nil:
			key.KMS = &config.KMS{Endpoint: k.KMS.Endpoint}
		case k.TPM != nil:
			key.TPM = &config.TPM{CheckSecurebootStatusOnEnroll: k.TPM.CheckSecureboot, PCRs: k.TPM.PCRs}
			if k.TPM.PCRs == nil {
				key.TPM.PCRs = []int{7} // Talos' default
			}
		default:
			continue
		}
		e.Keys = append(e.Keys, key)
	}
	slices.SortStableFunc(e.Keys, func(a, b config.Key) int { return a.Slot - b.Slot })
	return e
}

// toMeta is the inverse of fromMeta.
func toMeta(e *config.Encryption) *meta.Encryption {
	m := &meta.Encryption{
		Cipher: e.Cipher, KeySize: uint(e.KeySize), BlockSize: uint64(e.BlockSize), PerfOptions: e.Options, AllowDiscards: e.AllowDiscards,
	}
	for _, k := range e.Keys {
		key := meta.Key{Slot: k.Slot, LockToState: k.LockToState, NodeID: k.NodeID != nil}
		switch {
		case k.Static != nil:
			key.Static = k.Static.Passphrase
		case k.KMS != nil:
			key.KMS = &meta.KMS{Endpoint: k.KMS.Endpoint}
		case k.TPM != nil:
			key.TPM = &meta.TPM{PCRs: k.TPM.PCRs, CheckSecureboot: k.TPM.CheckSecurebootStatusOnEnroll}
			if key.TPM.PCRs == nil {
				key.TPM.PCRs = []int{}
			}
		}
		m.Keys = append(m.Keys, key)
	}
	return m
}
