package interop_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// verdict is what a header is found to be: what the tests assert of ours.
type verdict string

const opens verdict = "opens"

func invalid(c luks.Code) verdict   { return verdict("invalid: " + c) }
func untrusted(c luks.Code) verdict { return verdict("untrusted: " + c) }
func slotOnly(c luks.Code) verdict  { return verdict("slot: " + c) }

// oddCase is an odd header and our verdict.
type oddCase struct {
	odd
	want verdict
	bomb bool // keeps cryptsetup busy for years
}

func oddCases() []oddCase {
	num := func(s string) json.Number { return json.Number(s) }
	slot := func(f func(slot object)) func(object) {
		return func(doc object) { f(member(doc, "keyslots", "0")) }
	}
	kdfOf := func(name string, value any) func(object) {
		return slot(func(s object) { member(s, "kdf")[name] = value })
	}
	digest := func(name string, value any) func(object) {
		return func(doc object) { member(doc, "digests", "0")[name] = value }
	}
	segment := func(name string, value any) func(object) {
		return func(doc object) { member(doc, "segments", "0")[name] = value }
	}
	config := func(name string, value any) func(object) {
		return func(doc object) { member(doc, "config")[name] = value }
	}
	require := func(what string) func(object) {
		return config("requirements", object{"mandatory": []any{what}})
	}
	move := func(kind, from, to string) func(object) {
		return func(doc object) {
			o := member(doc, kind)
			o[to] = o[from]
			delete(o, from)
		}
	}
	renamed := func(doc object, to string) {
		move("keyslots", "0", to)(doc)
		member(doc, "digests", "0")["keyslots"] = []any{to}
	}
	area := func(name string, value any) func(object) {
		return slot(func(s object) { member(s, "area")[name] = value })
	}
	zeros := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

	return []oddCase{
		{odd: odd{name: "nothing changed"}, want: opens},

		// Attacks by who can write the disk.
		{odd: odd{name: "digest empty", doc: digest("digest", "")}, want: untrusted(luks.DigestLength)},
		{odd: odd{name: "digest of 66 bytes", doc: digest("digest", zeros(66))}, want: untrusted(luks.DigestLength)},
		{odd: odd{name: "digest of 16 bytes", doc: digest("digest", zeros(16))}, want: untrusted(luks.DigestLength)},
		{odd: odd{name: "digest not base64", doc: digest("digest", "*")}, want: untrusted(luks.DigestEncoding)},
		{odd: odd{name: "digest iterations 2^32-1", doc: digest("iterations", num("4294967295"))}, want: untrusted(luks.DigestCost), bomb: true},
		{odd: odd{name: "null cipher keyslot", doc: area("encryption", "cipher_null-ecb")}, want: untrusted(luks.NullCipherKeyslot)},
		{odd: odd{name: "null cipher segment", doc: segment("encryption", "cipher_null-ecb")}, want: untrusted(luks.NullCipherSegment)},
		{odd: odd{name: "capi cipher segment", doc: segment("encryption", "capi:xts(aes)-plain64")}, want: untrusted(luks.CapiCipherSegment)},
		{odd: odd{name: "argon2 passes 2^32-1", doc: kdfOf("time", num("4294967295"))}, want: slotOnly(luks.KDFCost), bomb: true},
		{odd: odd{name: "argon2 passes 0", doc: kdfOf("time", num("0"))}, want: slotOnly(luks.KDFParams)},
		{odd: odd{name: "argon2 memory 2 TiB", doc: kdfOf("memory", num("2147483648"))}, want: slotOnly(luks.KDFCost)},
		{odd: odd{name: "argon2 lanes 256", doc: kdfOf("cpus", num("256"))}, want: slotOnly(luks.KDFParams)},
		{odd: odd{name: "key of 4 GiB", doc: slot(func(s object) { s["key_size"] = num("4294967295") })}, want: slotOnly(luks.KeyslotKeySize), bomb: true},
		{odd: odd{name: "a member twice", text: func(s string) string {
			return strings.Replace(s, `"key_size":64`, `"key_size":32,"key_size":64`, 1)
		}}, want: untrusted(luks.DuplicateMember)},

		// Keyslots.
		{odd: odd{name: "keyslot id 32", doc: func(doc object) { renamed(doc, "32") }}, want: untrusted(luks.IDTooLarge)},
		{odd: odd{name: "keyslot id 01", doc: func(doc object) { renamed(doc, "01") }}, want: invalid(luks.BadReference)},
		{odd: odd{name: "unknown derivation", doc: kdfOf("type", "scrypt")}, want: slotOnly(luks.KDFKind)},
		{odd: odd{name: "negative passes", doc: kdfOf("time", num("-5"))}, want: invalid(luks.BadNumber), bomb: true},
		{odd: odd{name: "passes as text", doc: kdfOf("time", "4")}, want: invalid(luks.BadNumber)},
		{odd: odd{name: "area too small for its material", doc: area("size", "4096")}, want: slotOnly(luks.KeyslotArea)},
		{odd: odd{name: "area in the header", doc: area("offset", "16384")}, want: invalid(luks.BadAreas)},
		{odd: odd{name: "area behind the keyslots area", doc: area("offset", "16777216")}, want: invalid(luks.BadAreas)},
		{odd: odd{name: "area at 2^64-4096", doc: area("offset", "18446744073709547520")}, want: invalid(luks.BadNumber)},
		{odd: odd{name: "one stripe", doc: slot(func(s object) { member(s, "af")["stripes"] = num("1") })}, want: opens},
		{odd: odd{name: "salt not base64", doc: kdfOf("salt", "*")}, want: slotOnly(luks.KDFParams)},
		{odd: odd{name: "unknown keyslot type", doc: slot(func(s object) { s["type"] = "vendor" })}, want: slotOnly(luks.KeyslotType)},
		{odd: odd{name: "keyslot without a digest", doc: digest("keyslots", []any{})}, want: invalid(luks.BadDigests)},
		{odd: odd{name: "digest names a slot that is not there", doc: digest("keyslots", []any{"0", "5"})}, want: invalid(luks.BadReference)},

		// Segments.
		{odd: odd{name: "two segments", doc: func(doc object) {
			first := member(doc, "segments", "0")
			first["size"] = "1048576"
			second := object{}
			for k, v := range first {
				second[k] = v
			}
			second["offset"] = "17825792"
			member(doc, "segments")["1"] = second
			member(doc, "digests", "0")["segments"] = []any{"0", "1"}
		}}, want: untrusted(luks.SegmentCount)},
		{odd: odd{name: "segment flag", doc: segment("flags", []any{"in-reencryption"})}, want: untrusted(luks.SegmentFlags)},
		{odd: odd{name: "segment in the keyslots area", doc: segment("offset", "1048576")}, want: invalid(luks.BadConfig)},
		{odd: odd{name: "segment at byte 0, as if detached", doc: segment("offset", "0")}, want: opens},
		{odd: odd{name: "segment named by no digest", doc: digest("segments", []any{})}, want: invalid(luks.BadSegments)},
		{odd: odd{name: "segment offset not of sectors", doc: segment("offset", "16777217")}, want: invalid(luks.BadSegments)},
		{odd: odd{name: "iv_tweak as a number", doc: segment("iv_tweak", num("0"))}, want: invalid(luks.BadStructure)},
		{odd: odd{name: "segment size 0", doc: segment("size", "0")}, want: invalid(luks.BadSegments)},
		{odd: odd{name: "sector size 513", doc: segment("sector_size", num("513"))}, want: invalid(luks.BadSegments)},
		{odd: odd{name: "sector size 8192", doc: segment("sector_size", num("8192"))}, want: untrusted(luks.SegmentSectorSize)},
		{odd: odd{name: "segment of another type", doc: segment("type", "linear")}, want: untrusted(luks.SegmentType)},
		{odd: odd{name: "no segment", doc: func(doc object) {
			doc["segments"] = object{}
			member(doc, "digests", "0")["segments"] = []any{}
		}}, want: invalid(luks.BadSegments)},
		{odd: odd{name: "integrity", doc: segment("integrity", object{"type": "hmac(sha256)", "journal_encryption": "none", "journal_integrity": "none"})}, want: untrusted(luks.SegmentIntegrity)},

		// Requirements and config.
		{odd: odd{name: "unknown requirement", doc: require("quantum")}, want: untrusted(luks.Requirement)},
		{odd: odd{name: "offline-reencrypt", doc: require("offline-reencrypt")}, want: untrusted(luks.Reencryption)},
		{odd: odd{name: "online-reencrypt-v2 without a keyslot", doc: require("online-reencrypt-v2")}, want: invalid(luks.BadReencryption)},
		{odd: odd{name: "json_size wrong", doc: config("json_size", "12289")}, want: invalid(luks.BadConfig)},
		{odd: odd{name: "keyslots_size not aligned", doc: config("keyslots_size", "16744447")}, want: invalid(luks.BadConfig)},
		{odd: odd{name: "unknown members", doc: func(doc object) {
			doc["vendor"] = object{"a": []any{num("1.5"), nil}}
			member(doc, "config")["vendor"] = true
			member(doc, "keyslots", "0")["vendor"] = "x"
		}}, want: opens},
		{odd: odd{name: "no tokens object", doc: func(doc object) { delete(doc, "tokens") }}, want: invalid(luks.BadStructure)},
		{odd: odd{name: "token for a slot that is not there", doc: func(doc object) {
			member(doc, "tokens")["0"] = object{"type": "x", "keyslots": []any{"9"}}
		}}, want: invalid(luks.BadReference)},
		{odd: odd{name: "keyring token with a fourth member", doc: func(doc object) {
			member(doc, "tokens")["0"] = object{"type": "luks2-keyring", "keyslots": []any{}, "key_description": "x", "more": "y"}
		}}, want: opens},
		{odd: odd{name: "token id 32", doc: func(doc object) {
			member(doc, "tokens")["32"] = object{"type": "x", "keyslots": []any{}}
		}}, want: untrusted(luks.IDTooLarge)},
		{odd: odd{name: "token without a type", doc: func(doc object) {
			member(doc, "tokens")["0"] = object{"keyslots": []any{}}
		}}, want: invalid(luks.BadStructure)},

		// Binary header and text.
		{odd: odd{name: "checksum by sha512", binary: func(c []byte, _ int) { copy(c[72:104], "sha512\x00") }}, want: opens},
		{odd: odd{name: "checksum by an unknown hash", binary: func(c []byte, _ int) { copy(c[72:104], "crc\x00") }}, want: invalid(luks.BadChecksumAlg)},
		{odd: odd{name: "version 3", binary: func(c []byte, _ int) { binary.BigEndian.PutUint16(c[6:], 3) }}, want: invalid(luks.BadVersion)},
		{odd: odd{name: "hdr_offset wrong", binary: func(c []byte, at int) { binary.BigEndian.PutUint64(c[256:], uint64(at)+512) }}, want: invalid(luks.BadHdrOffset)},
		{odd: odd{name: "hdr_size 2^50", binary: func(c []byte, _ int) { binary.BigEndian.PutUint64(c[8:], 1<<50) }}, want: invalid(luks.BadHdrSize)},
		{odd: odd{name: "bytes after the document", binary: func(c []byte, _ int) { c[hdrSize-1] = 'x' }}, want: invalid(luks.BadJSON)},
		{odd: odd{name: "document cut short", text: func(s string) string { return s[:len(s)-1] }}, want: invalid(luks.BadJSON)},
		{odd: odd{name: "not an object", text: func(s string) string { return "[" + s + "]" }}, want: invalid(luks.BadJSON)},
		{odd: odd{name: "label without an end", binary: func(c []byte, _ int) { copy(c[24:72], strings.Repeat("l", 48)) }}, want: invalid(luks.BadText)},
		{odd: odd{name: "primary torn", spoil: func(p []byte) { p[5000] ^= 1 }}, want: opens},
		{odd: odd{name: "secondary torn", spoil: func(p []byte) { p[hdrSize+5000] ^= 1 }}, want: opens},
		{odd: odd{name: "both torn", spoil: func(p []byte) { p[5000] ^= 1; p[hdrSize+5000] ^= 1 }}, want: invalid(luks.BadChecksum)},
		{odd: odd{name: "primary zeroed", spoil: func(p []byte) { clear(p[:hdrSize]) }}, want: opens},
		{odd: odd{name: "both zeroed", spoil: func(p []byte) { clear(p) }}, want: invalid(luks.NotLUKS)},
		{odd: odd{name: "secondary newer", binary: func(c []byte, at int) {
			if at > 0 {
				binary.BigEndian.PutUint64(c[16:], 99)
			}
		}}, want: opens},
	}
}

