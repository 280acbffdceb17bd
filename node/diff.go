package node

import (
	"maps"
	"slices"

	"github.com/cryptctl/cryptctl/config"
)

// diff says what changes between two configurations, and when. Only encryption
// and file systems are looked at. With the TPM's latch closed, keys that have one
// can be sealed on the next boot only.
func diff(from, to *machine, latched bool) (all []Difference) {
	names := map[string]bool{stateName: true}
	for _, name := range append(from.names(), to.names()...) {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add := func(what string, when When) { all = append(all, Difference{name, what, when}) }
		old, new := from.encryption(name), to.encryption(name)
		there, stays := slices.Contains(append(from.names(), stateName), name), slices.Contains(append(to.names(), stateName), name)
		switch {
		case !there:
			add("a new volume", Now)
			continue
		case !stays:
			add("no longer declared: it stays open until then", NextBoot)
			continue
		case (old == nil) != (new == nil):
			add(encryptedText(new), Wipe)
		case new != nil:
			encryptionDiff(old, new, latched, add)
		}
		if a, b := from.filesystem(name), to.filesystem(name); a != b && b != "" {
			add("file system "+b, Wipe)
		}
	}
	return all
}

func encryptionDiff(old, new *config.Encryption, latched bool, add func(string, When)) {
	switch {
	case old.Cipher != new.Cipher:
		add("cipher "+new.Cipher, Wipe)
	case old.KeySize != new.KeySize:
		add("another key size", Wipe)
	case old.BlockSize != new.BlockSize && new.BlockSize != 0:
		add("another sector size", Wipe)
	}
	if !slices.Equal(old.Options, new.Options) || old.AllowDiscards != new.AllowDiscards {
		add("options of the mapping", NextBoot)
	}
	switch {
	case sameKeyList(old, new):
	case latched && sealsAnew(old, new):
		add("keys, with one that the TPM seals before its latch closes", NextBoot)
	default:
		add("keys", Now)
	}
}

// sealsAnew reports whether a key with a latch is new or has changed.
func sealsAnew(old, new *config.Encryption) bool {
	return slices.ContainsFunc(new.Keys, func(k config.Key) bool {
		same := func(o config.Key) bool { return o.Slot == k.Slot && equalTPM(o.TPM, k.TPM) }
		return hasLatch(k) && !slices.ContainsFunc(old.Keys, same)
	})
}

func sameKeyList(a, b *config.Encryption) bool {
	return sameKeys(&config.Encryption{Keys: a.Keys}, &config.Encryption{Keys: b.Keys}) && sameTPM(a, b)
}
