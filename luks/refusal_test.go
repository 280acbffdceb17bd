package luks_test

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// fault is one thing that is wrong with the golden volume, and what is to be
// said of it.
type fault struct {
	name  string
	code  luks.Code
	where string
	says  string // a part of the reason

	edits  edits                    // of the document, in both copies
	text   func(text string) string // of its text
	damage func(d *disk)            // of the device
}

func (f fault) volume(t testing.TB) *disk {
	t.Helper()
	d := goldenDisk(t)
	if f.edits != nil {
		d.edit(t, f.edits)
	}
	if f.text != nil {
		d.setText(f.text(d.text(0)))
	}
	if f.damage != nil {
		f.damage(d)
	}
	return d
}

// binaryPatch changes the binary header of both copies.
func binaryPatch(change func(p []byte)) func(d *disk) {
	return func(d *disk) { d.patchBoth(change) }
}

// sizePatch gives both copies a size, with checksums over what they had.
func sizePatch(n uint64) func(d *disk) {
	return func(d *disk) {
		for _, off := range []int64{0, metadataSize} {
			binary.BigEndian.PutUint64(d.data[off+atHdrSize:], n)
			d.reseal(off, metadataSize)
		}
	}
}

const (
	salt32     = `"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="`
	reencrypt  = `{"type":"reencrypt","key_size":1,"mode":"encrypt","direction":"forward","area":{"type":"none","offset":"548864","size":"4096"}}`
	twoDigests = `{"type":"pbkdf2","keyslots":[],"segments":["0"],"hash":"sha256","iterations":1000,"salt":` + salt32 + `,"digest":` + salt32 + `}`
)

func argon2(time, memory, cpus string) string {
	return `{"type":"argon2id","time":` + time + `,"memory":` + memory + `,"cpus":` + cpus + `,"salt":` + salt32 + `}`
}

func segment(offset, size, more string) string {
	return `{"type":"crypt","offset":"` + offset + `","size":"` + size + `","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":512` + more + `}`
}

func replace(old, new string) func(string) string {
	return func(text string) string {
		if !strings.Contains(text, old) {
			panic("no " + old + " in " + text)
		}
		return strings.Replace(text, old, new, 1)
	}
}

