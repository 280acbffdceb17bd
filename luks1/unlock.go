package luks1

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/pbkdf2"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// Key is a volume key that the header's digest confirmed.
type Key struct {
	key    *secret.Bytes
	slot   int
	digest digest // that confirmed it
}

// digest is what proves a volume key.
type digest struct {
	hash       string
	sum        [20]byte
	salt       [32]byte
	iterations uint32
}

func (h *Header) digest() digest {
	return digest{h.hash, h.raw.MKDigest, h.raw.MKDigestSalt, h.raw.MKDigestIteration}
}

// Confirmed reports whether the key is one that this header's digest confirmed,
// read at whatever time. It costs no derivation.
func (h *Header) Confirmed(k *Key) bool {
	return k != nil && k.key.Len() == h.KeySize() && k.digest == h.digest()
}

// Slot returns the slot that gave the key.
func (k *Key) Slot() int { return k.slot }

// Bytes returns the key itself; it stays owned by k.
func (k *Key) Bytes() *secret.Bytes { return k.key }

// Wipe destroys the key.
func (k *Key) Wipe() {
	if k != nil {
		k.key.Wipe()
	}
}

// Unlock finds the volume key with a passphrase, trying the given slots or, when
// there are none, all that are active. It refuses a header that [Header.Trust]
// refuses, skips slots that may not be used, and costs one key derivation for
// each slot tried; a derivation that has begun runs to its end. The error wraps
// [luks.ErrWrongPassphrase] when at least one slot was tried and none opened,
// else [luks.ErrNoUsableSlot].
func (h *Header) Unlock(ctx context.Context, passphrase *secret.Bytes, limits kdf.Limits, slots ...int) (*Key, error) {
	refused, err := h.judge(limits)
	if err != nil {
		return nil, err
	}
	if len(slots) == 0 {
		for _, s := range h.Slots() {
			slots = append(slots, s.ID)
		}
	}
	var tried []string
	var skipped []error
	for _, id := range slots {
		switch {
		case id < 0 || id >= maxSlots || h.raw.Slots[id].Active != enabled:
			skipped = append(skipped, fmt.Errorf("slot %d is not in use", id))
			continue
		case refused[id] != nil:
			skipped = append(skipped, refused[id])
			continue
		case ctx.Err() != nil:
			return nil, fmt.Errorf("slot %d: key derivation not started: %w", id, context.Cause(ctx))
		}
		key, err := h.open(id, passphrase)
		if err != nil {
			return nil, fmt.Errorf("slot %d: %w", id, err)
		}
		if key != nil {
			return &Key{key, id, h.digest()}, nil
		}
		tried = append(tried, fmt.Sprint(id))
	}
	return nil, unlockError(tried, skipped)
}

// judge returns the refusals of single slots, and those of the whole header as
// an error.
func (h *Header) judge(limits kdf.Limits) (bySlot [maxSlots]error, err error) {
	var errs []error
	for _, r := range h.Trust(limits) {
		if r.Level == luks.SlotOnly {
			bySlot[r.Slot] = r
		} else {
			errs = append(errs, r)
		}
	}
	if len(errs) > 0 {
		return bySlot, fmt.Errorf("the header is refused: %w", errors.Join(errs...))
	}
	return bySlot, nil
}

func unlockError(tried []string, skipped []error) error {
	err := errors.Join(skipped...)
	switch {
	case len(tried) == 0 && err == nil:
		return fmt.Errorf("%w: the volume has none", luks.ErrNoUsableSlot)
	case len(tried) == 0:
		return fmt.Errorf("%w: %w", luks.ErrNoUsableSlot, err)
	case err == nil:
		return fmt.Errorf("%w (tried %s)", luks.ErrWrongPassphrase, strings.Join(tried, ", "))
	}
	return fmt.Errorf("%w (tried %s; not tried: %w)", luks.ErrWrongPassphrase, strings.Join(tried, ", "), err)
}

// open returns the volume key, or nil when the passphrase does not open the
// slot.
func (h *Header) open(slot int, passphrase *secret.Bytes) (*secret.Bytes, error) {
	volume, err := h.extract(slot)
	if err != nil {
		return nil, err
	}
	key, err := unseal(volume, passphrase)
	if key == nil || err != nil {
		return nil, err
	}
	if !h.confirms(key) {
		key.Wipe()
		return nil, errors.New("luks.go found a key that the header's digest does not confirm")
	}
	return key, nil
}

// confirms compares the key's digest in constant time.
func (h *Header) confirms(key *secret.Bytes) bool {
	newHash, err := kdf.NewHash(h.hash)
	if err != nil || key.Len() != h.KeySize() {
		return false
	}
	got := pbkdf2.Key(key.Bytes(), h.raw.MKDigestSalt[:], int(h.raw.MKDigestIteration), len(h.raw.MKDigest), newHash)
	return subtle.ConstantTimeCompare(got, h.raw.MKDigest[:]) == 1
}
