package luks

import (
	"fmt"
	"strings"
)

// Code names a reason to refuse a header or a slot. Codes are stable: programs
// may compare them, with errors.Is too.
type Code string

// Error makes a Code a target for errors.Is.
func (c Code) Error() string { return string(c) }

// Codes of headers that the format does not allow.
const (
	NotLUKS         Code = "not-luks"          // no header where one could be
	LUKS1           Code = "luks1"             // the older format
	BadMagic        Code = "magic"             // no magic at this copy's place
	BadVersion      Code = "version"           // not version 2
	BadHdrSize      Code = "hdr-size"          // not one of the nine sizes
	BadHdrOffset    Code = "hdr-offset"        // not the offset it was read from
	BadChecksum     Code = "checksum"          // the copy was changed or torn
	BadChecksumAlg  Code = "checksum-alg"      // unknown hash
	BadText         Code = "text"              // a text field without its NUL
	BadJSON         Code = "json"              // the JSON area is not one object and zeros
	BadStructure    Code = "structure"         // a member is missing or has the wrong type
	BadNumber       Code = "number"            // not a number where one must be
	BadReference    Code = "reference"         // names an object that does not exist
	BadSegments     Code = "segments"          // order, overlap, size or offset
	BadAreas        Code = "areas"             // keyslot areas outside, overlapping
	BadConfig       Code = "config"            // json_size, keyslots_size
	BadDigests      Code = "digests"           // a keyslot without exactly one digest
	BadReencryption Code = "reencrypt-keyslot" // keyslot and requirement disagree
	DeviceTooSmall  Code = "device-too-small"  // the header does not fit the device
)

// Codes of headers that the format allows and we do not unlock.
const (
	NullCipherKeyslot Code = "keyslot-null-cipher"
	NullCipherSegment Code = "segment-null-cipher"
	CapiCipherKeyslot Code = "keyslot-capi-cipher"
	CapiCipherSegment Code = "segment-capi-cipher"
	SegmentCipher     Code = "segment-cipher"      // not on the allow-list
	SegmentCount      Code = "segment-count"       // not exactly one
	SegmentType       Code = "segment-type"        // not crypt
	SegmentFlags      Code = "segment-flags"       // any flag
	SegmentIntegrity  Code = "segment-integrity"   // dm-integrity
	SegmentSectorSize Code = "segment-sector-size" // not 512 to 4096
	SegmentDigest     Code = "segment-digest"      // not bound by exactly one digest
	DigestType        Code = "digest-type"
	DigestLength      Code = "digest-length" // neither 20 nor the hash size
	DigestEncoding    Code = "digest-base64"
	DigestCost        Code = "digest-cost"
	DuplicateMember   Code = "duplicate-member"
	IDTooLarge        Code = "id-too-large"
	Reencryption      Code = "reencryption"
	Requirement       Code = "requirement"
)

// Codes of single keyslots that we do not use; the other slots may be fine.
const (
	KeyslotType    Code = "keyslot-type"
	KeyslotCipher  Code = "keyslot-cipher"
	KeyslotArea    Code = "keyslot-area" // smaller than its anti-forensic material
	KeyslotAF      Code = "keyslot-af"
	KeyslotKeySize Code = "keyslot-key-size"
	KeyslotUnbound Code = "keyslot-unbound" // its key does not open the data segment
	KDFKind        Code = "kdf-kind"
	KDFCost        Code = "kdf-cost" // above the caller's limits
	KDFParams      Code = "kdf-params"
)

// Level says how much a refusal is about.
type Level string

// Levels of a refusal.
const (
	Invalid   Level = "invalid"   // not a LUKS2 header by the format's rules
	Untrusted Level = "untrusted" // valid, but nothing of it is used
	SlotOnly  Level = "slot"      // one keyslot is not used
)

// Refusal is one reason not to use a header or a keyslot.
type Refusal struct {
	Level  Level  `json:"level"`
	Code   Code   `json:"code"`
	Where  string `json:"where"`  // "keyslots.3.area", "primary header"
	Reason string `json:"reason"` // a sentence without its full stop
	Slot   int    `json:"slot"`   // of a SlotOnly refusal, else -1
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s (%s)", r.Where, r.Reason, r.Code) }

// Is makes errors.Is(err, luks.DigestLength) work.
func (r *Refusal) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == r.Code
}

func invalid(code Code, where, format string, args ...any) *Refusal {
	return &Refusal{Level: Invalid, Code: code, Where: where, Reason: sentence(format, args...), Slot: -1}
}

// sentence is Sprintf, cut: what it quotes may come from a hostile disk.
func sentence(format string, args ...any) string {
	const longest = 400
	s := fmt.Sprintf(format, args...)
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + "..."
	}
	return s
}