// invalidFaults break the format's rules: Read refuses the header.
func invalidFaults() []fault {
	const p = "primary header"
	return slices.Concat([]fault{
		{name: "nothing there", code: luks.NotLUKS, where: "device", says: "no LUKS header", damage: func(d *disk) { clear(d.data) }},
		{name: "LUKS1", code: luks.LUKS1, where: p, says: "LUKS1 volume", damage: binaryPatch(func(p []byte) { p[atVersion+1] = 1 })},
		{name: "truncated", code: luks.DeviceTooSmall, where: "device", says: "truncated", damage: func(d *disk) { d.data = d.data[:dataOffset-4096] }},
		{name: "no secondary beside a torn primary", code: luks.BadMagic, where: "secondary header", says: "no LUKS2 magic", damage: func(d *disk) {
			d.data[atJSON] ^= 1
			clear(d.data[metadataSize : 2*metadataSize])
		}},
		{name: "version 3", code: luks.BadVersion, where: p, says: "version 3, must be 2", damage: binaryPatch(func(p []byte) { p[atVersion+1] = 3 })},
		{name: "version 0", code: luks.BadVersion, where: p, says: "version 0", damage: binaryPatch(func(p []byte) { p[atVersion+1] = 0 })},
		{name: "hdr_size 0", code: luks.BadHdrSize, where: p, says: "size 0 is not a power of two", damage: sizePatch(0)},
		{name: "hdr_size 24 KiB", code: luks.BadHdrSize, where: p, says: "size 24576", damage: sizePatch(24 << 10)},
		{name: "hdr_size 8 KiB", code: luks.BadHdrSize, where: p, says: "size 8192", damage: sizePatch(8 << 10)},
		{name: "hdr_size 8 MiB", code: luks.BadHdrSize, where: p, says: "size 8388608", damage: sizePatch(8 << 20)},
		{name: "hdr_size 2^50", code: luks.BadHdrSize, where: p, says: "size 1125899906842624", damage: sizePatch(1 << 50)},
		{name: "hdr_size 2^63", code: luks.BadHdrSize, where: p, says: "not a power of two", damage: sizePatch(1 << 63)},
		{name: "hdr_size beyond the device", code: luks.BadHdrSize, where: p, says: "do not fit the device", damage: sizePatch(4 << 20)},
		{name: "offset 1", code: luks.BadHdrOffset, where: p, says: "says it lies at byte 1 and was read at 0", damage: binaryPatch(func(p []byte) { p[atHdrOffset+7] = 1 })},
		{name: "a bit of the checksum", code: luks.BadChecksum, where: p, says: "changed or torn", damage: func(d *disk) {
			d.data[atChecksum+31] ^= 0x80
			d.data[metadataSize+atChecksum] ^= 1
		}},
		{name: "checksum of another hash", code: luks.BadChecksum, where: p, says: "changed or torn", damage: binaryPatch(func(p []byte) { copy(p[atChecksumAlg:], "sha512\x00") })},
		{name: "unknown checksum", code: luks.BadChecksumAlg, where: p, says: `hash "crc32": not supported`, damage: binaryPatch(func(p []byte) { copy(p[atChecksumAlg:], "crc32\x00\x00") })},
		{name: "no checksum named", code: luks.BadChecksumAlg, where: p, says: `hash ""`, damage: binaryPatch(func(p []byte) { p[atChecksumAlg] = 0 })},
		{name: "label without an end", code: luks.BadText, where: p, says: "not ended by a NUL", damage: binaryPatch(func(p []byte) { copy(p[atLabel:], strings.Repeat("x", 48)) })},
		{name: "UUID without an end", code: luks.BadText, where: p, says: "not ended by a NUL", damage: binaryPatch(func(p []byte) { copy(p[atUUID:], strings.Repeat("x", 40)) })},
		{name: "subsystem without an end", code: luks.BadText, where: p, says: "not ended by a NUL", damage: binaryPatch(func(p []byte) { copy(p[atSubsystem:], strings.Repeat("x", 48)) })},
		{name: "checksum name without an end", code: luks.BadText, where: p, says: "not ended by a NUL", damage: binaryPatch(func(p []byte) { copy(p[atChecksumAlg:], strings.Repeat("x", 32)) })},
	}, jsonFaults(), structureFaults(), ruleFaults())
}

