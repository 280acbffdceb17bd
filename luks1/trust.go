package luks1

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// cipher is the one that is unlocked. Volumes before cryptsetup 1.6 have
// aes-cbc-essiv:sha256, which luks.go does not know.
const cipher = "aes-xts-plain64"

// maxDigestIterations is that of package luks: the digest is computed for each
// passphrase tried, besides the derivation, and no tool writes so many.
const maxDigestIterations = 4 << 20

// Trust holds the header against what we are willing to unlock, as
// [luks.Header.Trust] does, with its codes: refusals of the level
// [luks.Untrusted] are about the whole header, those of [luks.SlotOnly] about one
// slot. No refusal means that all of it is trusted.
func (h *Header) Trust(limits kdf.Limits) []*luks.Refusal {
	limits = limits.OrDefault()
	var refusals []*luks.Refusal
	refuse := func(code luks.Code, where, format string, args ...any) {
		refusals = append(refusals, &luks.Refusal{Level: luks.Untrusted, Code: code, Where: where, Reason: fmt.Sprintf(format, args...), Slot: -1})
	}
	switch {
	case strings.Contains(h.cipher, "null"):
		refuse(luks.NullCipherSegment, "cipher-name", "cipher %q leaves the data in clear", h.Cipher())
	case h.Cipher() != cipher:
		refuse(luks.SegmentCipher, "cipher-name", "cipher %q of a LUKS1 volume is not opened here, only %s; cryptsetup opens it", h.Cipher(), cipher)
	case h.KeySize() != 32 && h.KeySize() != 64:
		refuse(luks.KeyslotKeySize, "key-bytes", "volume key of %d bytes, %s takes one of 32 or 64", h.KeySize(), cipher)
	}
	if _, err := kdf.NewHash(h.hash); err != nil {
		refuse(luks.DigestType, "hash-spec", "%v", err)
		return refusals // of the costs nothing can be said
	}
	digest := limits
	digest.MaxIterations = maxDigestIterations
	if err := h.params(h.raw.MKDigestIteration, h.raw.MKDigestSalt[:]).Check(digest); err != nil {
		refuse(luks.DigestCost, "mk-digest", "%v", err)
	}
	for _, s := range h.Slots() {
		if err := h.params(s.Iterations, h.raw.Slots[s.ID].Salt[:]).Check(limits); err != nil {
			code := luks.KDFParams
			if errors.Is(err, kdf.ErrTooCostly) {
				code = luks.KDFCost
			}
			refusals = append(refusals, &luks.Refusal{Level: luks.SlotOnly, Code: code, Where: at(s.ID), Reason: err.Error(), Slot: s.ID})
		}
	}
	return refusals
}

// params are those of a PBKDF2 with the header's hash.
func (h *Header) params(iterations uint32, salt []byte) kdf.Params {
	return kdf.Params{Cost: kdf.Cost{Kind: kdf.PBKDF2, Hash: h.hash, Iterations: iterations}, Salt: salt}
}
