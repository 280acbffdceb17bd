package luks

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"

	"github.com/cryptctl/cryptctl/luks/kdf"
)

// reader takes members out of objects and keeps the first thing that is wrong;
// callers look at err once at the end.
type reader struct {
	err *Refusal
}

func (r *reader) fail(code Code, where, format string, args ...any) {
	if r.err == nil {
		r.err = invalid(code, where, format, args...)
	}
}

// object returns a member that must be an object; on failure an empty one, so
// that reading can go on.
func (r *reader) object(o *object, where, name string) *object {
	if c, ok := o.child(name); ok {
		return c
	}
	r.fail(BadStructure, join(where, name), "must be an object")
	return &object{}
}

func (r *reader) text(o *object, where, name string) string {
	v, _ := o.get(name)
	s, ok := v.(string)
	if !ok || s == "" {
		r.fail(BadStructure, join(where, name), "must be a text")
	}
	return s
}

// integer returns a member that LUKS2 stores as a JSON integer, a uint32.
func (r *reader) integer(o *object, where, name string) uint32 {
	v, _ := o.get(name)
	n, ok := v.(json.Number)
	u, err := strconv.ParseUint(string(n), 10, 32)
	if !ok || err != nil {
		r.fail(BadNumber, join(where, name), "must be an integer from 0 to 2^32-1")
	}
	return uint32(u)
}

// decimal returns a member that LUKS2 stores as a string of digits, a uint64.
func (r *reader) decimal(o *object, where, name string) uint64 {
	s := r.text(o, where, name)
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || !digits(s) {
		r.fail(BadNumber, join(where, name), "must be a string of digits that fits 64 bits")
	}
	return n
}

// size is a decimal that counts bytes of a device, so it fits an int64.
func (r *reader) size(o *object, where, name string) int64 {
	n := r.decimal(o, where, name)
	if n > math.MaxInt64 {
		r.fail(BadNumber, join(where, name), "%d bytes are more than any device has", n)
		return 0
	}
	return int64(n)
}

// maxObjects bounds keyslots, tokens, segments, digests and lists of their ids,
// since checks look at each with each. Tools use 32 of them.
const maxObjects = 256

// texts returns an array of strings; a missing optional one is empty.
func (r *reader) texts(o *object, where, name string, optional bool) []string {
	v, there := o.get(name)
	if !there && optional {
		return nil
	}
	a, ok := v.([]any)
	if !ok {
		r.fail(BadStructure, join(where, name), "must be an array")
	}
	if len(a) > maxObjects {
		r.fail(BadStructure, join(where, name), "%d entries, at most %d are read", len(a), maxObjects)
		return nil
	}
	out := make([]string, 0, len(a))
	for _, e := range a {
		s, ok := e.(string)
		if !ok {
			r.fail(BadStructure, join(where, name), "must hold strings only")
		}
		out = append(out, s)
	}
	return out
}

// references returns an array of ids that must all be members of in.
func (r *reader) references(o *object, where, name string, in *object) []int {
	var ids []int
	for _, s := range r.texts(o, where, name, false) {
		id, ok := parseID(s)
		if _, exists := in.get(s); !ok || !exists {
			r.fail(BadReference, join(where, name), "\"%s\" names nothing", printable(s))
			continue
		}
		ids = append(ids, id)
	}
	return ids
}

// each calls f for the members of an object whose names are ids.
func (r *reader) each(o *object, where string, f func(id int, where string, v *object)) {
	if len(o.members) > maxObjects {
		r.fail(BadStructure, where, "%d objects, at most %d are read", len(o.members), maxObjects)
		return
	}
	for _, m := range o.members {
		at := join(where, printable(m.name))
		id, ok := parseID(m.name)
		if !ok {
			r.fail(BadNumber, at, "the name must be a number")
			continue
		}
		v, ok := m.value.(*object)
		if !ok {
			r.fail(BadStructure, at, "must be an object")
			continue
		}
		f(id, at, v)
	}
}

