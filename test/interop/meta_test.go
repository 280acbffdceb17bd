package interop_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/siderolabs/go-adv/adv/syslinux"
	adv "github.com/siderolabs/go-adv/adv/talos"

	"github.com/cryptctl/cryptctl/meta"
)

// partition is a META in memory.
type partition []byte

func (p partition) ReadAt(b []byte, off int64) (int, error) {
	n := copy(b, p[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (p partition) WriteAt(b []byte, off int64) (int, error) { return copy(p[off:], b), nil }
func (p partition) Sync() error                              { return nil }
func (p partition) Size() int64                              { return int64(len(p)) }

// metaSets is how many sets of tags are tried in each direction.
const metaSets = 10_000

// tagSet draws what META may hold: mostly the tags and sizes of Talos, now and
// then every tag, or as much as fits.
func tagSet(r *rand.Rand) map[uint8][]byte {
	set := map[uint8][]byte{}
	tags := r.IntN(8)
	if r.IntN(50) == 0 {
		tags = r.IntN(256)
	}
	for range tags {
		size := r.IntN(2000)
		switch r.IntN(20) {
		case 0:
			size = 0
		case 1:
			size = r.IntN(meta.Capacity/256 - 8)
		}
		value := make([]byte, size)
		for i := range value {
			value[i] = byte(r.Uint32())
		}
		tag := 6 + r.IntN(13)
		if r.IntN(4) == 0 {
			tag = 1 + r.IntN(255)
		}
		set[uint8(tag)] = value
	}
	if r.IntN(100) == 0 { // fill it to the last byte
		left := meta.Capacity - 8
		for tag, value := range set {
			if tag != 255 {
				left -= 8 + len(value)
			}
		}
		set[255] = bytes.Repeat([]byte{byte(r.Uint32())}, left)
	}
	return set
}

// TestMetaTheirs: what go-adv writes, in whatever order its map has, we read.
func TestMetaTheirs(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	image := make([]byte, meta.Size)
	largest := 0
	for n := range metaSets {
		set := tagSet(r)
		theirs, err := adv.NewADV(nil)
		if err != nil {
			t.Fatal(err)
		}
		for tag, value := range set {
			if !theirs.SetTagBytes(tag, value) {
				t.Fatalf("set %d: go-adv refuses tag %d", n, tag)
			}
		}
		written, err := theirs.Bytes()
		if err != nil {
			t.Fatalf("set %d: %v", n, err)
		}
		copy(image, written)
		m, err := meta.Read(partition(image))
		if err != nil {
			t.Fatalf("set %d: %v", n, err)
		}
		if len(m.Damage()) > 0 {
			t.Fatalf("set %d: damage %q", n, m.Damage())
		}
		if d := differs(set, m); d != "" {
			t.Fatalf("set %d: %s", n, d)
		}
		used, _ := m.Room()
		largest = max(largest, used)
	}
	if largest != meta.Capacity {
		t.Errorf("no set filled META: %d of %d bytes", largest, meta.Capacity)
	}
	t.Logf("SUMMARY meta: %d images of go-adv read", metaSets)
}

// TestMetaOurs: what we write, one commit after the other on one device, go-adv
// reads, in copy 1 and, when that is broken, in copy 2.
func TestMetaOurs(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(2, 2))
	image := make([]byte, meta.Size)
	m, err := meta.Read(partition(image))
	if err != nil {
		t.Fatal(err)
	}
	for n := range metaSets {
		set := tagSet(r)
		for _, tag := range m.Tags() {
			m.Delete(tag)
		}
		for tag, value := range set {
			if err := m.Set(meta.Tag(tag), value); err != nil {
				t.Fatalf("set %d: %v", n, err)
			}
		}
		if err := m.Commit(); err != nil {
			t.Fatalf("set %d: %v", n, err)
		}
		if n%2 == 1 { // their second copy; our next commit mends the first
			image[r.IntN(adv.Length)] ^= 1
		}
		theirs, err := adv.NewADV(bytes.NewReader(image))
		if err != nil {
			t.Fatalf("set %d: go-adv: %v", n, err)
		}
		got := theirs.ListTags()
		slices.Sort(got)
		if want := slices.Sorted(maps.Keys(set)); !slices.Equal(got, want) {
			t.Fatalf("set %d: go-adv finds the tags %v, want %v", n, got, want)
		}
		for tag, value := range set {
			if got, _ := theirs.ReadTagBytes(tag); !bytes.Equal(got, value) {
				t.Fatalf("set %d: go-adv finds another value of tag %d", n, tag)
			}
		}
	}
	t.Logf("SUMMARY meta: %d commits of ours read by go-adv", metaSets)
}

// TestMetaSameBytes: for one tag there is one order only, and the image is theirs
// to the byte.
func TestMetaSameBytes(t *testing.T) {
	for tag := range 255 {
		value := bytes.Repeat([]byte{byte(tag)}, tag*997)
		theirs, _ := adv.NewADV(nil)
		theirs.SetTagBytes(uint8(tag+1), value)
		want, err := theirs.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		image := make([]byte, meta.Size)
		commitMeta(t, partition(image), map[uint8][]byte{uint8(tag + 1): value})
		if !bytes.Equal(image[:adv.Size], want) || bytes.Count(image[adv.Size:], []byte{0}) != meta.Size-adv.Size {
			t.Fatalf("tag %d: other bytes than go-adv's", tag+1)
		}
	}
}

// TestMetaLegacy: legacy vectors that go-adv wrote. We read them, leave them as
// they are while nothing is deleted, and delete to the bytes that go-adv makes of
// the other values. (Its own deletion leaves bytes behind at the end of a full one.)
func TestMetaLegacy(t *testing.T) {
	t.Parallel()
	const sets = 200
	r := rand.New(rand.NewPCG(3, 3))
	filled := 0
	for n := range sets {
		set := map[uint8][]byte{}
		var order []uint8
		theirs := newSyslinux(t)
		for range r.IntN(12) {
			tag, value := uint8(1+r.IntN(20)), bytes.Repeat([]byte{byte(n)}, r.IntN(120))
			if old, ok := theirs.ReadTagBytes(tag); ok {
				set[tag] = bytes.Clone(old)
				continue // a failed SetTag of go-adv loses the old value
			}
			if theirs.SetTagBytes(tag, value) {
				set[tag] = value
				order = append(order, tag)
			} else {
				filled++
			}
		}
		image := make([]byte, meta.Size)
		copy(image[meta.Size-len(theirs):], theirs)
		d := partition(image)
		m, err := meta.Read(d)
		if err != nil || len(m.Damage()) > 0 {
			t.Fatalf("set %d: %v", n, err)
		}
		if d := differs(set, m); d != "" {
			t.Fatalf("set %d: %s", n, d)
		}
		commitMeta(t, d, map[uint8][]byte{100: []byte("new")})
		if !bytes.Equal(image[meta.Size-len(theirs):], theirs) {
			t.Fatalf("set %d: the legacy vector changed", n)
		}
		for len(order) > 0 {
			i := r.IntN(len(order))
			tag := order[i]
			order = slices.Delete(order, i, i+1)
			m, err := meta.Read(d)
			if err != nil {
				t.Fatal(err)
			}
			m.Delete(meta.Tag(tag))
			if err := m.Commit(); err != nil {
				t.Fatalf("set %d: delete %d: %v", n, tag, err)
			}
			theirs := newSyslinux(t)
			for _, left := range order {
				theirs.SetTagBytes(left, set[left])
			}
			if !bytes.Equal(image[meta.Size-len(theirs):], theirs) {
				t.Fatalf("set %d: delete %d: other bytes than go-adv's", n, tag)
			}
		}
	}
	if filled == 0 {
		t.Error("no set filled the legacy vector")
	}
}

func newSyslinux(t *testing.T) syslinux.ADV {
	t.Helper()
	v, err := syslinux.NewADV(nil)
	if err != nil {
		t.Fatal(err)
	}
	v.SetTagBytes(1, nil)
	v.DeleteTag(1) // this gives it its checksum
	return v
}

// commitMeta sets values and commits.
func commitMeta(t *testing.T, d meta.Device, set map[uint8][]byte) {
	t.Helper()
	m, err := meta.Read(d)
	if err != nil {
		t.Fatal(err)
	}
	for tag, value := range set {
		if err := m.Set(meta.Tag(tag), value); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
}

// differs says how what we read differs from a set.
func differs(set map[uint8][]byte, m *meta.Meta) string {
	if got, want := len(m.Tags()), len(set); got != want {
		return fmt.Sprintf("%d tags, want %d", got, want)
	}
	for tag, value := range set {
		if got, ok := m.Get(meta.Tag(tag)); !ok || !bytes.Equal(got, value) {
			return fmt.Sprintf("another value of tag %d", tag)
		}
	}
	return ""
}

// sealADV gives a copy the right checksum.
func sealADV(p []byte) {
	sum := p[len(p)-36 : len(p)-4]
	clear(sum)
	right := sha256.Sum256(p)
	copy(sum, right[:])
}

// TestMetaStricter: where go-adv panics, loses or mistakes something, we say so.
func TestMetaStricter(t *testing.T) {
	for _, test := range []struct {
		name   string
		record []byte
		panics bool
		reads  map[uint8][]byte // what go-adv makes of it
	}{
		{"a size that wraps", []byte("\x00\x00\x00\x06\xff\xff\xff\xfc"), true, nil},
		{"a tag wider than a byte", []byte("\x00\x00\x01\x0a\x00\x00\x00\x01x"), false, map[uint8][]byte{10: []byte("x")}},
		{"a tag twice", []byte("\x00\x00\x00\x0a\x00\x00\x00\x01x\x00\x00\x00\x0a\x00\x00\x00\x01y"), false, map[uint8][]byte{10: []byte("y")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			empty, _ := adv.NewADV(nil)
			p, err := empty.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			copy(p[4:], test.record)
			sealADV(p)
			image := make([]byte, meta.Size)
			copy(image, append(bytes.Clone(p), p...))
			if got, panicked := theirTags(image); panicked != test.panics || !maps.EqualFunc(got, test.reads, bytes.Equal) {
				t.Errorf("go-adv finds %q, panics %v: it changed, and so may we", got, panicked)
			}
			if m, err := meta.Read(partition(image)); err == nil {
				t.Errorf("we read it: %v", m.Tags())
			}
		})
	}
}

func theirTags(image []byte) (set map[uint8][]byte, panicked bool) {
	defer func() { panicked = recover() != nil }()
	theirs, err := adv.NewADV(bytes.NewReader(image))
	if err != nil {
		return nil, false
	}
	set = map[uint8][]byte{}
	for _, tag := range theirs.ListTags() {
		set[tag], _ = theirs.ReadTagBytes(tag)
	}
	return set, false
}
