package luks_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// untrustedFaults are valid; nothing of such a header is used.
func untrustedFaults() []fault {
	const s, d0 = "segments.0", "digests.0"
	rows := []fault{
		{name: "two segments", code: luks.SegmentCount, where: "segments", says: "there are 2, must be exactly one", edits: edits{"segments.0": segment("1048576", "4096", ""), "segments.1": segment("1052672", "dynamic", ""), "digests.0.segments": `["0","1"]`}},
		{name: "linear segment", code: luks.SegmentType, where: s, says: `type "linear", must be crypt`, edits: edits{"segments.0": `{"type":"linear","offset":"1048576","size":"dynamic"}`}},
		{name: "OPAL segment", code: luks.SegmentType, where: s, says: `type "hw-opal"`, edits: edits{"segments.0": `{"type":"hw-opal","offset":"1048576","size":"65536","opal_segment_number":1}`}},
		{name: "data in clear, flagged", code: luks.SegmentFlags, where: s, says: "in-reencryption", edits: edits{"segments.0.flags": `["in-reencryption"]`}},
		{name: "any flag", code: luks.SegmentFlags, where: s, says: "whatever", edits: edits{"segments.0.flags": `["whatever"]`}},
		{name: "dm-integrity", code: luks.SegmentIntegrity, where: s, says: "hmac(sha256)", edits: edits{"segments.0.integrity": `{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}`}},
		{name: "sector size 8192", code: luks.SegmentSectorSize, where: s, says: "sector size 8192", edits: edits{"segments.0.sector_size": "8192"}},
		{name: "sector size 1536", code: luks.SegmentSectorSize, where: s, says: "sector size 1536", edits: edits{"segments.0.sector_size": "1536"}},
		{name: "segment of two digests", code: luks.SegmentDigest, where: s, says: "bound by 2 digests", edits: edits{"digests.1": twoDigests}},
		{name: "digest of another type", code: luks.DigestType, where: d0, says: `type "hmac", must be pbkdf2`, edits: edits{"digests.0.type": `"hmac"`}},
		{name: "digest of an unknown hash", code: luks.DigestType, where: d0, says: `hash "md5"`, edits: edits{"digests.0.hash": `"md5"`}},
		{name: "empty digest", code: luks.DigestLength, where: d0, says: "0 bytes, must be 32 or, converted from LUKS1, 20", edits: edits{"digests.0.digest": `""`}},
		{name: "digest of one byte", code: luks.DigestLength, where: d0, says: "1 bytes, must be 32", edits: edits{"digests.0.digest": `"AA=="`}},
		{name: "digest of 66 bytes", code: luks.DigestLength, where: d0, says: "66 bytes", edits: edits{"digests.0.digest": `"` + strings.Repeat("AAAA", 22) + `"`}},
		{name: "digest no base64", code: luks.DigestEncoding, where: d0, says: "illegal base64", edits: edits{"digests.0.digest": `"!!!!"`}},
		{name: "digest without padding", code: luks.DigestEncoding, where: d0, says: "illegal base64", edits: edits{"digests.0.digest": `"AA"`}},
		{name: "digest with trailing bits", code: luks.DigestEncoding, where: d0, says: "illegal base64", edits: edits{"digests.0.digest": `"AB=="`}},
		{name: "digest salt no base64", code: luks.DigestEncoding, where: d0, says: "illegal base64", edits: edits{"digests.0.salt": `"-_-_"`}},
		{name: "digest iterations 2^32-1", code: luks.DigestCost, where: d0, says: "4294967295 iterations: more than the limit of 4194304", edits: edits{"digests.0.iterations": "4294967295"}},
		{name: "digest iterations 0", code: luks.DigestCost, where: d0, says: "0 iterations", edits: edits{"digests.0.iterations": "0"}},
		{name: "duplicate member", code: luks.DuplicateMember, where: "keyslots.1.type", says: "occurs twice", text: replace(`"1":{"type":"luks2"`, `"1":{"type":"luks1","type":"luks2"`)},
		{name: "duplicate keyslot", code: luks.DuplicateMember, where: "keyslots.0", says: "occurs twice", text: replace(`"keyslots":{`, `"keyslots":{"0":{"type":"x"},`)},
		{name: "duplicate member of a foreign object", code: luks.DuplicateMember, where: "tokens.1.x..a", says: "occurs twice", text: replace(`"note"`, `"x":[{"a":1,"a":1}],"note"`)},
		{name: "keyslot 32", code: luks.IDTooLarge, where: "keyslots.32", says: "under 32", edits: edits{"keyslots.32": strings.Replace(reencrypt, "reencrypt", "other", 1)}},
		{name: "token 32", code: luks.IDTooLarge, where: "tokens.32", says: "under 32", edits: edits{"tokens.32": `{"type":"x","keyslots":[]}`}},
		{name: "digest 8", code: luks.IDTooLarge, where: "digests.8", says: "under 8", edits: edits{"digests.8": strings.Replace(twoDigests, `["0"]`, `[]`, 1)}},
		{name: "reencryption", code: luks.Reencryption, where: "config.requirements", says: "in the middle of a reencryption", edits: edits{"keyslots.2": reencrypt, "config.requirements": `{"mandatory":["online-reencrypt-v2"]}`}},
		{name: "offline reencryption", code: luks.Reencryption, where: "config.requirements", says: "cryptsetup reencrypt --resume-only", edits: edits{"config.requirements": `{"mandatory":["offline-reencrypt"]}`}},
		{name: "unknown requirement", code: luks.Requirement, where: "config.requirements", says: `asks for "req0"`, edits: edits{"config.requirements": `{"mandatory":["req0"]}`}},
		{name: "requirement of a newer tool", code: luks.Requirement, where: "config.requirements", says: `asks for "opal"`, edits: edits{"config.requirements": `{"mandatory":["opal"]}`}},
	}
	for _, cipher := range []string{"null", "cipher_null", "cipher_null-ecb", "cipher_null-cbc-plain", "null-ecb", "capi:ecb(cipher_null)-plain"} {
		rows = append(rows,
			fault{name: cipher + " segment", code: luks.NullCipherSegment, where: s, says: "leaves the data in clear", edits: edits{"segments.0.encryption": `"` + cipher + `"`}},
			fault{name: cipher + " keyslot", code: luks.NullCipherKeyslot, where: "keyslots.0.area", says: "leaves the volume key in clear", edits: edits{"keyslots.0.area.encryption": `"` + cipher + `"`}},
		)
	}
	rows = append(rows,
		fault{name: "capi segment", code: luks.CapiCipherSegment, where: s, says: "names a raw kernel algorithm", edits: edits{"segments.0.encryption": `"capi:xts(aes)-plain64"`}},
		fault{name: "capi keyslot", code: luks.CapiCipherKeyslot, where: "keyslots.0.area", says: "names a raw kernel algorithm", edits: edits{"keyslots.0.area.encryption": `"capi:xts(aes)-plain64"`}},
	)
	for _, cipher := range []string{"aes-cbc-essiv:sha256", "aes-ecb", "serpent-xts-plain64", "aes-xts-plain", "AES-XTS-PLAIN64", "aes-xts-plain64 ", "aes"} {
		rows = append(rows, fault{name: cipher + " segment", code: luks.SegmentCipher, where: s, says: "is not one of", edits: edits{"segments.0.encryption": `"` + cipher + `"`}})
	}
	return rows
}

