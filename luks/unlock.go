package luks

import (
	"context"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/crypto/pbkdf2"

	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// Errors of unlocking.
var (
	// ErrWrongPassphrase: a passphrase was tried and opened nothing.
	ErrWrongPassphrase = errors.New("no keyslot opens with this passphrase")
	// ErrNoUsableSlot: there was no keyslot to try it on.
	ErrNoUsableSlot = errors.New("no keyslot could be tried")
)

// UnlockOptions says how a volume is unlocked. The zero value tries every slot
// that is not set to be ignored, under the default limits.
type UnlockOptions struct {
	// Slots are the slots to try, in this order; nil means all, in the order of
	// cryptsetup: preferred ones first, then as the document has them, ignored
	// ones never.
	Slots []int
	// Limits bounds what the header may make us spend.
	Limits kdf.Limits
}

// VolumeKey is a key that a digest of the header confirmed.
type VolumeKey struct {
	key    *secret.Bytes
	slot   int
	digest string // the digest object that confirmed it, so that a change of volume is seen
}

// Slot returns the slot that gave the key, or -1 when it was given otherwise.
func (v *VolumeKey) Slot() int { return v.slot }

// Bytes returns the key itself; it stays owned by v.
func (v *VolumeKey) Bytes() *secret.Bytes { return v.key }

// Wipe destroys the key.
func (v *VolumeKey) Wipe() {
	if v != nil {
		v.key.Wipe()
	}
}

// Unlock finds the volume key with a passphrase. It refuses a header that
// [Header.Trust] refuses, skips slots that may not be used, and costs one key
// derivation for each slot tried. The error wraps [ErrWrongPassphrase] when at
// least one slot was tried and none opened; it names the slots skipped and why.
func (h *Header) Unlock(ctx context.Context, passphrase *secret.Bytes, opts UnlockOptions) (*VolumeKey, error) {
	if err := h.Trusted(); err != nil {
		return nil, fmt.Errorf("the header is refused: %w", err)
	}
	opts.Limits = opts.Limits.OrDefault()
	order := opts.Slots
	if order == nil {
		order = h.trialOrder()
	}
	var tried []string
	var skipped []error
	for _, id := range order {
		slot, ok := h.meta.keyslot(id)
		if !ok {
			skipped = append(skipped, fmt.Errorf("keyslot %d is not in use", id))
			continue
		}
		if err := h.usable(id, opts.Limits); err != nil {
			skipped = append(skipped, err)
			continue
		}
		key, err := h.openSlot(ctx, slot, passphrase, opts.Limits)
		if err != nil {
			return nil, fmt.Errorf("keyslot %d: %w", id, err)
		}
		if key != nil {
			d, _ := h.meta.dataDigest()
			return &VolumeKey{key: key, slot: id, digest: h.digestText(d.ID)}, nil
		}
		tried = append(tried, fmt.Sprint(id))
	}
	return nil, unlockError(tried, skipped)
}

func unlockError(tried []string, skipped []error) error {
	err := errors.Join(skipped...)
	switch {
	case len(tried) == 0 && err == nil:
		return fmt.Errorf("%w: the volume has none", ErrNoUsableSlot)
	case len(tried) == 0:
		return fmt.Errorf("%w: %w", ErrNoUsableSlot, err)
	case err == nil:
		return fmt.Errorf("%w (tried %s)", ErrWrongPassphrase, strings.Join(tried, ", "))
	}
	return fmt.Errorf("%w (tried %s; not tried: %w)", ErrWrongPassphrase, strings.Join(tried, ", "), err)
}

// trialOrder is the order of cryptsetup: by priority, then by document.
func (h *Header) trialOrder() []int {
	slots := slices.DeleteFunc(h.Keyslots(), func(k Keyslot) bool { return k.Priority == PriorityIgnore || k.Type != "luks2" })
	slices.SortStableFunc(slots, func(a, b Keyslot) int { return int(b.Priority) - int(a.Priority) })
	ids := make([]int, len(slots))
	for i, k := range slots {
		ids[i] = k.ID
	}
	return ids
}

// openSlot returns the volume key, or nil when the passphrase does not open the
// slot.
func (h *Header) openSlot(ctx context.Context, k Keyslot, passphrase *secret.Bytes, limits kdf.Limits) (*secret.Bytes, error) {
	sealed, err := h.readArea(k)
	if err != nil {
		return nil, err
	}
	kek, err := k.KDF.Derive(ctx, passphrase, k.Area.KeySize, limits)
	if err != nil {
		return nil, err
	}
	defer kek.Wipe()
	key, err := openArea(sealed, k.Area.Encryption, kek, k.AF.Hash, k.KeySize)
	if err != nil {
		return nil, err
	}
	if d, ok := h.meta.dataDigest(); ok && d.confirms(key) {
		return key, nil
	}
	key.Wipe()
	return nil, nil
}

// readArea reads a slot's encrypted material under a shared lock, so that a
// writer's half-done change of the area is not seen.
func (h *Header) readArea(k Keyslot) ([]byte, error) {
	if k.KeySize == 0 || k.Area.Size < afSize(k.KeySize) {
		return nil, fmt.Errorf("keyslot %d: the area of %d bytes does not hold a key of %d bytes", k.ID, k.Area.Size, k.KeySize)
	}
	release, err := lock(h.dev, false)
	if err != nil {
		return nil, err
	}
	defer release()
	if err := h.stillThere(k.ID); err != nil {
		return nil, err
	}
	sealed := make([]byte, afSize(k.KeySize))
	if err := readAt(h.dev, sealed, k.Area.Offset); err != nil {
		return nil, fmt.Errorf("key material: %w", err)
	}
	return sealed, nil
}

// stillThere makes sure, under the lock, that the area still is the slot's: one
// that was replaced meanwhile would look like a wrong passphrase.
func (h *Header) stillThere(slot int) error {
	var seq [8]byte
	if err := readAt(h.dev, seq[:], int64(h.binary.HdrOffset)+seqOffset); err != nil {
		return err
	}
	if binary.BigEndian.Uint64(seq[:]) == h.binary.SeqID {
		return nil
	}
	now, err := read(h.dev)
	if err != nil {
		return err
	}
	return (&draft{base: &h.snapshot, now: &now.snapshot}).unchanged("keyslots", slot)
}

// Usable returns why a slot cannot be used, or nil.
func (h *Header) Usable(slot int, limits kdf.Limits) error {
	if err := h.Trusted(); err != nil {
		return err
	}
	return h.usable(slot, limits)
}

// confirms compares in constant time. The length was checked by Trust: a digest
// of length 0 would confirm every key.
func (d Digest) confirms(key *secret.Bytes) bool {
	newHash, err := kdf.NewHash(d.Hash)
	if err != nil || len(d.Digest) < legacyDigestSize {
		return false
	}
	got := pbkdf2.Key(key.Bytes(), d.Salt, int(d.Iterations), len(d.Digest), newHash)
	return subtle.ConstantTimeCompare(got, d.Digest) == 1
}

// digestText is a digest's object without its lists: what a volume key is tied
// to, whatever happens to slots.
func (h *Header) digestText(id int) string {
	digests, _ := h.doc.child("digests")
	d, ok := digests.child(fmt.Sprint(id))
	if !ok {
		return ""
	}
	return bareDigest(d)
}

func bareDigest(d *object) string {
	d = d.clone()
	d.remove("keyslots")
	d.remove("segments")
	return string(d.encode())
}

// WithKey checks a volume key that the caller already has, such as one from
// escrow, against the header.
func (h *Header) WithKey(key *secret.Bytes) (*VolumeKey, error) {
	if err := h.Trusted(); err != nil {
		return nil, fmt.Errorf("the header is refused: %w", err)
	}
	d, ok := h.meta.dataDigest()
	fits := slices.ContainsFunc(h.meta.keyslots, func(k Keyslot) bool { return k.KeySize == key.Len() }) || len(h.meta.keyslots) == 0
	if !ok || !fits || !d.confirms(key) {
		return nil, errors.New("this is not the key of the volume")
	}
	return &VolumeKey{key: key.Clone(), slot: -1, digest: h.digestText(d.ID)}, nil
}