func jsonFaults() []fault {
	const p = "primary header"
	nest := func(open, end string, n int) func(string) string {
		return replace(`"config":{`, `"config":{"deep":`+strings.Repeat(open, n)+`0`+strings.Repeat(end, n)+`,`)
	}
	fill := func(p []byte) { // the document, blanks up to the last byte
		end := atJSON + slices.Index(p[atJSON:], 0)
		for i := end; i < len(p); i++ {
			p[i] = ' '
		}
	}
	return []fault{
		{name: "no JSON", code: luks.BadJSON, where: p, says: "does not begin with an object", text: func(string) string { return "" }},
		{name: "JSON begins with a blank", code: luks.BadJSON, where: p, says: "does not begin with an object", text: func(s string) string { return " " + s }},
		{name: "JSON is an array", code: luks.BadJSON, where: p, says: "does not begin with an object", text: func(string) string { return "[]" }},
		{name: "JSON cut off", code: luks.BadJSON, where: p, says: "cannot be read: unexpected EOF", text: func(s string) string { return s[:len(s)-1] }},
		{name: "JSON of one brace", code: luks.BadJSON, where: p, says: "cannot be read", text: func(string) string { return "{" }},
		{name: "two documents", code: luks.BadJSON, where: p, says: "more text after the object", text: func(s string) string { return s + "{}" }},
		{name: "junk after the document", code: luks.BadJSON, where: p, says: "cannot be read", text: func(s string) string { return s + "x" }},
		{name: "junk after the zeros", code: luks.BadJSON, where: p, says: "must end in zeros", damage: binaryPatch(func(p []byte) { p[len(p)-1] = 1 })},
		{name: "JSON without NUL", code: luks.BadJSON, where: p, says: "must end in zeros", damage: binaryPatch(fill)},
		{name: "not UTF-8", code: luks.BadJSON, where: p, says: "not UTF-8", text: replace("of slot 1", "of slot \xff")},
		{name: "control character in a text", code: luks.BadJSON, where: p, says: "cannot be read", text: replace("of slot 1", "of slot \x01")},
		{name: "number with a leading zero", code: luks.BadJSON, where: p, says: "cannot be read", text: replace(`"key_size":64`, `"key_size":064`)},
		{name: "comma before the end", code: luks.BadJSON, where: p, says: "cannot be read", text: replace(`}},"segments"`, `},},"segments"`)},
		{name: "33 levels", code: luks.BadJSON, where: p, says: "nested deeper than 32", text: nest("[", "]", 31)},
		{name: "arrays nested 5000 deep", code: luks.BadJSON, where: p, says: "nested deeper than 32", text: nest("[", "]", 2500)},
		{name: "objects nested 1000 deep", code: luks.BadJSON, where: p, says: "nested deeper than 32", text: nest(`{"a":`, "}", 1000)},
	}
}

