package luks

import (
	"crypto/aes"
	"encoding/binary"
	"fmt"
	"hash"
	"slices"

	"golang.org/x/crypto/xts"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	stripes    = 4000 // LUKS1 On-Disk Format 1.1.1, section 2.4; LUKS2 ignores af.stripes
	areaSector = 512  // sectors of a keyslot area, whatever the data uses
)

// afSize is the length of the split key in bytes, whole sectors.
func afSize(keySize int) int64 {
	n := int64(keySize) * stripes
	return (n + areaSector - 1) / areaSector * areaSector
}

// areaSize is the room a keyslot area takes: the split key, aligned.
func areaSize(keySize int) int64 {
	return (afSize(keySize) + alignment - 1) / alignment * alignment
}

// diffuse applies the hash to each digest-sized block, prefixed by the block's
// number; the last block is cut (LUKS1 On-Disk Format 1.1.1, section 2.4).
func diffuse(h hash.Hash, p []byte) {
	var sum [64]byte
	var index [4]byte
	for i := 0; i*h.Size() < len(p); i++ {
		block := p[i*h.Size():]
		block = block[:min(h.Size(), len(block))]
		h.Reset()
		binary.BigEndian.PutUint32(index[:], uint32(i))
		h.Write(index[:])
		h.Write(block)
		copy(block, h.Sum(sum[:0]))
	}
	clear(sum[:])
}

func xor(dst, src []byte) {
	for i, b := range src {
		dst[i] ^= b
	}
}

// afSplit spreads a key over 4000 stripes so that losing any part of them loses
// the key. The result is padded to whole sectors.
func afSplit(h hash.Hash, key *secret.Bytes) *secret.Bytes {
	n := key.Len()
	out := secret.Random(int(afSize(n)))
	buf := secret.New(n)
	defer buf.Wipe()
	for i := range stripes - 1 {
		xor(buf.Bytes(), out.Bytes()[i*n:(i+1)*n])
		diffuse(h, buf.Bytes())
	}
	last := out.Bytes()[(stripes-1)*n : stripes*n]
	copy(last, key.Bytes())
	xor(last, buf.Bytes())
	return out
}

// afMerge is the inverse of afSplit.
func afMerge(h hash.Hash, material *secret.Bytes, keySize int) *secret.Bytes {
	key := secret.New(keySize)
	for i := range stripes - 1 {
		xor(key.Bytes(), material.Bytes()[i*keySize:(i+1)*keySize])
		diffuse(h, key.Bytes())
	}
	xor(key.Bytes(), material.Bytes()[(stripes-1)*keySize:stripes*keySize])
	return key
}

// areaCiphers are the ciphers of keyslot areas that we open, with the key sizes
// in bytes that each takes. cryptsetup gives an area the cipher of the data, as
// long as it is not told otherwise.
func areaCiphers(name string) (keySizes []int, ok bool) {
	switch name {
	case areaCipher:
		return []int{32, 64}, true
	case adiantum12, adiantum20:
		return []int{adiantumKey}, true
	}
	return nil, false
}

// sectorCipher encrypts sectors of 512 bytes by their number from the start of
// the area, as the plain64 IV of dm-crypt has it. dst and src may be the same.
type sectorCipher interface {
	Encrypt(dst, src []byte, sector uint64)
	Decrypt(dst, src []byte, sector uint64)
}

// newSectorCipher returns one of [areaCiphers].
func newSectorCipher(name string, kek *secret.Bytes) (sectorCipher, error) {
	keySizes, _ := areaCiphers(name)
	switch {
	case !slices.Contains(keySizes, kek.Len()):
		return nil, fmt.Errorf("area cipher %q with a key of %d bytes is not known here", name, kek.Len())
	case name == areaCipher:
		return xts.NewCipher(aes.NewCipher, kek.Bytes())
	}
	return newAdiantum(name, kek), nil
}

func sectors(p []byte, f func(dst, src []byte, sector uint64)) {
	for i := 0; i < len(p); i += areaSector {
		s := p[i : i+areaSector]
		f(s, s, uint64(i/areaSector))
	}
}

// sealArea splits the key and encrypts the stripes with [areaCipher]: what goes
// to the disk.
func sealArea(key, kek *secret.Bytes, afHash string) ([]byte, error) {
	newHash, err := kdf.NewHash(afHash)
	if err != nil {
		return nil, err
	}
	c, err := newSectorCipher(areaCipher, kek)
	if err != nil {
		return nil, err
	}
	material := afSplit(newHash(), key)
	defer material.Wipe()
	sectors(material.Bytes(), c.Encrypt)
	return append([]byte(nil), material.Bytes()...), nil
}

// openArea decrypts what was read from the disk and merges the stripes into a
// candidate for the key, which a digest must confirm.
func openArea(sealed []byte, cipher string, kek *secret.Bytes, afHash string, keySize int) (*secret.Bytes, error) {
	newHash, err := kdf.NewHash(afHash)
	if err != nil {
		return nil, err
	}
	c, err := newSectorCipher(cipher, kek)
	if err != nil {
		return nil, err
	}
	material := secret.Copy(sealed)
	defer material.Wipe()
	sectors(material.Bytes(), c.Decrypt)
	return afMerge(newHash(), material, keySize), nil
}
