package luks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cryptctl/cryptctl/luks"
	"github.com/cryptctl/cryptctl/luks/kdf"
	"github.com/cryptctl/cryptctl/secret"
)

// The volume of most tests: 16 KiB metadata, 1 MiB of header, so three areas of
// 258048 bytes, and some data.
const (
	metadataSize = 16 << 10
	dataOffset   = 1 << 20
	deviceSize   = dataOffset + 64<<10
	areaBytes    = 258048
)

// cheap is the least that the format knows: the tests are about headers.
var cheap = kdf.Cost{Kind: kdf.PBKDF2, Hash: "sha256", Iterations: 1000}

// disk is a Device in memory. The hooks see every operation before it happens.
type disk struct {
	data   []byte
	before func(op operation) error         // an error fails the operation
	store  func(p []byte, off int64) []byte // what really lands on the disk
	locks  func(exclusive bool) (func(), error)
}

type operation struct {
	kind   string // "read", "write", "sync"
	offset int64
	length int
}

func newDisk(size int64) *disk { return &disk{data: make([]byte, size)} }

func (d *disk) clone() *disk { return &disk{data: bytes.Clone(d.data)} }

func (d *disk) do(kind string, off int64, n int) error {
	if d.before == nil {
		return nil
	}
	return d.before(operation{kind, off, n})
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.do("read", off, len(p)); err != nil {
		return 0, err
	}
	if off >= d.Size() {
		return 0, io.EOF
	}
	n := copy(p, d.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.do("write", off, len(p)); err != nil {
		return 0, err
	}
	if off < 0 || off+int64(len(p)) > d.Size() {
		return 0, fmt.Errorf("write of %d bytes at %d beyond the end", len(p), off)
	}
	if d.store != nil {
		p = d.store(p, off)
	}
	return copy(d.data[off:], p), nil
}

func (d *disk) Sync() error { return d.do("sync", 0, 0) }

func (d *disk) Size() int64 { return int64(len(d.data)) }

func (d *disk) Lock(exclusive bool) (func(), error) {
	if d.locks != nil {
		return d.locks(exclusive)
	}
	return func() {}, nil
}

// untouchable is a copy of the disk that fails the test on any write.
func (d *disk) untouchable(t testing.TB) *disk {
	c := d.clone()
	c.before = func(op operation) error {
		if op.kind == "write" {
			t.Errorf("write of %d bytes at byte %d on a device that is only to be read", op.length, op.offset)
		}
		return nil
	}
	return c
}

// file makes the disk a file.
func (d *disk) file(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "volume")
	if err := os.WriteFile(path, d.data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func phrase(s string) *secret.Bytes { return secret.Copy([]byte(s)) }

// golden is a volume with the slots 0 and 1, which open with "zero" and "one",
// and a token of slot 1. It is made once; newVolume copies it.
var golden = sync.OnceValues(func() ([]byte, error) {
	d := newDisk(deviceSize)
	key := luks.NewVolumeKey(64)
	defer key.Wipe()
	var changes []luks.Change
	for _, word := range []string{"zero", "one"} {
		sealed, err := key.Seal(context.Background(), phrase(word), cheap)
		if err != nil {
			return nil, err
		}
		changes = append(changes, luks.AddKeyslot(luks.AnySlot, sealed, nil))
	}
	changes = append(changes, luks.SetToken(1, json.RawMessage(`{"type":"test","keyslots":["1"],"note":"of slot 1"}`)))
	_, err := luks.Format(d, key, luks.FormatOptions{
		UUID:         "4e9f7a52-5ad6-4f1f-9b1d-2f6f0f1c9e3b",
		Label:        "label",
		Subsystem:    "subsystem",
		MetadataSize: metadataSize,
		DataOffset:   dataOffset,
	}, changes...)
	return d.data, err
})

func goldenDisk(t testing.TB) *disk {
	t.Helper()
	data, err := golden()
	if err != nil {
		t.Fatal(err)
	}
	return &disk{data: bytes.Clone(data)}
}

func newVolume(t testing.TB) (*disk, *luks.Header) {
	t.Helper()
	d := goldenDisk(t)
	return d, mustRead(t, d)
}

// format makes a volume with one slot for each passphrase.
func format(t testing.TB, d luks.Device, opts luks.FormatOptions, words ...string) *luks.Header {
	t.Helper()
	key := luks.NewVolumeKey(64)
	t.Cleanup(key.Wipe)
	var changes []luks.Change
	for _, word := range words {
		changes = append(changes, luks.AddKeyslot(luks.AnySlot, seal(t, key, word), nil))
	}
	h, err := luks.Format(d, key, opts, changes...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func mustRead(t testing.TB, d luks.Device) *luks.Header {
	t.Helper()
	h, err := luks.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func unlock(t testing.TB, h *luks.Header, word string, slots ...int) *luks.VolumeKey {
	t.Helper()
	key, err := h.Unlock(t.Context(), phrase(word), luks.UnlockOptions{Slots: slots})
	if err != nil {
		t.Fatalf("unlock with %q: %v", word, err)
	}
	t.Cleanup(key.Wipe)
	return key
}

func seal(t testing.TB, key *luks.VolumeKey, word string) *luks.SealedKey {
	t.Helper()
	sealed, err := key.Seal(t.Context(), phrase(word), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func commit(t testing.TB, h *luks.Header, changes ...luks.Change) *luks.Header {
	t.Helper()
	next, err := h.Commit(changes...)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// opens lists which of the passphrases open the volume and in which slot:
// "zero:0 one:1".
func opens(t testing.TB, h *luks.Header, words ...string) string {
	t.Helper()
	var out []string
	for _, word := range words {
		key, err := h.Unlock(t.Context(), phrase(word), luks.UnlockOptions{})
		switch {
		case err == nil:
			out = append(out, fmt.Sprintf("%s:%d", word, key.Slot()))
			key.Wipe()
		case !errors.Is(err, luks.ErrWrongPassphrase):
			out = append(out, fmt.Sprintf("%s: %v", word, err))
		}
	}
	return strings.Join(out, " ")
}

// sound is how every test that writes ends: both copies good and equal, nothing
// left in room that no slot uses.
func sound(t testing.TB, d luks.Device) *luks.Header {
	t.Helper()
	h := mustRead(t, d)
	for _, c := range h.Copies() {
		if c.State != luks.CopyGood {
			t.Errorf("the %s copy is %s: %v", c.Name, c.State, c.Err)
		}
	}
	left, err := h.Leftovers()
	if err != nil || len(left) > 0 {
		t.Errorf("leftovers %v, error %v", left, err)
	}
	for _, r := range h.Trust(kdf.Limits{}) {
		t.Errorf("refused: %v", r)
	}
	return h
}

// Offsets of the binary header, LUKS2 On-Disk Format Specification, section 2.1.
const (
	atVersion     = 6
	atHdrSize     = 8
	atSeqID       = 16
	atLabel       = 24
	atChecksumAlg = 72
	atUUID        = 168
	atSubsystem   = 208
	atHdrOffset   = 256
	atChecksum    = 448
	atJSON        = 4096
)

// hdrSize reads the size of the copy at off.
func (d *disk) hdrSize(off int64) int64 {
	return int64(binary.BigEndian.Uint64(d.data[off+atHdrSize:]))
}

// offsets returns where the copies are.
func (d *disk) offsets() []int64 { return []int64{0, d.hdrSize(0)} }

// reseal gives the size bytes of the copy at off the right SHA-256.
func (d *disk) reseal(off, size int64) {
	p := d.data[off : off+size]
	clear(p[atChecksum : atChecksum+64])
	sum := sha256.Sum256(p)
	copy(p[atChecksum:], sum[:])
}

// patch changes the copy at off and makes its checksum right.
func (d *disk) patch(off int64, change func(p []byte)) {
	size := d.hdrSize(off)
	change(d.data[off : off+size])
	d.reseal(off, size)
}

// patchBoth changes both copies.
func (d *disk) patchBoth(change func(p []byte)) {
	for _, off := range d.offsets() {
		d.patch(off, change)
	}
}

// text is the JSON text of the copy at off.
func (d *disk) text(off int64) string {
	area := d.data[off+atJSON : off+d.hdrSize(off)]
	if end := bytes.IndexByte(area, 0); end >= 0 {
		area = area[:end]
	}
	return string(area)
}

// setText puts a JSON text into both copies.
func (d *disk) setText(text string) {
	d.patchBoth(func(p []byte) {
		if len(text) >= len(p)-atJSON {
			panic("the text does not fit the JSON area")
		}
		clear(p[atJSON:])
		copy(p[atJSON:], text)
	})
}

// edits are changes of a document: a path such as "keyslots.0.kdf.time", and the
// JSON text of the new value or "" for none.
type edits map[string]string

// edit applies them to both copies.
func (d *disk) edit(t testing.TB, e edits) {
	t.Helper()
	doc := document(t, d.text(0))
	for path, value := range e {
		set(t, doc, path, value)
	}
	text, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	d.setText(string(text))
}

// document reads a text in Go's own way, in which objects are maps.
func document(t testing.TB, text string) map[string]any {
	t.Helper()
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	doc := map[string]any{}
	if err := dec.Decode(&doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func set(t testing.TB, doc map[string]any, path, value string) {
	t.Helper()
	names := strings.Split(path, ".")
	last := len(names) - 1
	for i, name := range names[:last] {
		child, ok := doc[name].(map[string]any)
		if !ok {
			t.Fatalf("%s is not an object", strings.Join(names[:i+1], "."))
		}
		doc = child
	}
	if value == "" {
		delete(doc, names[last])
		return
	}
	doc[names[last]] = json.RawMessage(value)
}

// find returns the refusals with that code.
func find(refusals []*luks.Refusal, code luks.Code) []*luks.Refusal {
	return slices.DeleteFunc(slices.Clone(refusals), func(r *luks.Refusal) bool { return r.Code != code })
}

func openFile(t testing.TB, path string, mode luks.Mode) *luks.File {
	t.Helper()
	f, err := luks.OpenFile(path, mode)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