func structureFaults() []fault {
	var rows []fault
	missing := func(path string, code luks.Code, says string) {
		rows = append(rows, fault{name: path + " missing", code: code, where: path, says: says, edits: edits{path: ""}})
	}
	wrong := func(path, value string, code luks.Code, says string) {
		rows = append(rows, fault{name: path + " = " + value, code: code, where: path, says: says, edits: edits{path: value}})
	}
	for _, path := range []string{"keyslots", "tokens", "segments", "digests", "config", "keyslots.0.af", "keyslots.0.area", "keyslots.0.kdf"} {
		missing(path, luks.BadStructure, "must be an object")
		wrong(path, "[]", luks.BadStructure, "must be an object")
	}
	for _, path := range []string{
		"keyslots.0.type", "keyslots.0.area.type", "keyslots.0.area.encryption", "keyslots.0.area.offset", "keyslots.0.area.size",
		"keyslots.0.af.type", "keyslots.0.af.hash", "keyslots.0.kdf.type", "keyslots.0.kdf.salt", "keyslots.0.kdf.hash",
		"tokens.1.type", "digests.0.type", "digests.0.hash", "digests.0.salt", "digests.0.digest",
		"segments.0.type", "segments.0.offset", "segments.0.size", "segments.0.iv_tweak", "segments.0.encryption",
		"config.json_size", "config.keyslots_size",
	} {
		missing(path, luks.BadStructure, "must be a text")
		wrong(path, "7", luks.BadStructure, "must be a text")
	}
	for _, path := range []string{"tokens.1.keyslots", "digests.0.keyslots", "digests.0.segments"} {
		missing(path, luks.BadStructure, "must be an array")
		wrong(path, `"1"`, luks.BadStructure, "must be an array")
		wrong(path, `[1]`, luks.BadStructure, "must hold strings only")
		wrong(path, `["7"]`, luks.BadReference, `"7" names nothing`)
		wrong(path, `["-1"]`, luks.BadReference, `"-1" names nothing`)
	}
	for _, path := range []string{"keyslots.0.key_size", "keyslots.0.area.key_size", "keyslots.0.af.stripes", "keyslots.0.kdf.iterations", "digests.0.iterations", "segments.0.sector_size"} {
		missing(path, luks.BadNumber, "must be an integer")
		for _, value := range []string{"-1", "-5", "4294967296", "1e3", "64.0", `"64"`, "null", "true"} {
			wrong(path, value, luks.BadNumber, "must be an integer from 0 to 2^32-1")
		}
	}
	for _, path := range []string{"keyslots.0.area.offset", "keyslots.0.area.size", "segments.0.offset", "segments.0.size", "segments.0.iv_tweak", "config.keyslots_size"} {
		for _, value := range []string{`"-1"`, `"+1"`, `" 1"`, `"0x10"`, `"1_0"`, `"18446744073709551616"`, `"x"`} {
			wrong(path, value, luks.BadNumber, "must be a string of digits")
		}
	}
	wrong("keyslots.0.area.offset", `"18446744073709551615"`, luks.BadNumber, "more than any device has")
	wrong("config.flags", `"allow-discards"`, luks.BadStructure, "must be an array")
	wrong("config.requirements", `[]`, luks.BadStructure, "must be an object")
	wrong("segments.0.flags", `{}`, luks.BadStructure, "must be an array")
	wrong("segments.0.integrity", `"hmac"`, luks.BadStructure, "must be an object")
	wrong("keyslots.0.priority", "3", luks.BadNumber, "must be 0, 1 or 2")
	wrong("keyslots.0.kdf.type", `""`, luks.BadStructure, "must be a text")
	rows = append(rows,
		fault{name: "mandatory requirements of numbers", code: luks.BadStructure, where: "config.requirements.mandatory", says: "strings only", edits: edits{"config.requirements": `{"mandatory":[1]}`}},
		fault{name: "integrity without journal_encryption", code: luks.BadStructure, where: "segments.0.integrity.journal_encryption", says: "must be a text", edits: edits{"segments.0.integrity": `{"type":"hmac(sha256)","journal_integrity":"none"}`}},
		fault{name: "keyslot no object", code: luks.BadStructure, where: "keyslots.0", says: "must be an object", edits: edits{"keyslots.0": "[]"}},
		fault{name: "argon2 without time", code: luks.BadNumber, where: "keyslots.0.kdf.time", says: "must be an integer", edits: edits{"keyslots.0.kdf": `{"type":"argon2id","memory":32,"cpus":1,"salt":` + salt32 + `}`}},
		fault{name: "argon2 time 2^32", code: luks.BadNumber, where: "keyslots.0.kdf.time", says: "must be an integer", edits: edits{"keyslots.0.kdf": argon2("4294967296", "32", "1")}},
		fault{name: "argon2 memory negative", code: luks.BadNumber, where: "keyslots.0.kdf.memory", says: "must be an integer", edits: edits{"keyslots.0.kdf": argon2("4", "-32", "1")}},
	)
	for _, name := range []string{"01", "-1", "+1", "x", "", "1.0", "4294967296", "99999999999999999999"} {
		for _, kind := range []string{"keyslots", "tokens", "segments", "digests"} {
			rows = append(rows, fault{
				name: fmt.Sprintf("%s named %q", kind, name), code: luks.BadNumber, where: kind + "." + name, says: "the name must be a number",
				text: replace(`"`+kind+`":{`, `"`+kind+`":{"`+name+`":{},`),
			})
		}
	}
	return append(rows, manyFaults()...)
}

// manyFaults are documents with more objects than anything reads.
func manyFaults() []fault {
	var ids []string
	for i := range 257 {
		ids = append(ids, strconv.Itoa(i+1000))
	}
	objects := `"` + strings.Join(ids, `":{},"`) + `":{},`
	return []fault{
		{name: "too many keyslots", code: luks.BadStructure, where: "keyslots", says: "259 objects, at most 256", text: replace(`"keyslots":{`, `"keyslots":{`+objects)},
		{name: "too many tokens", code: luks.BadStructure, where: "tokens", says: "258 objects, at most 256", text: replace(`"tokens":{`, `"tokens":{`+objects)},
		{name: "too many references", code: luks.BadStructure, where: "tokens.1.keyslots", says: "258 entries, at most 256", text: replace(`"keyslots":["1"],"note"`, `"keyslots":["1"`+strings.Repeat(`,"1"`, 257)+`],"note"`)},
	}
}

