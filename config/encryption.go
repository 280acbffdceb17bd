package config

import (
	"slices"
	"strconv"
	"strings"
)

const (
	providerLUKS2 = "luks2"
	providerNone  = "none"
)

// readEncryption reads an encryption block of either dialect and reports
// whether it asks for encryption. A block with mistakes does.
func readEncryption(c cursor, volume string) (e Encryption, encrypted bool) {
	e = Encryption{Volume: volume, Source: c.position(), Path: c.path, Provider: providerLUKS2}
	known := []string{"provider", "keys", "cipher", "keySize", "blockSize", "options"}
	if !c.fields(known, "allowDiscards") {
		return e, true
	}
	encrypted = readProvider(c)
	e.Cipher, e.KeySize = readCipher(c.field("cipher"), c.field("keySize"))
	e.BlockSize = readBlockSize(c.field("blockSize"))
	e.Options = readOptions(c.field("options"))
	e.AllowDiscards = c.field("allowDiscards").boolean()
	e.Keys = readKeys(c.field("keys"), volume)
	if keys := c.field("keys"); encrypted && keys.empty() {
		keys.fail("there are no keys", "add a key, such as - slot: 0 with nodeID: {}")
	}
	return e, encrypted
}

// readProvider reports whether the provider asks for encryption. In the main
// document luks2 is the default; in the others its absence is a mistake, unless
// the block is empty.
func readProvider(c cursor) bool {
	p := c.field("provider")
	name, ok := p.text()
	if !c.main {
		name = strings.ToLower(name)
	}
	switch {
	case !ok:
	case name == providerLUKS2:
	case name == "" && c.main:
	case name == providerNone && !c.main:
		if !c.field("keys").empty() {
			p.fail("is none, but there are keys", "write provider: luks2, or remove the keys")
		}
		return false
	case !p.exists() && len(c.node.Content) == 0:
		return false
	case !p.exists():
		p.fail("is missing", "write provider: luks2")
	case c.main:
		// Talos takes any other word for "not encrypted".
		p.fail("unknown provider "+shown(name), "write provider: luks2, or remove the block to leave the volume unencrypted")
	default:
		p.fail("unknown provider "+shown(name), "write "+providerLUKS2+" or "+providerNone)
	}
	return true
}

// DefaultCipher is the cipher of a block that names none.
const DefaultCipher = "aes-xts-plain64"

// DefaultKeySize is the size in bits of the volume key of a block that says none:
// XTS takes two AES keys of 256, Adiantum one XChaCha key.
func DefaultKeySize(cipher string) int {
	if cipher == DefaultCipher {
		return 512
	}
	return 256
}

// readCipher returns the cipher and its key size in bits, with the defaults for
// what is absent. XTS takes two AES keys of 128 or 256 bits.
func readCipher(cipher, keySize cursor) (string, int) {
	ciphers := []string{DefaultCipher, "xchacha12,aes-adiantum-plain64", "xchacha20,aes-adiantum-plain64"}
	name, ok := cipher.text()
	size, _ := keySize.integer()
	if !ok {
		return name, size
	}
	if name == "" {
		name = DefaultCipher
	}
	if !slices.Contains(ciphers, name) {
		cipher.fail("unknown cipher "+shown(name), "write one of "+strings.Join(ciphers, " or "))
		return name, size
	}
	sizes, fix := []int{512, 256}, "write 512 or 256"
	if name != DefaultCipher {
		sizes, fix = []int{256}, "write 256"
	}
	switch {
	case size == 0:
		size = DefaultKeySize(name)
	case !slices.Contains(sizes, size):
		keySize.fail(strconv.Itoa(size)+" bits do not fit "+name, fix+", or leave it out")
	}
	return name, size
}

// readBlockSize returns the sector size in bytes, 0 when it is not set. The
// sizes are those that dm-crypt has.
func readBlockSize(c cursor) int {
	size, ok := c.integer()
	if ok && !slices.Contains([]int{0, 512, 1024, 2048, 4096}, size) {
		c.fail(strconv.Itoa(size)+" is not a sector size", "write 512, 1024, 2048 or 4096 bytes, or leave it out")
	}
	return size
}

// readOptions returns the performance options, each once.
func readOptions(c cursor) []string {
	known := []string{"no_read_workqueue", "no_write_workqueue", "same_cpu_crypt"}
	var out []string
	for _, item := range c.items(len(known), "there are no more options") {
		name, ok := item.text()
		switch {
		case !ok || slices.Contains(out, name):
		case slices.Contains(known, name):
			out = append(out, name)
		default:
			fix := "the options are " + strings.Join(known, ", ")
			if near := nearest(name, known); near != "" {
				fix = "did you mean " + near + "?"
			}
			item.fail("unknown option "+shown(name), fix)
		}
	}
	return out
}
