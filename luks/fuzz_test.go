package luks_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
)

// jsonSeeds reads documents of several tools and of none, which all fit the
// layout of the golden volume.
func jsonSeeds(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/json/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seeds := map[string]string{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		seeds[filepath.Base(path)] = string(text)
	}
	return seeds
}

// TestSeeds: fuzzing begins with documents that are read.
func TestSeeds(t *testing.T) {
	seeds := jsonSeeds(t)
	if len(seeds) < 10 {
		t.Fatalf("only %d seeds", len(seeds))
	}
	trusted := 0
	for name, text := range seeds {
		d := goldenDisk(t)
		d.setText(text)
		h, err := luks.Read(d)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(h.Trust(kdf.Limits{})) == 0 {
			trusted++
		}
		tryJSON(t, text)
		tryBinary(t, append(d.data[:binaryBytes:binaryBytes], text...))
	}
	if trusted < 5 {
		t.Errorf("only %d seeds are trusted", trusted)
	}
}

// prefixed is a device that begins with some bytes and is zeros after them.
type prefixed struct {
	t     *testing.T
	first []byte
}

func (p prefixed) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(p.first)) {
		copy(b, p.first[off:])
	}
	return len(b), nil
}

func (p prefixed) WriteAt([]byte, int64) (int, error) { p.t.Error("written"); return 0, errBroken }
func (p prefixed) Sync() error                        { p.t.Error("synced"); return errBroken }
func (p prefixed) Size() int64                        { return 9 << 20 }

// binaryBytes are those of the binary header that mean something; the padding
// after them is left out of the fuzzer's inputs, which it minimises for long.
const binaryBytes = 512

// FuzzBinaryHeader reads a device that begins with any binary header and any
// JSON area, once with the checksum as it is and once with the right one.
func FuzzBinaryHeader(f *testing.F) {
	add := func(d *disk) {
		if len(d.data) >= metadataSize {
			f.Add(append(bytes.Clone(d.data[:binaryBytes]), bytes.TrimRight(d.data[atJSON:metadataSize], "\x00")...))
		}
	}
	for _, text := range jsonSeeds(f) {
		d := goldenDisk(f)
		d.setText(text)
		add(d)
	}
	for _, fault := range invalidFaults() {
		if fault.damage != nil {
			add(fault.volume(f))
		}
	}
	f.Add([]byte{})
	f.Fuzz(tryBinary)
}

func tryBinary(t *testing.T, data []byte) {
	if len(data) < binaryBytes {
		return
	}
	// The largest header that is tried has 64 KiB.
	size := binary.BigEndian.Uint64(data[atHdrSize:])
	d := newDisk(int64(min(max(size, metadataSize), 4*metadataSize)))
	copy(d.data, data[:binaryBytes])
	copy(d.data[atJSON:], data[binaryBytes:])
	for range 2 {
		dev := prefixed{t, d.data}
		if h, err := luks.Read(dev); err != nil {
			refused(t, err)
		} else {
			accepted(t, h, dev.Size())
		}
		d.reseal(0, d.Size())
	}
}

// FuzzJSON puts any text into the JSON area, with the right checksums.
func FuzzJSON(f *testing.F) {
	for _, text := range jsonSeeds(f) {
		f.Add(text)
	}
	for _, fault := range slices.Concat(invalidFaults(), untrustedFaults(), slotFaults()) {
		if fault.damage == nil {
			f.Add(fault.volume(f).text(0))
		}
	}
	f.Fuzz(tryJSON)
}

