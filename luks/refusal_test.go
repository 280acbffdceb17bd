package luks_test

import (
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"errors"
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
		{name: "priorities that mean nothing", edits: edits{"keyslots.0.priority": "1", "keyslots.1.priority": "1"}},
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
