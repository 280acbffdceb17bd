package luks_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
)

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
