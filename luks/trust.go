package luks

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// segmentCiphers are the ciphers of a data segment that we unlock, with the key
// sizes in bytes that each takes.
func segmentCiphers(name string) (keySizes []int, ok bool) {
	switch name {
	case "aes-xts-plain64":
		return []int{32, 64}, true
	case adiantum12, adiantum20:
		return []int{adiantumKey}, true
	}
	return nil, false
}

// areaCipher is the cipher of the keyslot areas that we write, for all data
// ciphers: every tool opens it.
const areaCipher = "aes-xts-plain64"

// maxDigestIterations is sixteen times what cryptsetup's 125 ms come to on a fast
// machine; a digest is computed for each passphrase tried, besides the derivation.
const maxDigestIterations = 4 << 20

// legacyDigestSize is the digest length of volumes converted from LUKS1.
const legacyDigestSize = 20

// Trust holds the header against what we are willing to unlock, which is less
// than the format allows: the header is not authenticated, so whoever can write
// the disk can write anything that is valid. Refusals of level [Untrusted] are
// about the whole header; those of level [SlotOnly] about one slot, and the
// others may still be used. No refusal means that all of it is trusted.
func (h *Header) Trust(limits kdf.Limits) []*Refusal {
	limits = limits.OrDefault()
	t := &judge{}
	t.document(h)
	t.requirements(h.meta)
	t.segment(h.meta)
	for _, d := range h.meta.digests {
		t.digest(d, limits)
	}
	for _, k := range h.meta.keyslots {
		t.keyslot(h.meta, k, limits)
	}
	return t.refusals
}

// Trusted returns the refusals of the whole header as one error, nil when there
// are none. No limit of the caller has a part in it.
func (h *Header) Trusted() error {
	var errs []error
	for _, r := range h.Trust(kdf.Limits{}) {
		if r.Level == Untrusted {
			errs = append(errs, r)
		}
	}
	return errors.Join(errs...)
}

// usable returns why one slot cannot be used, or nil.
func (h *Header) usable(slot int, limits kdf.Limits) error {
	for _, r := range h.Trust(limits) {
		if r.Level == SlotOnly && r.Slot == slot {
			return r
		}
	}
	return nil
}

// judge collects refusals.
type judge struct {
	refusals []*Refusal
}

func (j *judge) refuse(code Code, where, format string, args ...any) {
	j.refusals = append(j.refusals, &Refusal{Untrusted, code, where, sentence(format, args...), -1})
}

func (j *judge) refuseSlot(slot int, code Code, format string, args ...any) {
	where := fmt.Sprintf("keyslots.%d", slot)
	j.refusals = append(j.refusals, &Refusal{SlotOnly, code, where, sentence(format, args...), slot})
}

func (j *judge) document(h *Header) {
	for _, path := range h.duplicates {
		j.refuse(DuplicateMember, path, "occurs twice, so two tools may read two different headers")
	}
	ids := func(where string, limit, id int) {
		if id >= limit {
			j.refuse(IDTooLarge, fmt.Sprintf("%s.%d", where, id), "ids must be under %d: tools neither list nor remove it, and cryptsetup aborts on such tokens", limit)
		}
	}
	for _, k := range h.meta.keyslots {
		ids("keyslots", MaxSlots, k.ID)
	}
	for _, t := range h.meta.tokens {
		ids("tokens", MaxSlots, t.ID)
	}
	for _, s := range h.meta.segments {
		ids("segments", MaxSlots, s.ID)
	}
	for _, d := range h.meta.digests {
		ids("digests", 8, d.ID)
	}
}

func (j *judge) requirements(m *metadata) {
	reencrypt := slices.ContainsFunc(m.keyslots, func(k Keyslot) bool { return k.Type == "reencrypt" })
	for _, q := range m.requirements {
		if strings.HasPrefix(q, "online-reencrypt") || q == "offline-reencrypt" {
			reencrypt = true
			continue
		}
		j.refuse(Requirement, "config.requirements", "the volume asks for %q, which is not known here", q)
	}
	if reencrypt {
		j.refuse(Reencryption, "config.requirements", "the volume is in the middle of a reencryption; end it with cryptsetup reencrypt --resume-only")
	}
}

func (j *judge) segment(m *metadata) {
	if len(m.segments) != 1 {
		j.refuse(SegmentCount, "segments", "there are %d, must be exactly one", len(m.segments))
		return
	}
	s, where := m.segments[0], "segments.0"
	if s.Type != "crypt" {
		j.refuse(SegmentType, where, "type %q, must be crypt", s.Type)
		return
	}
	switch {
	case isNull(s.Encryption):
		j.refuse(NullCipherSegment, where, "cipher %q leaves the data in clear", s.Encryption)
	case strings.HasPrefix(s.Encryption, "capi:"):
		j.refuse(CapiCipherSegment, where, "cipher %q names a raw kernel algorithm", s.Encryption)
	default:
		if _, ok := segmentCiphers(s.Encryption); !ok {
			j.refuse(SegmentCipher, where, "cipher %q is not one of aes-xts-plain64 and the two Adiantum ones", s.Encryption)
		}
	}
	if len(s.Flags) > 0 {
		j.refuse(SegmentFlags, where, "has flags %q", s.Flags)
	}
	if s.Integrity != "" {
		j.refuse(SegmentIntegrity, where, "asks for dm-integrity (%q), which is not supported", s.Integrity)
	}
	if s.SectorSize > 4096 || s.SectorSize&(s.SectorSize-1) != 0 {
		j.refuse(SegmentSectorSize, where, "sector size %d, must be 512, 1024, 2048 or 4096", s.SectorSize)
	}
	bound := 0
	for _, d := range m.digests {
		if slices.Contains(d.Segments, s.ID) {
			bound++
		}
	}
	if bound != 1 {
		j.refuse(SegmentDigest, where, "is bound by %d digests, must be exactly one", bound)
	}
}

