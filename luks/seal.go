package luks

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// NewVolumeKey returns a fresh random volume key of size bytes, for [Format].
func NewVolumeKey(size int) *VolumeKey { return VolumeKeyFrom(secret.Random(size)) }

// VolumeKeyFrom takes over a key that the caller has, for [Format].
func VolumeKeyFrom(key *secret.Bytes) *VolumeKey { return &VolumeKey{key: key, slot: -1} }

// slotHash is the hash of new anti-forensic splitters and digests.
const slotHash = "sha256"

// SealedKey is a volume key sealed under a passphrase: all of a keyslot but its
// id and place. Making one costs one key derivation; placing it costs none, so
// the lock is held for a write only.
type SealedKey struct {
	// Priority of a slot that is added; one that is replaced keeps its own.
	Priority Priority

	volume *VolumeKey
	params kdf.Params
	area   []byte // encrypted material
	slot   int
}

// Slot returns the id that the keyslot got when it was committed.
func (s *SealedKey) Slot() int { return s.slot }

// Seal derives a key from the passphrase at that cost and seals the volume key
// under it. The result was opened again once before it is returned.
func (v *VolumeKey) Seal(ctx context.Context, passphrase *secret.Bytes, cost kdf.Cost) (*SealedKey, error) {
	if passphrase.Len() == 0 {
		return nil, errors.New("an empty passphrase protects nothing; give one of at least one byte")
	}
	params := cost.Salted()
	kek, err := params.Derive(ctx, passphrase, 64, kdf.Limits{})
	if err != nil {
		return nil, fmt.Errorf("seal the volume key: %w", err)
	}
	defer kek.Wipe()
	sealed, err := sealArea(v.key, kek, slotHash)
	if err != nil {
		return nil, fmt.Errorf("seal the volume key: %w", err)
	}
	again, err := openArea(sealed, areaCipher, kek, slotHash, v.key.Len())
	if err != nil {
		return nil, fmt.Errorf("open the sealed volume key: %w", err)
	}
	defer again.Wipe()
	if !again.Equal(v.key) {
		return nil, errors.New("the sealed volume key does not open again: faulty memory or processor")
	}
	return &SealedKey{volume: v, params: params, area: sealed, slot: AnySlot}, nil
}

// object renders the keyslot for an area at that offset, member for member as
// cryptsetup writes it.
func (s *SealedKey) object(offset int64) *object {
	derivation := newObject("type", string(s.params.Kind))
	if s.params.Kind == kdf.PBKDF2 {
		derivation.set("hash", s.params.Hash)
		derivation.set("iterations", number(int(s.params.Iterations)))
	} else {
		derivation.set("time", number(int(s.params.Time)))
		derivation.set("memory", number(int(s.params.MemoryKiB)))
		derivation.set("cpus", number(int(s.params.CPUs)))
	}
	derivation.set("salt", base64.StdEncoding.EncodeToString(s.params.Salt))
	size := s.volume.key.Len()
	return newObject(
		"type", "luks2",
		"key_size", number(size),
		"af", newObject("type", "luks1", "stripes", number(stripes), "hash", slotHash),
		"area", newObject("type", "raw", "offset", decimal(offset), "size", decimal(areaSize(size)),
			"encryption", areaCipher, "key_size", number(64)),
		"kdf", derivation,
	)
}

// KeyslotSum is a hash of all that a keyslot is: its object and its encrypted
// material, but neither where the material lies nor when the slot is tried. It
// changes with every change of the key, and only then.
func (h *Header) KeyslotSum(id int) (sum [sha256.Size]byte, err error) {
	k, ok := h.meta.keyslot(id)
	if !ok {
		return sum, fmt.Errorf("keyslot %d: %w", id, ErrNoSlot)
	}
	material, err := h.readArea(k)
	if err != nil {
		return sum, err
	}
	slots, _ := h.doc.child("keyslots")
	o, _ := slots.child(strconv.Itoa(id))
	return keyslotSum(o, material), nil
}

// Sum is the [Header.KeyslotSum] that the slot will have.
func (s *SealedKey) Sum() [sha256.Size]byte { return keyslotSum(s.object(0), s.area) }

func keyslotSum(o *object, material []byte) (sum [sha256.Size]byte) {
	o = o.clone()
	o.remove("priority")
	if area, ok := o.child("area"); ok {
		area.remove("offset")
	}
	of := sha256.Sum256(material)
	h := sha256.New()
	h.Write(of[:])
	h.Write(o.encode())
	h.Sum(sum[:0])
	return sum
}