func ruleFaults() []fault {
	digest := func(e edits) edits { e["digests.0.segments"] = `["0","1"]`; return e }
	rows := []fault{
		{name: "no segment", code: luks.BadSegments, where: "segments", says: "at least one", edits: edits{"segments": "{}", "digests.0.segments": "[]"}},
		{name: "segment 0 missing", code: luks.BadSegments, where: "segments", says: "0 is missing", edits: edits{"segments": `{"1":` + segment("1048576", "dynamic", "") + `}`, "digests.0.segments": `["1"]`}},
		{name: "backup segments only", code: luks.BadSegments, where: "segments", says: "only backup segments", edits: edits{"segments.0.flags": `["backup-final"]`}},
		{name: "backup segment first", code: luks.BadSegments, where: "segments", says: "segment 1 follows a backup segment", edits: digest(edits{"segments.0.flags": `["backup-final"]`, "segments.1": segment("1048576", "dynamic", "")})},
		{name: "dynamic segment first", code: luks.BadSegments, where: "segments", says: "segment 0 is dynamic and not the last", edits: digest(edits{"segments.1": segment("2097152", "4096", "")})},
		{name: "overlapping segments", code: luks.BadSegments, where: "segments", says: "segments 0 and 1 overlap", edits: digest(edits{"segments.0": segment("1048576", "8192", ""), "segments.1": segment("1052672", "dynamic", "")})},
		{name: "segment beyond 2^63", code: luks.BadSegments, where: "segments", says: "ends beyond 2^63", edits: edits{"segments.0": segment("9223372036854775296", "512", "")}},
		{name: "segment of no digest", code: luks.BadSegments, where: "segments", says: "named by no digest", edits: edits{"digests.0.segments": "[]"}},
		{name: "segment of size 0", code: luks.BadSegments, where: "segments.0.size", says: "must not be 0", edits: edits{"segments.0.size": `"0"`}},
		{name: "odd segment offset", code: luks.BadSegments, where: "segments.0", says: "multiples of 512", edits: edits{"segments.0.offset": `"1048577"`}},
		{name: "sector size 0", code: luks.BadSegments, where: "segments.0.sector_size", says: "multiple of 512", edits: edits{"segments.0.sector_size": "0"}},
		{name: "sector size 513", code: luks.BadSegments, where: "segments.0.sector_size", says: "multiple of 512", edits: edits{"segments.0.sector_size": "513"}},
		{name: "sector size that does not divide", code: luks.BadSegments, where: "segments.0.sector_size", says: "divides the size", edits: edits{"segments.0.sector_size": "4096", "segments.0.size": `"512"`}},
		{name: "keyslots_size odd", code: luks.BadConfig, where: "config.keyslots_size", says: "not a multiple of 4096", edits: edits{"config.keyslots_size": `"1015807"`}},
		{name: "keyslots_size above 128 MiB", code: luks.BadConfig, where: "config.keyslots_size", says: "up to 128 MiB", edits: edits{"config.keyslots_size": `"134221824"`}},
		{name: "keyslots area in the data", code: luks.BadConfig, where: "config.keyslots_size", says: "in the data that begins at 1048576", edits: edits{"config.keyslots_size": `"1019904"`}},
		{name: "json_size of another header", code: luks.BadConfig, where: "config.json_size", says: "not the size of the JSON area, 12288", edits: edits{"config.json_size": `"28672"`}},
		{name: "keyslot of no digest", code: luks.BadDigests, where: "digests", says: "keyslot 1 is named by 0 digests", edits: edits{"digests.0.keyslots": `["0"]`}},
		{name: "keyslot of two digests", code: luks.BadDigests, where: "digests", says: "keyslot 0 is named by 2 digests", edits: edits{"digests.1": strings.Replace(twoDigests, `"keyslots":[],"segments":["0"]`, `"keyslots":["0"],"segments":[]`, 1)}},
		{name: "reencrypt keyslot alone", code: luks.BadReencryption, where: "config.requirements", says: "0 online-reencrypt requirements and 1 reencrypt keyslots", edits: edits{"keyslots.2": reencrypt}},
		{name: "reencrypt requirement alone", code: luks.BadReencryption, where: "config.requirements", says: "1 online-reencrypt requirements and 0 reencrypt keyslots", edits: edits{"config.requirements": `{"mandatory":["online-reencrypt-v2"]}`}},
		{name: "two reencrypt requirements", code: luks.BadReencryption, where: "config.requirements", says: "2 online-reencrypt requirements", edits: edits{"keyslots.2": reencrypt, "config.requirements": `{"mandatory":["online-reencrypt","online-reencrypt-v2"]}`}},
		{name: "reencrypt keyslot with a key", code: luks.BadReencryption, where: "keyslots.2.key_size", says: "must be 1", edits: edits{"keyslots.2": strings.Replace(reencrypt, `"key_size":1`, `"key_size":64`, 1)}},
	}
	for name, area := range map[string][3]string{
		"area over the header":         {"0", "258048", "outside the keyslots area, 32768 to 1048576"},
		"area over the secondary":      {"16384", "258048", "outside the keyslots area"},
		"area in the data":             {"1048576", "4096", "outside the keyslots area"},
		"area that reaches the data":   {"548864", "503808", "outside the keyslots area"},
		"area of size 0":               {"548864", "0", "has size 0"},
		"area beyond 2^63":             {"9223372036854775807", "4096", "has size 4096"},
		"area on that of slot 1":       {"290816", "258048", "two areas overlap at 290816"},
		"area a byte into that slot's": {"540672", "8193", "two areas overlap at 540672"},
	} {
		rows = append(rows, fault{
			name: name, code: luks.BadAreas, where: "keyslots", says: area[2],
			edits: edits{"keyslots.0.area.offset": `"` + area[0] + `"`, "keyslots.0.area.size": `"` + area[1] + `"`},
		})
	}
	return rows
}

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
		{name: "digest iterations 2^32-1", code: luks.DigestCost, where: d0, says: "4294967295 iterations: more than the limit of 16777216", edits: edits{"digests.0.iterations": "4294967295"}},
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
		{"4294967295", "4294967295", "255", luks.KDFCost, "of memory: more than the limit of 4096 MiB"},
		{"4", "2147483648", "4", luks.KDFCost, "2097152 MiB of memory: more than the limit"},
		{"17", "4194304", "4", luks.KDFCost, "more than the limit of 65536 MiB in all"},
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