func join(where, name string) string {
	if where == "" {
		return name
	}
	return where + "." + name
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// parseID reads the name of a keyslot, token, segment or digest: digits without
// a leading zero.
func parseID(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && digits(s) && strconv.Itoa(n) == s && n <= math.MaxInt32
}

// decodeMetadata turns a document into its typed view, with all the rules that
// concern one object alone. Rules between objects are in validate.go.
func decodeMetadata(doc *object) (*metadata, *Refusal) {
	r := &reader{}
	m := &metadata{}
	config := r.object(doc, "", "config")
	keyslots := r.object(doc, "", "keyslots")
	segments := r.object(doc, "", "segments")

	r.config(config, m)
	r.each(r.object(doc, "", "tokens"), "tokens", func(id int, at string, o *object) {
		m.tokens = append(m.tokens, Token{
			ID: id, Type: r.text(o, at, "type"),
			Keyslots: r.references(o, at, "keyslots", keyslots),
			JSON:     o.encode(),
		})
	})
	r.each(r.object(doc, "", "digests"), "digests", func(id int, at string, o *object) {
		m.digests = append(m.digests, r.digest(id, at, o, keyslots, segments))
	})
	r.each(segments, "segments", func(id int, at string, o *object) {
		m.segments = append(m.segments, r.segment(id, at, o))
	})
	r.each(keyslots, "keyslots", func(id int, at string, o *object) {
		m.keyslots = append(m.keyslots, r.keyslot(id, at, o))
	})
	return m, r.err
}

func (r *reader) config(o *object, m *metadata) {
	if _, ok := o.get("requirements"); ok {
		m.requirements = r.texts(r.object(o, "config", "requirements"), "config.requirements", "mandatory", true)
	}
	m.keyslotsSize = r.size(o, "config", "keyslots_size")
	m.flags = r.texts(o, "config", "flags", true)
}

func (r *reader) digest(id int, at string, o *object, keyslots, segments *object) Digest {
	d := Digest{
		ID: id, Type: r.text(o, at, "type"),
		Keyslots: r.references(o, at, "keyslots", keyslots),
		Segments: r.references(o, at, "segments", segments),
	}
	if d.Type != "pbkdf2" {
		return d // kept, never used
	}
	d.Hash = r.text(o, at, "hash")
	d.Iterations = r.integer(o, at, "iterations")
	var saltErr, digestErr error
	d.Salt, saltErr = decodeBase64(r.text(o, at, "salt"))
	// cryptsetup loads an empty digest and then takes any passphrase: it is
	// refused in trust.go, where it has a code of its own.
	text, _ := o.get("digest")
	s, ok := text.(string)
	if !ok {
		r.fail(BadStructure, join(at, "digest"), "must be a text")
	}
	d.Digest, digestErr = decodeBase64(s)
	d.badEncoding = errors.Join(saltErr, digestErr)
	return d
}

func (r *reader) segment(id int, at string, o *object) Segment {
	s := Segment{ID: id, Type: r.text(o, at, "type"), Offset: r.size(o, at, "offset"), Flags: r.texts(o, at, "flags", true)}
	if size := r.text(o, at, "size"); size != "dynamic" {
		if s.Size = r.size(o, at, "size"); s.Size == 0 {
			r.fail(BadSegments, join(at, "size"), "must not be 0")
		}
	}
	if s.Offset%512 != 0 || s.Size%512 != 0 {
		r.fail(BadSegments, at, "offset and size must be multiples of 512")
	}
	if s.Type != "crypt" {
		return s
	}
	s.IVTweak = r.decimal(o, at, "iv_tweak")
	s.Encryption = r.text(o, at, "encryption")
	s.SectorSize = int(r.integer(o, at, "sector_size"))
	if s.SectorSize == 0 || s.SectorSize%512 != 0 || s.Size%int64(max(s.SectorSize, 1)) != 0 {
		r.fail(BadSegments, join(at, "sector_size"), "must be a multiple of 512 that divides the size")
	}
	if _, ok := o.get("integrity"); ok {
		integrity := r.object(o, at, "integrity")
		s.Integrity = r.text(integrity, join(at, "integrity"), "type")
		r.text(integrity, join(at, "integrity"), "journal_encryption")
		r.text(integrity, join(at, "integrity"), "journal_integrity")
	}
	return s
}

func (r *reader) keyslot(id int, at string, o *object) Keyslot {
	k := Keyslot{ID: id, Type: r.text(o, at, "type"), KeySize: int(r.integer(o, at, "key_size"))}
	area := r.object(o, at, "area")
	k.Area = Area{
		Type:   r.text(area, join(at, "area"), "type"),
		Offset: r.size(area, join(at, "area"), "offset"),
		Size:   r.size(area, join(at, "area"), "size"),
	}
	if p, ok := o.get("priority"); ok {
		k.Priority = priorityOf(p)
	}
	switch k.Type {
	case "luks2":
		r.luks2Keyslot(at, o, area, &k)
	case "reencrypt":
		r.text(o, at, "mode")
		r.text(o, at, "direction")
		if k.KeySize != 1 {
			r.fail(BadReencryption, join(at, "key_size"), "must be 1 in a reencrypt keyslot")
		}
	}
	return k
}

// priorityOf reads a priority; cryptsetup loads any other value too, and tries a
// slot that has one only when it is named.
func priorityOf(v any) Priority {
	switch v {
	case json.Number("1"):
		return PriorityNormal
	case json.Number("2"):
		return PriorityPrefer
	}
	return PriorityIgnore
}

func (r *reader) luks2Keyslot(at string, o, area *object, k *Keyslot) {
	k.Area.Encryption = r.text(area, join(at, "area"), "encryption")
	k.Area.KeySize = int(r.integer(area, join(at, "area"), "key_size"))
	af := r.object(o, at, "af")
	k.AF = AF{Type: r.text(af, join(at, "af"), "type"), Hash: r.text(af, join(at, "af"), "hash")}
	r.integer(af, join(at, "af"), "stripes")

	derivation, in := r.object(o, at, "kdf"), join(at, "kdf")
	k.KDF.Kind = kdf.Kind(r.text(derivation, in, "type"))
	k.KDF.Salt, k.badSalt = decodeBase64(r.text(derivation, in, "salt"))
	switch k.KDF.Kind {
	case kdf.PBKDF2:
		k.KDF.Hash = r.text(derivation, in, "hash")
		k.KDF.Iterations = r.integer(derivation, in, "iterations")
	case kdf.Argon2i, kdf.Argon2id:
		k.KDF.Time = r.integer(derivation, in, "time")
		k.KDF.MemoryKiB = r.integer(derivation, in, "memory")
		k.KDF.CPUs = r.integer(derivation, in, "cpus")
	}
}

// decodeBase64 takes what cryptsetup takes: the standard alphabet with padding,
// white space skipped.
func decodeBase64(s string) ([]byte, error) {
	s = strings.NewReplacer(" ", "", "\t", "", "\n", "", "\r", "").Replace(s)
	return base64.StdEncoding.Strict().DecodeString(s)
}