// slotFaults spoil slot 0 and leave slot 1 alone.
func slotFaults() []fault {
	const s = "keyslots.0"
	unbound := strings.Replace(twoDigests, `"keyslots":[],"segments":["0"]`, `"keyslots":["0"],"segments":[]`, 1)
	rows := []fault{
		{name: "another type", code: luks.KeyslotType, where: s, says: `type "other" is not known here`, edits: edits{"keyslots.0.type": `"other"`}},
		{name: "another cipher", code: luks.KeyslotCipher, where: s, says: `cipher "aes-cbc-essiv:sha256"`, edits: edits{"keyslots.0.area.encryption": `"aes-cbc-essiv:sha256"`}},
		{name: "another area", code: luks.KeyslotCipher, where: s, says: `in a "journal" area`, edits: edits{"keyslots.0.area.type": `"journal"`}},
		{name: "area key of 4 GiB", code: luks.KeyslotCipher, where: s, says: "area key of 4294967295 bytes", edits: edits{"keyslots.0.area.key_size": "4294967295"}},
		{name: "Adiantum with the key of XTS", code: luks.KeyslotCipher, where: s, says: "area key of 64 bytes, xchacha12,aes-adiantum-plain64 takes one of [32]", edits: edits{"keyslots.0.area.encryption": `"xchacha12,aes-adiantum-plain64"`}},
		{name: "Adiantum over eight rounds", code: luks.KeyslotCipher, where: s, says: `cipher "xchacha8,aes-adiantum-plain64"`, edits: edits{"keyslots.0.area.encryption": `"xchacha8,aes-adiantum-plain64"`, "keyslots.0.area.key_size": "32"}},
		{name: "Adiantum with another IV", code: luks.KeyslotCipher, where: s, says: `cipher "xchacha12,aes-adiantum-plain"`, edits: edits{"keyslots.0.area.encryption": `"xchacha12,aes-adiantum-plain"`, "keyslots.0.area.key_size": "32"}},
		{name: "area key of 0 bytes", code: luks.KeyslotCipher, where: s, says: "area key of 0 bytes", edits: edits{"keyslots.0.area.key_size": "0"}},
		{name: "area smaller than its material", code: luks.KeyslotArea, where: s, says: "area of 4096 bytes, its anti-forensic material has 256000", edits: edits{"keyslots.0.area.size": `"4096"`}},
		{name: "another splitter", code: luks.KeyslotAF, where: s, says: `splitter "luks9", must be luks1`, edits: edits{"keyslots.0.af.type": `"luks9"`}},
		{name: "splitter of an unknown hash", code: luks.KeyslotAF, where: s, says: `hash "whirlpool"`, edits: edits{"keyslots.0.af.hash": `"whirlpool"`}},
		{name: "key of 4 GiB", code: luks.KeyslotKeySize, where: s, says: "volume key of 4294967295 bytes does not fit the data cipher", edits: edits{"keyslots.0.key_size": "4294967295"}},
		{name: "key of 0 bytes", code: luks.KeyslotKeySize, where: s, says: "volume key of 0 bytes", edits: edits{"keyslots.0.key_size": "0"}},
		{name: "key of 96 bytes", code: luks.KeyslotKeySize, where: s, says: "volume key of 96 bytes", edits: edits{"keyslots.0.key_size": "96"}},
		{name: "unbound", code: luks.KeyslotUnbound, where: s, says: "does not open the data segment", edits: edits{"digests.0.keyslots": `["1"]`, "digests.1": unbound}},
		{name: "argon2d", code: luks.KDFKind, where: s, says: `key derivation "argon2d": not supported`, edits: edits{"keyslots.0.kdf.type": `"argon2d"`}},
		{name: "the draft's argon2", code: luks.KDFKind, where: s, says: `key derivation "argon2"`, edits: edits{"keyslots.0.kdf": `{"type":"argon2","time":4,"memory":32,"cpus":1,"salt":` + salt32 + `}`}},
		{name: "pbkdf2 of an unknown hash", code: luks.KDFParams, where: s, says: `hash "md5"`, edits: edits{"keyslots.0.kdf.hash": `"md5"`}},
		{name: "pbkdf2 with 0 iterations", code: luks.KDFParams, where: s, says: "0 iterations", edits: edits{"keyslots.0.kdf.iterations": "0"}},
		{name: "salt no base64", code: luks.KDFParams, where: s, says: "salt: illegal base64", edits: edits{"keyslots.0.kdf.salt": `"?"`}},
		{name: "salt of blanks", code: luks.KDFParams, where: s, says: "without a salt", edits: edits{"keyslots.0.kdf.salt": `" \n"`}},
		{name: "salt of 66 bytes", code: luks.KDFParams, where: s, says: "salt has 66 bytes", edits: edits{"keyslots.0.kdf.salt": `"` + strings.Repeat("AAAA", 22) + `"`}},
		{name: "pbkdf2 with 2^32-1 iterations", code: luks.KDFCost, where: s, says: "more than the limit of 67108864", edits: edits{"keyslots.0.kdf.iterations": "4294967295"}},
	}
	for _, a := range []struct {
		time, memory, cpus string
		code               luks.Code
		says               string
	}{
		{"4294967295", "32", "1", luks.KDFCost, "4294967295 passes over 32 KiB: more than the limit of 65536 MiB in all"},
		{"4294967295", "4294967295", "255", luks.KDFCost, "4294967295 KiB of memory: more than the limit"},
		{"4", "2147483648", "4", luks.KDFCost, "2097152 MiB of memory: more than the limit"},
		{"257", "262144", "4", luks.KDFCost, "more than the limit of 65536 MiB in all"},
		{"0", "32", "1", luks.KDFParams, "0 passes"},
		{"4", "32", "0", luks.KDFParams, "0 lanes, must be 1 to 255"},
		{"4", "65536", "256", luks.KDFParams, "256 lanes, must be 1 to 255"},
		{"4", "65536", "257", luks.KDFParams, "257 lanes"},
		{"4", "7", "1", luks.KDFParams, "needs at least 8 KiB each"},
		{"4", "0", "1", luks.KDFParams, "needs at least 8 KiB each"},
	} {
		rows = append(rows, fault{name: "argon2id " + a.time + " " + a.memory + " " + a.cpus, code: a.code, where: s, says: a.says, edits: edits{"keyslots.0.kdf": argon2(a.time, a.memory, a.cpus)}})
	}
	return rows
}