// judged fails the test unless the refusal is what the fault asks for.
func judged(t *testing.T, f fault, r *luks.Refusal, level luks.Level, slot int) {
	t.Helper()
	if !errors.Is(r, f.code) || errors.Is(r, luks.Code("another")) {
		t.Errorf("%v is not %s", r, f.code)
	}
	if r.Level != level || r.Where != f.where || r.Slot != slot {
		t.Errorf("level %q, where %q, slot %d; want %q, %q, %d", r.Level, r.Where, r.Slot, level, f.where, slot)
	}
	if !strings.Contains(r.Reason, f.says) || strings.HasSuffix(r.Reason, ".") {
		t.Errorf("reason %q, want it to say %q", r.Reason, f.says)
	}
	if want := r.Where + ": " + r.Reason + " (" + string(f.code) + ")"; r.Error() != want {
		t.Errorf("error %q, want %q", r.Error(), want)
	}
}

func TestInvalid(t *testing.T) {
	for _, f := range invalidFaults() {
		t.Run(f.name, func(t *testing.T) {
			h, err := luks.Read(f.volume(t).untouchable(t))
			if h != nil || !errors.Is(err, f.code) {
				t.Fatalf("got %v, error %v; want %s", h, err, f.code)
			}
			all := refusals(err)
			i := slices.IndexFunc(all, func(r *luks.Refusal) bool { return r.Code == f.code })
			judged(t, f, all[i], luks.Invalid, -1)
		})
	}
}