func tryJSON(t *testing.T, text string) {
	if len(text) >= metadataSize-atJSON {
		return
	}
	d := goldenDisk(t)
	d.setText(text)
	h, err := luks.Read(d)
	if err != nil {
		refused(t, err)
		return
	}
	accepted(t, h, d.Size())
	fixpoint(t, d.clone(), h)

	was := bytes.Clone(d.data)
	next, err := h.Commit()
	if err == nil && next.SeqID() != h.SeqID() || !bytes.Equal(d.data, was) {
		t.Fatalf("a commit of nothing wrote: %v", err)
	}
	if len(h.Keyslots()) == 0 {
		return
	}
	first, priority := h.Keyslots()[0], luks.PriorityPrefer
	if first.Priority == priority {
		priority = luks.PriorityIgnore
	}
	if next, err = h.Commit(luks.SetPriority(first.ID, priority)); err != nil {
		if !bytes.Equal(d.data, was) {
			t.Fatalf("a commit that failed wrote: %v", err)
		}
		return
	}
	now := mustRead(t, d)
	if c := now.Copies(); c[0].State != luks.CopyGood || c[1].State != luks.CopyGood || !bytes.Equal(now.JSON(), next.JSON()) {
		t.Fatalf("committed\n%s\nand read\n%s\n%+v", next.JSON(), now.JSON(), c)
	}
	if k, _ := now.Keyslot(first.ID); k.Priority != priority || now.SeqID() != h.SeqID()+1 {
		t.Errorf("priority %v, sequence %d", k.Priority, now.SeqID())
	}
	accepted(t, now, d.Size())
}

// refused checks what is said of a header that is not read.
func refused(t *testing.T, err error) {
	all := refusals(err)
	if len(all) == 0 {
		t.Fatalf("refused without a reason: %v", err)
	}
	for _, r := range all {
		if r.Level != luks.Invalid || r.Code == "" || r.Where == "" && r.Code != luks.BadNumber || r.Reason == "" || r.Slot != -1 {
			t.Errorf("an odd refusal: %#v", r)
		}
	}
}

// accepted checks what all code that is given a header relies on.
func accepted(t *testing.T, h *luks.Header, size int64) {
	if !json.Valid(h.JSON()) {
		t.Fatalf("no JSON: %s", h.JSON())
	}
	low, length := h.KeyslotsArea()
	high := low + length
	if low != 2*h.MetadataSize() || length < 0 || high > size {
		t.Errorf("keyslots area from %d to %d on a device of %d", low, high, size)
	}
	last := low
	areas := h.Keyslots()
	slices.SortFunc(areas, func(a, b luks.Keyslot) int { return int(a.Area.Offset - b.Area.Offset) })
	for _, k := range areas {
		if k.Area.Size <= 0 || k.Area.Offset < last || k.Area.Size > high-k.Area.Offset {
			t.Errorf("the area of slot %d is %+v", k.ID, k.Area)
		}
		last = k.Area.Offset + k.Area.Size
	}
	if len(h.Segments()) == 0 || strings.ContainsRune(h.UUID()+h.Label()+h.Subsystem(), 0) {
		t.Errorf("segments %v, UUID %q", h.Segments(), h.UUID())
	}
	for _, token := range h.Tokens() {
		if !json.Valid(token.JSON) || token.Type == "" {
			t.Errorf("token %d is %s", token.ID, token.JSON)
		}
	}
	refusedSlots := map[int]bool{}
	for _, r := range h.Trust(kdf.Limits{}) {
		if r.Error() == "" || r.Level == luks.Invalid || (r.Level == luks.SlotOnly) != (r.Slot >= 0) {
			t.Errorf("an odd refusal: %#v", r)
		}
		refusedSlots[r.Slot] = true
	}
	if refusedSlots[-1] {
		return
	}
	for _, k := range h.Keyslots() { // what a slot that is used has
		if !refusedSlots[k.ID] && (k.KeySize <= 0 || k.Area.Size < 4000*int64(k.KeySize) || k.KDF.Check(kdf.Limits{}) != nil || k.ID >= luks.MaxSlots) {
			t.Errorf("slot %d is used: %+v", k.ID, k)
		}
	}
}

// fixpoint writes a header as the engine encodes it and reads it again.
func fixpoint(t *testing.T, d *disk, h *luks.Header) {
	if used, total := h.JSONRoom(); used > total {
		return // escapes made it longer than the area
	}
	d.setText(string(h.JSON()))
	again, err := luks.Read(d)
	if err != nil {
		t.Fatalf("encoded as\n%s\nand refused: %v", h.JSON(), err)
	}
	if !bytes.Equal(again.JSON(), h.JSON()) {
		t.Fatalf("encoded as\n%s\nand then as\n%s", h.JSON(), again.JSON())
	}
	if twice := find(again.Trust(kdf.Limits{}), luks.DuplicateMember); len(twice) > 0 {
		t.Fatalf("encoded with members that occur twice: %v", twice)
	}
}