func (j *judge) digest(d Digest, limits kdf.Limits) {
	where := fmt.Sprintf("digests.%d", d.ID)
	if d.Type != "pbkdf2" {
		j.refuse(DigestType, where, "type %q, must be pbkdf2", d.Type)
		return
	}
	newHash, err := kdf.NewHash(d.Hash)
	switch {
	case err != nil:
		j.refuse(DigestType, where, "%v", err)
	case d.badEncoding != nil:
		j.refuse(DigestEncoding, where, "%v", d.badEncoding)
	case len(d.Digest) != legacyDigestSize && len(d.Digest) != newHash().Size():
		// An empty one matches every key, in cryptsetup too.
		j.refuse(DigestLength, where, "%d bytes, must be %d or, converted from LUKS1, %d", len(d.Digest), newHash().Size(), legacyDigestSize)
	default:
		// A digest proves a random key and runs once for each passphrase tried.
		params := kdf.Params{Cost: kdf.Cost{Kind: kdf.PBKDF2, Hash: d.Hash, Iterations: d.Iterations}, Salt: d.Salt}
		limits.MaxIterations = maxDigestIterations
		if err := params.Check(limits); err != nil {
			j.refuse(DigestCost, where, "%v", err)
		}
	}
}

func (j *judge) keyslot(m *metadata, k Keyslot, limits kdf.Limits) {
	where := fmt.Sprintf("keyslots.%d.area", k.ID)
	keySizes, known := areaCiphers(k.Area.Encryption)
	switch {
	case isNull(k.Area.Encryption):
		j.refuse(NullCipherKeyslot, where, "cipher %q leaves the volume key in clear", k.Area.Encryption)
		return
	case strings.HasPrefix(k.Area.Encryption, "capi:"):
		j.refuse(CapiCipherKeyslot, where, "cipher %q names a raw kernel algorithm", k.Area.Encryption)
		return
	case k.Type == "reencrypt":
		return // named by requirements
	case k.Type != "luks2":
		j.refuseSlot(k.ID, KeyslotType, "type %q is not known here", k.Type)
		return
	case !known || k.Area.Type != "raw":
		j.refuseSlot(k.ID, KeyslotCipher, "cipher %q in a %q area, only %s and the two Adiantum ones in a raw one can be opened", k.Area.Encryption, k.Area.Type, areaCipher)
	case !slices.Contains(keySizes, k.Area.KeySize):
		j.refuseSlot(k.ID, KeyslotCipher, "area key of %d bytes, %s takes one of %d", k.Area.KeySize, k.Area.Encryption, keySizes)
	case !bindsData(m, k):
		j.refuseSlot(k.ID, KeyslotUnbound, "its key does not open the data segment")
	case !fitsSegment(m, k):
		j.refuseSlot(k.ID, KeyslotKeySize, "volume key of %d bytes does not fit the data cipher", k.KeySize)
	case k.Area.Size < afSize(k.KeySize):
		j.refuseSlot(k.ID, KeyslotArea, "area of %d bytes, its anti-forensic material has %d", k.Area.Size, afSize(k.KeySize))
	case k.AF.Type != "luks1":
		j.refuseSlot(k.ID, KeyslotAF, "anti-forensic splitter %q, must be luks1", k.AF.Type)
	default:
		j.derivation(k, limits)
	}
}

func (j *judge) derivation(k Keyslot, limits kdf.Limits) {
	if _, err := kdf.NewHash(k.AF.Hash); err != nil {
		j.refuseSlot(k.ID, KeyslotAF, "anti-forensic splitter: %v", err)
		return
	}
	if k.badSalt != nil {
		j.refuseSlot(k.ID, KDFParams, "salt: %v", k.badSalt)
		return
	}
	switch err := k.KDF.Check(limits); {
	case err == nil:
	case errors.Is(err, kdf.ErrTooCostly):
		j.refuseSlot(k.ID, KDFCost, "%v", err)
	case !k.KDF.Kind.MemoryHard() && k.KDF.Kind != kdf.PBKDF2:
		j.refuseSlot(k.ID, KDFKind, "%v", err)
	default:
		j.refuseSlot(k.ID, KDFParams, "%v", err)
	}
}

func bindsData(m *metadata, k Keyslot) bool {
	return slices.ContainsFunc(m.digests, func(d Digest) bool {
		return slices.Contains(d.Keyslots, k.ID) && slices.Contains(d.Segments, 0)
	})
}

func fitsSegment(m *metadata, k Keyslot) bool {
	for _, s := range m.segments {
		if sizes, ok := segmentCiphers(s.Encryption); ok && !slices.Contains(sizes, k.KeySize) {
			return false
		}
	}
	return true
}

// isNull recognises dm-crypt's null cipher under all its names.
func isNull(cipher string) bool {
	return cipher == "null" || strings.Contains(cipher, "cipher_null") || strings.HasPrefix(cipher, "null-")
}