// judge returns our verdict.
func (d *disk) judge(pass string) verdict {
	d.Helper()
	h, err := luks.Read(d.open())
	var r *luks.Refusal
	if errors.As(err, &r) {
		return invalid(r.Code)
	} else if err != nil {
		d.Fatal(err)
	}
	if refusals := h.Trust(kdf.Limits{}); len(refusals) > 0 {
		if refusals[0].Level == luks.Untrusted {
			return untrusted(refusals[0].Code)
		}
		return slotOnly(refusals[0].Code)
	}
	if !d.opensHere(pass, -1) {
		return "does not open"
	}
	return opens
}

// TestVerdicts holds odd headers against both tools. Ours is asserted; that of
// cryptsetup stands beside it, as the exit codes of four commands.
func TestVerdicts(t *testing.T) {
	base := theirs(t, shape{kdf.Argon2id, 512, 512, hdrSize}, "alpha")
	cases := oddCases()
	rows := make([]string, len(cases))
	t.Run("odd", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				d := base.copy(t)
				c.apply(t, d.path)
				got := d.judge("alpha")
				if got != c.want {
					t.Errorf("our verdict is %q, want %q", got, c.want)
				}
				if got != opens && d.attempt("alpha") == nil {
					t.Error("we refuse it and unlock it")
				}
				if d.attempt("none of them") == nil {
					t.Error("a wrong passphrase unlocks it here")
				}
				codes := c.peer(t, base)
				rows[i] = fmt.Sprintf("%-40s %-32s %s", c.name, got, codes)
				if !strings.HasPrefix(codes, "0") && !strings.HasPrefix(string(got), "invalid") {
					t.Errorf("cryptsetup does not load it, we find it %q", got)
				}
				if got == opens {
					d.repaired(t)
				}
			})
		}
	})
	head := fmt.Sprintf("%-40s %-32s %-6s%-6s%-6s%s", "header", "we", "dump", "right", "wrong", "change")
	t.Logf("exit codes of cryptsetup's luksDump, open with the right passphrase, with a wrong one, config\n%s\n%s", head, strings.Join(rows, "\n"))
}

