package config

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cryptctl/cryptctl/secret"
)

const (
	// maxKeys is LUKS2_KEYSLOTS_MAX of cryptsetup.
	maxKeys = 32

	// maxPassphrase bounds a static passphrase in bytes. The memory for it is
	// locked, and an alias can name the same text in 32 keys.
	maxPassphrase = 64 << 10

	// pcrs is the number of registers of a TPM for PC clients (TCG PC Client
	// Platform TPM Profile, section 4.6).
	pcrs = 24

	// defaultPCR holds the Secure Boot policy; Talos binds a key to it when
	// there are no options.
	defaultPCR = 7

	formatOwn     = "cryptctl"
	formatTalos   = "talos"
	formatSystemd = "systemd"
)

// readKeys returns the keys of a block, sorted by slot.
func readKeys(c cursor, volume string) []Key {
	var keys []Key
	taken := make(map[int]cursor)
	for _, item := range c.items(maxKeys, "LUKS2 has no more slots") {
		if !item.fields([]string{"slot", "static", "nodeID", "kms", "tpm"}, "lockToState") {
			continue
		}
		key, ok := readKey(item, volume)
		if other, used := taken[key.Slot]; ok && used {
			item.field("slot").fail(fmt.Sprintf("slot %d is also used by %s on line %d", key.Slot, other.path, other.line),
				"give each key a slot of its own, 0 to 31")
		} else if ok {
			taken[key.Slot] = item
		}
		keys = append(keys, key)
	}
	slices.SortStableFunc(keys, func(a, b Key) int { return a.Slot - b.Slot })
	return keys
}

// readKey reads one key; ok reports whether its slot is one.
func readKey(c cursor, volume string) (key Key, ok bool) {
	key.Source = c.position()
	slot := c.field("slot")
	key.Slot, ok = slot.integer()
	if ok && (key.Slot < 0 || key.Slot >= maxKeys) {
		slot.fail(strconv.Itoa(key.Slot)+" is not a slot", "write a number from 0 to 31")
		ok = false
	}
	if lock := c.field("lockToState"); !c.main {
		key.LockToState = lock.boolean()
		if key.LockToState && volume == "STATE" {
			lock.fail("STATE holds the salt that this would need to open it", "remove lockToState from the keys of STATE")
		}
	}
	checkKinds(c)
	if f := c.field("static"); f.exists() {
		key.Static = readStatic(f)
	}
	if f := c.field("nodeID"); f.exists() {
		f.fields(nil)
		key.NodeID = &NodeID{}
	}
	if f := c.field("kms"); f.exists() {
		key.KMS = readKMS(f)
		for _, name := range beyondEndpoint() {
			if g := f.field(name); g.exists() && volume == "STATE" {
				g.fail("STATE is opened before this file is read, and META keeps the endpoint only", "remove it: what the servers of STATE's keys need besides, the boot image brings")
			}
		}
	}
	if f := c.field("tpm"); f.exists() {
		key.TPM = readTPM(f)
		if check := f.field("checkSecurebootStatusOnUnseal"); key.TPM.CheckSecurebootStatusOnUnseal && volume == "STATE" {
			check.fail("STATE is opened before this file is read", "remove it: a key that is bound to PCR 7 opens only with Secure Boot as it was")
		}
	}
	return key, ok
}

// checkKinds reports a key that has no kind, or several: Talos takes the first
// of them and says nothing.
func checkKinds(c cursor) {
	var there, empty []string
	for _, kind := range []string{"static", "nodeID", "kms", "tpm"} {
		if f := c.field(kind); f.exists() {
			there = append(there, kind)
		} else if f.node != nil {
			empty = append(empty, kind)
		}
	}
	switch {
	case len(there) > 1:
		c.fail("the key has "+strings.Join(there, " and "), "keep one, or make each a key with a slot of its own")
	case len(there) == 0 && len(empty) > 0:
		c.fail("the key has no kind, since "+empty[0]+" is empty", "write "+empty[0]+": {} or the fields that belong below it")
	case len(there) == 0:
		c.fail("the key has no kind", "add one of static, nodeID, kms, tpm")
	}
}