func TestUntrusted(t *testing.T) {
	for _, f := range untrustedFaults() {
		t.Run(f.name, func(t *testing.T) {
			d := f.volume(t).untouchable(t)
			h := mustRead(t, d)
			found := find(h.Trust(kdf.Limits{}), f.code)
			if len(found) != 1 {
				t.Fatalf("refusals %v, want one %s", h.Trust(kdf.Limits{}), f.code)
			}
			judged(t, f, found[0], luks.Untrusted, -1)

			// No way of using it goes past the refusal.
			_, unlockErr := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{})
			_, namedErr := h.Unlock(t.Context(), phrase("one"), luks.UnlockOptions{Slots: []int{1}})
			_, keyErr := h.WithKey(phrase(strings.Repeat("k", 64)))
			_, commitErr := h.Commit(luks.SetPriority(1, luks.PriorityPrefer))
			_, restoreErr := luks.PlanRestore(newDisk(deviceSize), h)
			for name, err := range map[string]error{"unlock": unlockErr, "unlock slot 1": namedErr, "key": keyErr, "commit": commitErr, "restore": restoreErr} {
				if !errors.Is(err, f.code) || !strings.Contains(err.Error(), "refused: ") {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

func TestSlotOnly(t *testing.T) {
	for _, f := range slotFaults() {
		t.Run(f.name, func(t *testing.T) {
			h := mustRead(t, f.volume(t))
			all := h.Trust(kdf.Limits{})
			if len(all) != 1 || all[0].Code != f.code {
				t.Fatalf("refusals %v, want one %s", all, f.code)
			}
			judged(t, f, all[0], luks.SlotOnly, 0)

			if _, err := h.Unlock(t.Context(), phrase("zero"), luks.UnlockOptions{Slots: []int{0}}); !errors.Is(err, f.code) || errors.Is(err, luks.ErrWrongPassphrase) {
				t.Errorf("unlock of slot 0: %v", err)
			}
			if key := unlock(t, h, "one"); key.Slot() != 1 {
				t.Errorf("unlocked by slot %d", key.Slot())
			}
		})
	}
}