// attempt reads and unlocks, whatever goes wrong first.
func (d *disk) attempt(pass string) error {
	d.Helper()
	h, err := luks.Read(d.open())
	if err != nil {
		return err
	}
	key, err := h.Unlock(context.Background(), secret.Copy([]byte(pass)), luks.UnlockOptions{})
	if err == nil {
		key.Wipe()
	}
	return err
}

// repaired changes an odd header that we accept: what comes of it must be good
// for both tools.
func (d *disk) repaired(t *testing.T) {
	t.Helper()
	h := d.commit(luks.SetToken(7, json.RawMessage(`{"type":"x","keyslots":["0"]}`)))
	d.sameDocument("changed")
	if _, there := h.Token(7); !there || !d.opensHere("alpha", 0) || !d.opensThere("alpha", 0) {
		t.Error("changed, it does not open any more")
	}
}

// peer returns cryptsetup's exit codes.
func (c oddCase) peer(t *testing.T, base *disk) (codes string) {
	t.Helper()
	right, wrong := keyFile(t, "alpha"), keyFile(t, "none of them")
	for _, args := range [][]string{
		{"luksDump"},
		{"open", "--test-passphrase", "--key-file", right},
		{"open", "--test-passphrase", "--key-file", wrong},
		{"config", "--label", "changed"},
	} {
		d := base.copy(t) // each on a fresh one: even luksDump writes
		c.apply(t, d.path)
		limit := patience
		if c.bomb && args[0] == "open" {
			limit = time.Second
		}
		r := run(t, limit, "cryptsetup", append(append([]string{"-q"}, args...), d.path)...)
		code := fmt.Sprint(r.code)
		if r.signal == unix.SIGKILL {
			code = "hangs"
		} else if r.code < 0 {
			code = "dies"
		}
		codes += fmt.Sprintf("%-6s", code)
	}
	return codes
}
