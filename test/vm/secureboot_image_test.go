//go:build vm

package vm_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/cryptctl/cryptctl/test/vm/machine"
	"github.com/cryptctl/cryptctl/tpm/uki"
)

// variant is an image that is started by firmware, or what somebody made of it.
// All but one are signed for Secure Boot.
type variant string

const (
	genuine     variant = "genuine"                    // process 1 is a node daemon
	updated     variant = "updated"                    // process 1 is the guest program; PCR policy by the same key
	otherWords  variant = "another command line"       // with the PCR policy of the genuine one
	otherPolicy variant = "PCR policy by another key"  // in all else the genuine one
	notSigned   variant = "not signed for Secure Boot" // in all else the genuine one
)

// Words of the kernel's command line.
const (
	nodeWords   = "noded.run=/bin/guest noded.cost=light noded.try=5s"
	foreignWord = "init=/bin/sh" // that somebody added
)

// bootImage is an image in an EFI system partition.
type bootImage struct {
	*machine.BuiltUKI
	esp string
}

// signedInitramfs has what a node needs, and no more: firmware is slow to hash it.
func signedInitramfs(dir string, i machine.Initramfs, noded func() (string, error)) func() (string, error) {
	i.Programs = []string{"mkfs.ext4", "mkfs.xfs", "resize2fs", "xfs_growfs", "dmsetup", "sh", "ls", "cat", "dmesg", "mount", "umount"}
	i.Modules = []string{"virtio_pci", "virtio_blk", "virtio_console", "dm-crypt", "ecb", "xts", "aesni-intel", "xfs", "efivarfs"}
	i.Compressed = true
	return sync.OnceValues(func() (path string, err error) {
		path = filepath.Join(dir, "initramfs-signed")
		i := i
		if i.Init, err = noded(); err != nil {
			return "", err
		}
		return path, i.WriteFile(path, image.kernel)
	})
}

// signedImages returns what makes each variant, once.
func signedImages(dir string, i machine.Initramfs, noded func() (string, error)) map[variant]func() (*bootImage, error) {
	initramfs := signedInitramfs(dir, i, noded)
	policy := sync.OnceValues(func() (*uki.Key, error) { return newPolicyKey(filepath.Join(dir, "policy.key")) })
	another := sync.OnceValues(func() (*uki.Key, error) { return newPolicyKey(filepath.Join(dir, "another.key")) })

	all := map[variant]func() (*bootImage, error){}
	for _, v := range []variant{genuine, updated, otherWords, otherPolicy, notSigned} {
		all[v] = sync.OnceValues(func() (*bootImage, error) {
			key := policy
			if v == otherPolicy {
				key = another
			}
			path, err1 := initramfs()
			signer, err2 := key()
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
			u := machine.UKI{Kernel: image.kernel, Initramfs: path, Words: wordsOf(v), Policy: signer, Unsigned: v == notSigned}
			if v == otherWords {
				of, err := all[genuine]()
				if err != nil {
					return nil, err
				}
				u.Signatures = of.Signatures
			}
			return makeBootImage(dir, string(v), u)
		})
	}
	return all
}

func wordsOf(v variant) string {
	words := machine.Config{Append: strings.Fields(nodeWords)}.Words()
	switch v {
	case updated:
		return strings.Replace(words, "rdinit=/init", "rdinit=/bin/guest", 1)
	case otherWords:
		return words + " " + foreignWord
	}
	return words
}

// makeBootImage keeps the partition only.
func makeBootImage(dir, name string, u machine.UKI) (*bootImage, error) {
	work, err := os.MkdirTemp(dir, "uki-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	b := &bootImage{esp: filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".esp")}
	if b.BuiltUKI, err = u.Build(work); err == nil {
		err = machine.WriteESP(b.esp, b.Path)
	}
	if err != nil {
		return nil, fmt.Errorf("the image %q: %w", name, err)
	}
	return b, nil
}

// newPolicyKey makes a key that signs PCR policies.
func newPolicyKey(path string) (*uki.Key, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	return uki.ReadKey(path)
}
