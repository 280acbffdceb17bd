package luks

import (
	"bytes"
	"slices"
	"strings"
)

// parseCopy checks one header copy as cryptsetup does on load (reference: LUKS2
// specification section 2 and cryptsetup's luks2_json_metadata.c), in its order.
// copy holds hdr_size bytes; the binary header was checked by parseBinary.
func parseCopy(b binaryHeader, copy []byte) (*snapshot, *Refusal) {
	text, where := copy[binarySize:], copyName(b)
	end := bytes.IndexByte(text, 0)
	if end < 0 || bytes.Count(text[end:], []byte{0}) != len(text)-end {
		return nil, invalid(BadJSON, where, "the JSON area must end in zeros after the document")
	}
	if end == 0 || text[0] != '{' {
		return nil, invalid(BadJSON, where, "the JSON area does not begin with an object")
	}
	doc, duplicates, err := parseDocument(text[:end])
	if err != nil {
		return nil, invalid(BadJSON, where, "the JSON area cannot be read: %v", err)
	}
	m, refusal := validate(b, doc)
	if refusal != nil {
		return nil, refusal
	}
	return &snapshot{binary: b, doc: doc, meta: m, duplicates: duplicates}, nil
}

// parseBinary checks the binary header that was read at offset.
func parseBinary(p []byte, offset int64) (binaryHeader, *Refusal) {
	b := decodeBinary(p)
	where, magic := "primary header", primaryMagic
	if offset != 0 {
		where, magic = "secondary header", secondaryMagic
	}
	switch {
	case b.Magic != magic:
		return b, invalid(BadMagic, where, "no LUKS2 magic at byte %d", offset)
	case b.Version != 2:
		return b, invalid(BadVersion, where, "version %d, must be 2", b.Version)
	case b.HdrOffset != uint64(offset):
		return b, invalid(BadHdrOffset, where, "says it lies at byte %d and was read at %d", b.HdrOffset, offset)
	case !validHdrSize(b.HdrSize):
		return b, invalid(BadHdrSize, where, "size %d is not a power of two from 16 KiB to 4 MiB", b.HdrSize)
	case offset != 0 && b.HdrSize != uint64(offset):
		return b, invalid(BadHdrSize, where, "size %d is not its offset %d", b.HdrSize, offset)
	}
	for _, f := range [][]byte{b.Label[:], b.UUID[:], b.Subsystem[:], b.ChecksumAlg[:]} {
		if _, ok := cstring(f); !ok {
			return b, invalid(BadText, where, "a text field is not ended by a NUL")
		}
	}
	return b, nil
}

func copyName(b binaryHeader) string {
	if b.HdrOffset == 0 {
		return "primary header"
	}
	return "secondary header"
}

// checkSum compares the checksum of a copy.
func checkSum(b binaryHeader, copy []byte) *Refusal {
	alg, _ := cstring(b.ChecksumAlg[:])
	sum, err := checksum(alg, copy)
	if err != nil {
		return invalid(BadChecksumAlg, copyName(b), "checksum: %v", err)
	}
	if !bytes.Equal(sum, b.Checksum[:len(sum)]) {
		return invalid(BadChecksum, copyName(b), "the checksum does not match: the copy was changed or torn")
	}
	return nil
}

// validate applies the rules between objects.
func validate(b binaryHeader, doc *object) (*metadata, *Refusal) {
	m, refusal := decodeMetadata(doc)
	if refusal != nil {
		return nil, refusal
	}
	for _, rule := range []func(binaryHeader, *object, *metadata) *Refusal{
		checkSegments, checkKeyslotsArea, checkAreas, checkJSONSize, checkDigests, checkReencryption,
	} {
		if refusal := rule(b, doc, m); refusal != nil {
			return nil, refusal
		}
	}
	return m, nil
}

func isBackup(s Segment) bool {
	return slices.ContainsFunc(s.Flags, func(f string) bool { return strings.HasPrefix(f, "backup-") })
}

