package node

import (
	"maps"
	"slices"

	"github.com/cryptctl/cryptctl/config"
)

// diff says what changes between two configurations, and when. Only encryption
// and file systems are looked at. With the TPM's latch closed, keys that have one
// can be sealed on the next boot only.
func (n *Node) diff(from, to *machine) (all []Difference) {
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
			add(n.changeOf(name, "a new volume", new))
			continue
		case !stays:
			add("no longer declared: it stays open until then", NextBoot)
			continue
		case (old == nil) != (new == nil):
			add(encryptedText(new), Wipe)
		case new != nil:
			encryptionDiff(old, new, add)
			if !sameKeyList(old, new) {
				add(n.changeOf(name, "keys", new))
			}
		}
		if a, b := from.filesystem(name), to.filesystem(name); a != b && b != "" {
			add("file system "+b, Wipe)
		}
	}
	return all
}

func encryptionDiff(old, new *config.Encryption, add func(string, When)) {
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
}

func sameKeyList(a, b *config.Encryption) bool {
	return sameKeys(&config.Encryption{Keys: a.Keys}, &config.Encryption{Keys: b.Keys}) && sameSettings(a, b)
}
