package node

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/config"
)

// When says when a change takes effect.
type When string

// Times of a change.
const (
	Now      When = "now"
	NextBoot When = "next boot"
	Wipe     When = "wipe" // only a volume that is made anew has it
)

// Difference is one change between two configurations, without what is secret.
type Difference struct {
	Volume string `json:"volume"`
	// Fields are the paths of what changes in the document with the volume's
	// encryption, such as encryption.keys[slot=1], or TrustedRootsConfig. A volume that
	// is declared or no longer declared, and is not encrypted, has none.
	Fields []string `json:"fields,omitempty"`
	What   string   `json:"what"`
	When   When     `json:"when"`
}

// String gives the difference as one line.
func (d Difference) String() string {
	where := strings.Join(append([]string{d.Volume}, d.Fields...), ", ")
	return fmt.Sprintf("%s: %s (%s)", where, d.What, d.When)
}

// staged is the difference when the configuration waits for the next boot.
func (d Difference) staged() Difference {
	if d.When == Now {
		d.When = NextBoot
	}
	return d
}

const undeclared = "no longer declared: it stays open until then"

// diff says what changes between two configurations, and when. Only encryption
// and file systems are looked at. With the TPM's latch closed, keys that have one
// can be sealed on the next boot only.
func (n *Node) diff(from, to *machine) (all []Difference) {
	names := map[string]bool{stateName: true}
	for _, name := range append(from.names(), to.names()...) {
		names[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add := func(what string, when When, fields ...string) {
			all = append(all, Difference{name, fields, what, when})
		}
		old, new := from.encryption(name), to.encryption(name)
		there, stays := slices.Contains(append(from.names(), stateName), name), slices.Contains(append(to.names(), stateName), name)
		switch {
		case !there:
			what, when := n.changeOf(name, "a new volume", new)
			add(what, when, blockOf(new)...)
			continue
		case !stays:
			add(undeclared, NextBoot, blockOf(old)...)
			continue
		case (old == nil) != (new == nil):
			add(encryptedText(new), Wipe, append(blockOf(old), blockOf(new)...)...)
		case new != nil:
			encryptionDiff(old, new, add)
			if fields := keyFields(name, from, to); len(fields) > 0 {
				what, when := n.changeOf(name, "keys", new)
				add(what, when, fields...)
			}
		}
		if a, b := from.filesystem(name), to.filesystem(name); a != b && b != "" {
			add("file system "+b, Wipe, "filesystem.type")
		}
	}
	return all
}

// blockOf is the path of an encryption block, if there is one.
func blockOf(e *config.Encryption) []string {
	if e == nil {
		return nil
	}
	return []string{e.Path}
}

// encryptionDiff adds what changes of two encryptions beside their keys.
func encryptionDiff(old, new *config.Encryption, add func(string, When, ...string)) {
	if old.Cipher != new.Cipher {
		add("cipher "+new.Cipher, Wipe, new.Path+".cipher")
	}
	if old.KeySize != new.KeySize && (old.Cipher == new.Cipher || new.KeySize != config.DefaultKeySize(new.Cipher)) {
		add(fmt.Sprintf("another key size: %d bits", new.KeySize), Wipe, new.Path+".keySize")
	}
	if old.BlockSize != new.BlockSize && new.BlockSize != 0 {
		add(fmt.Sprintf("another sector size: %d bytes", new.BlockSize), Wipe, new.Path+".blockSize")
	}
	var options []string
	if !slices.Equal(old.Options, new.Options) {
		options = append(options, new.Path+".options")
	}
	if old.AllowDiscards != new.AllowDiscards {
		options = append(options, new.Path+".allowDiscards")
	}
	if options != nil {
		add("options of the mapping", NextBoot, options...)
	}
}

// keyFields are the paths of what changes of the keys that a volume is provided with,
// which is encrypted by both configurations: the slots with a key that is new, gone
// or another, and the trusted roots, when a slot that stays is reached by them.
func keyFields(name string, from, to *machine) (fields []string) {
	old, new := from.encryption(name), to.encryption(name)
	keys := func(e *config.Encryption) map[int]config.Key {
		bySlot := make(map[int]config.Key, len(e.Keys))
		for _, k := range e.Keys {
			bySlot[k.Slot] = k
		}
		return bySlot
	}
	was, is := keys(old), keys(new)
	rooted := false
	for slot := range 32 {
		a, had := was[slot]
		b, has := is[slot]
		if had != has || had && !sameKey(a, b) {
			fields = append(fields, fmt.Sprintf("%s.keys[slot=%d]", new.Path, slot))
			continue
		}
		rooted = rooted || has && hasRoots(name, b)
	}
	if rooted && !bytes.Equal(from.TrustedRoots, to.TrustedRoots) {
		fields = append(fields, "TrustedRootsConfig")
	}
	return fields
}

// hasRoots reports whether a key is had from key servers that the configuration's
// trusted roots vouch for: not those of STATE, in which the configuration is.
func hasRoots(name string, k config.Key) bool {
	return name != stateName && k.KMS != nil && k.KMS.Authorities == nil
}

func sameKeyList(a, b *config.Encryption) bool {
	return sameKeys(&config.Encryption{Keys: a.Keys}, &config.Encryption{Keys: b.Keys}) && sameSettings(a, b)
}