func checkSegments(_ binaryHeader, _ *object, m *metadata) *Refusal {
	if len(m.segments) == 0 {
		return invalid(BadSegments, "segments", "there must be at least one")
	}
	ordered := slices.SortedFunc(slices.Values(m.segments), func(a, b Segment) int { return a.ID - b.ID })
	regular := 0
	for i, s := range ordered {
		if s.ID != i {
			return invalid(BadSegments, "segments", "ids must run from 0 without a gap, %d is missing", i)
		}
		if !isBackup(s) {
			if regular++; regular != i+1 {
				return invalid(BadSegments, "segments", "segment %d follows a backup segment", s.ID)
			}
		}
		bound := slices.ContainsFunc(m.digests, func(d Digest) bool { return slices.Contains(d.Segments, s.ID) })
		if s.Type == "crypt" && !bound {
			return invalid(BadSegments, "segments", "segment %d is named by no digest", s.ID)
		}
	}
	if regular == 0 {
		return invalid(BadSegments, "segments", "there are only backup segments")
	}
	for i, s := range ordered[:regular] {
		end := s.Offset + s.Size
		if s.Size == 0 && i != regular-1 {
			return invalid(BadSegments, "segments", "segment %d is dynamic and not the last", s.ID)
		}
		if end < s.Offset {
			return invalid(BadSegments, "segments", "segment %d ends beyond 2^63", s.ID)
		}
		for _, o := range ordered[:i] {
			if s.Offset < o.Offset+o.Size && (s.Size == 0 || o.Offset < end) {
				return invalid(BadSegments, "segments", "segments %d and %d overlap", o.ID, s.ID)
			}
		}
	}
	return nil
}

func checkKeyslotsArea(b binaryHeader, _ *object, m *metadata) *Refusal {
	if m.keyslotsSize%alignment != 0 || m.keyslotsSize > maxKeyslots {
		return invalid(BadConfig, "config.keyslots_size", "%d is not a multiple of %d up to 128 MiB", m.keyslotsSize, alignment)
	}
	lowest := int64(-1)
	for _, s := range m.segments {
		if !isBackup(s) && (lowest < 0 || s.Offset < lowest) {
			lowest = s.Offset
		}
	}
	// Offset 0 is a detached header: the data device holds no header.
	if end := 2*int64(b.HdrSize) + m.keyslotsSize; lowest != 0 && end > lowest {
		return invalid(BadConfig, "config.keyslots_size", "the keyslots area ends at %d, in the data that begins at %d", end, lowest)
	}
	return nil
}

func checkAreas(b binaryHeader, _ *object, m *metadata) *Refusal {
	low := 2 * int64(b.HdrSize)
	high, last := low+m.keyslotsSize, low
	for _, a := range m.areas() {
		switch {
		case a.Size == 0 || a.end() < a.Offset:
			return invalid(BadAreas, "keyslots", "an area at %d has size %d", a.Offset, a.Size)
		case a.Offset < low || a.end() > high:
			return invalid(BadAreas, "keyslots", "an area from %d to %d lies outside the keyslots area, %d to %d", a.Offset, a.end(), low, high)
		case a.Offset < last:
			return invalid(BadAreas, "keyslots", "two areas overlap at %d", a.Offset)
		}
		last = a.end()
	}
	return nil
}

func checkJSONSize(b binaryHeader, doc *object, _ *metadata) *Refusal {
	r := &reader{}
	config := r.object(doc, "", "config")
	if size := r.size(config, "config", "json_size"); r.err == nil && size != int64(b.HdrSize)-binarySize {
		return invalid(BadConfig, "config.json_size", "%d is not the size of the JSON area, %d", size, b.HdrSize-binarySize)
	}
	return r.err
}

func checkDigests(_ binaryHeader, _ *object, m *metadata) *Refusal {
	for _, k := range m.keyslots {
		n := 0
		for _, d := range m.digests {
			if slices.Contains(d.Keyslots, k.ID) {
				n++
			}
		}
		if k.Type == "luks2" && n != 1 {
			return invalid(BadDigests, "digests", "keyslot %d is named by %d digests, must be 1", k.ID, n)
		}
	}
	return nil
}

func checkReencryption(_ binaryHeader, _ *object, m *metadata) *Refusal {
	required, slots := 0, 0
	for _, q := range m.requirements {
		if strings.HasPrefix(q, "online-reencrypt") {
			required++
		}
	}
	for _, k := range m.keyslots {
		if k.Type == "reencrypt" {
			slots++
		}
	}
	if required > 1 || slots > 1 || required != slots {
		return invalid(BadReencryption, "config.requirements", "%d online-reencrypt requirements and %d reencrypt keyslots", required, slots)
	}
	return nil
}