func readStatic(c cursor) *Static {
	c.hidden = true
	if !c.fields([]string{"passphrase"}) {
		return &Static{}
	}
	p := c.field("passphrase")
	text, ok := p.text()
	switch {
	case !ok:
	case text == "":
		p.fail("is empty", "write the passphrase, in quotes if it starts with a sign")
	case len(text) > maxPassphrase:
		p.fail(fmt.Sprintf("is longer than %d KiB", maxPassphrase>>10), "use a shorter passphrase")
	default:
		return &Static{Passphrase: secret.Take([]byte(text))}
	}
	return &Static{}
}

func readTPM(c cursor) *TPM {
	t := &TPM{PCRs: []int{defaultPCR}}
	ours := []string{"checkSecurebootStatusOnUnseal", "format", "pin", "latch", "reseal", "signingKey", "allowWeakPolicy"}
	if !c.fields([]string{"checkSecurebootStatusOnEnroll"}, append(ours, "options")...) {
		return t
	}
	t.CheckSecurebootStatusOnEnroll = c.field("checkSecurebootStatusOnEnroll").boolean()
	if c.main {
		return t
	}
	if options := c.field("options"); options.exists() && options.fields([]string{"pcrs"}) {
		t.PCRs = readPCRs(options.field("pcrs"))
	}
	t.CheckSecurebootStatusOnUnseal = c.field("checkSecurebootStatusOnUnseal").boolean()
	t.PIN = c.field("pin").boolean()
	t.Reseal = c.field("reseal").boolean()
	t.AllowWeakPolicy = c.field("allowWeakPolicy").boolean()
	if latch := c.field("latch"); latch.exists() {
		t.NoLatch = !latch.boolean()
	}
	t.SigningKey = readSigningKey(c.field("signingKey"))
	t.Format = readTPMFormat(c, t)
	return t
}

// readTPMFormat reads the format of new tokens, and refuses what the format
// cannot express.
func readTPMFormat(c cursor, t *TPM) string {
	f := c.field("format")
	name, ok := f.text()
	if !ok || name == "" || name == formatOwn {
		return name
	}
	latch := c.field("latch")
	switch {
	case name != formatTalos && name != formatSystemd:
		f.fail(shown(name)+" is no format of tokens", "write cryptctl, talos or systemd")
	case latch.exists() && !t.NoLatch:
		latch.fail("tokens of "+name+" have no latch", "remove latch, or write format: cryptctl")
	case name == formatTalos && t.PIN:
		c.field("pin").fail("tokens of talos have no PIN", "remove pin, or write format: cryptctl")
	}
	t.NoLatch = true
	return name
}

// readSigningKey reads a public key; package tpm says what it must be like.
func readSigningKey(c cursor) []byte {
	text, ok := c.text()
	if !ok || !c.exists() {
		return nil
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		c.fail("is not one public key in PEM", "write the key as \"openssl rsa -pubout\" gives it, with signingKey: | before it")
		return nil
	}
	if key, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		c.fail("cannot be read as a public key", "write the key as \"openssl rsa -pubout\" gives it")
	} else if _, isRSA := key.(*rsa.PublicKey); !isRSA {
		c.fail("is not an RSA key, and TPM policies of boot images are signed with RSA", "write the key of the boot image's signer")
	}
	return []byte(text)
}

// readPCRs returns the registers sorted and each once: in any other form Talos
// seals a key that it cannot unseal.
func readPCRs(c cursor) []int {
	var out []int
	for _, item := range c.items(pcrs, "a TPM has no more PCRs") {
		n, ok := item.integer()
		switch {
		case !item.exists():
			item.fail("is empty", "write the number of a PCR")
		case !ok:
		case n < 0 || n >= pcrs:
			item.fail(strconv.Itoa(n)+" is not a PCR", "write a number from 0 to 23")
		case n == 11:
			item.fail("PCR 11 measures the boot image, so the key would be lost with every upgrade",
				"leave it out: the image's signed policy for PCR 11 always applies")
		case n == 16 || n == 23:
			item.fail(fmt.Sprintf("PCR %d can be reset by any program, so it proves nothing", n), "leave it out")
		default:
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