// refusals collects the refusals that an error is made of.
func refusals(err error) []*luks.Refusal {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*luks.Refusal
		for _, e := range joined.Unwrap() {
			all = append(all, refusals(e)...)
		}
		return all
	}
	var r *luks.Refusal
	if errors.As(err, &r) {
		return []*luks.Refusal{r}
	}
	return nil
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

// TestEveryCode reads the codes out of refusal.go: each must have a row above.
func TestEveryCode(t *testing.T) {
	rows := map[luks.Code]int{}
	for _, f := range slices.Concat(invalidFaults(), untrustedFaults(), slotFaults()) {
		rows[f.code]++
	}
	codes := declaredCodes(t)
	if len(codes) < 40 {
		t.Fatalf("only %d codes found in refusal.go", len(codes))
	}
	for _, code := range codes {
		if rows[code] == 0 {
			t.Errorf("no fault gives %q", code)
		}
		delete(rows, code)
	}
	for code := range rows {
		t.Errorf("code %q is not declared", code)
	}
}

func declaredCodes(t *testing.T) []luks.Code {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "refusal.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var codes []luks.Code
	for n := range ast.Preorder(file) {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			continue
		}
		kind, ok := spec.Type.(*ast.Ident)
		if !ok || kind.Name != "Code" || len(spec.Values) != 1 {
			continue
		}
		text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		codes = append(codes, luks.Code(text))
	}
	return codes
}

// TestMeantAsOdd: headers that are odd, and that cryptsetup or older tools make
// or accept.
func TestMeantAsOdd(t *testing.T) {
	for _, f := range []fault{
		{name: "stripes 1", edits: edits{"keyslots.0.af.stripes": "1"}},
		{name: "unknown members everywhere", edits: edits{"x": "1", "keyslots.0.x": "{}", "keyslots.0.kdf.x": "1", "tokens.1.x": "[]", "segments.0.x": "null", "digests.0.x": "1", "config.x": `"y"`}},
		{name: "unknown flags", edits: edits{"config.flags": `["allow-discards","of-tomorrow"]`}},
		{name: "base64 with blanks", text: replace(`"salt":"`, `"salt":" \n\t\r`)},
		{name: "checksums of SHA-512", damage: func(d *disk) {
			for _, off := range d.offsets() {
				p := d.data[off : off+metadataSize]
				copy(p[atChecksumAlg:], "sha512\x00")
				clear(p[atChecksum : atChecksum+64])
				sum := sha512.Sum512(p)
				copy(p[atChecksum:], sum[:])
			}
		}},
		{name: "digest of 20 bytes, as LUKS1 has it", damage: func(d *disk) {
			h := mustRead(t, d)
			d.edit(t, edits{"digests.0.digest": strconv.Quote(base64.StdEncoding.EncodeToString(h.Digests()[0].Digest[:20]))})
		}},
		{name: "segment of a fixed size", edits: edits{"segments.0.size": `"65536"`}},
		{name: "detached", edits: edits{"segments.0.offset": `"0"`}},
		{name: "empty requirements", edits: edits{"config.requirements": "{}"}},
		{name: "32 levels", text: replace(`"config":{`, `"config":{"deep":`+strings.Repeat("[", 30)+strings.Repeat("]", 30)+`,`)},
	} {
		t.Run(f.name, func(t *testing.T) {
			h := mustRead(t, f.volume(t))
			if all := h.Trust(kdf.Limits{}); len(all) > 0 {
				t.Errorf("refused: %v", all)
			}
			if got := opens(t, h, "zero", "one"); got != "zero:0 one:1" {
				t.Errorf("opens %q", got)
			}
		})
	}
}
