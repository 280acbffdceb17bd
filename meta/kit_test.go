package meta_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cryptctl/cryptctl/luks/lukstest"
	"github.com/cryptctl/cryptctl/meta"
)

var (
	_ meta.Device = (*lukstest.Disk)(nil)
	_ meta.Locker = (*lukstest.Disk)(nil)
)

// Numbers of the format, written down a second time: what the package under test
// does is compared with them.
const (
	copyLength  = 0x40000
	recordsEnd  = copyLength - 36
	legacyStart = 0xffc00
)

// entry is a record of either layout.
type entry struct {
	tag   uint32
	value string
}

// content is all that META holds, for comparisons.
type content map[meta.Tag]string

// copyOf builds one copy of the Talos layout by hand.
func copyOf(entries ...entry) []byte {
	p := make([]byte, 4, copyLength)
	for _, e := range entries {
		p = binary.BigEndian.AppendUint32(p, e.tag)
		p = binary.BigEndian.AppendUint32(p, uint32(len(e.value)))
		p = append(p, e.value...)
	}
	return frame(p[:copyLength])
}

// frame gives a copy its magic numbers and the right checksum.
func frame(p []byte) []byte {
	copy(p, "\x5a\x4b\x3c\x2d")
	copy(p[copyLength-4:], "\xa5\xb4\xc3\xd2")
	clear(p[recordsEnd : copyLength-4])
	sum := sha256.Sum256(p)
	copy(p[recordsEnd:], sum[:])
	return p
}

// broken is a copy whose checksum is wrong.
func broken(p []byte) []byte {
	p = bytes.Clone(p)
	p[copyLength/2] ^= 1
	return p
}

// legacyOf builds one legacy sector by hand.
func legacyOf(entries ...entry) []byte {
	p := make([]byte, 8, 512)
	for _, e := range entries {
		p = append(p, byte(e.tag), byte(len(e.value)))
		p = append(p, e.value...)
	}
	return frameLegacy(p[:512])
}

func frameLegacy(p []byte) []byte {
	binary.LittleEndian.PutUint32(p, 0x5a2d2fa5)
	binary.LittleEndian.PutUint32(p[508:], 0xdd28bf64)
	sum := uint32(0xa3041767)
	for i := 8; i < 508; i += 4 {
		sum -= binary.LittleEndian.Uint32(p[i:])
	}
	binary.LittleEndian.PutUint32(p[4:], sum)
	return p
}

// imageOf builds a partition; nil parts are zeros. One legacy sector stands for
// both.
func imageOf(first, second, legacy []byte) []byte {
	image := make([]byte, meta.Size)
	copy(image, first)
	copy(image[copyLength:], second)
	if len(legacy) == 512 {
		legacy = bytes.Repeat(legacy, 2)
	}
	copy(image[legacyStart:], legacy)
	return image
}

// twice is an image with two good copies.
func twice(entries ...entry) []byte {
	p := copyOf(entries...)
	return imageOf(p, p, nil)
}

// contentOf returns all values, and checks that the ways to ask for them agree.
func contentOf(t testing.TB, m *meta.Meta) content {
	t.Helper()
	all := content{}
	var tags []meta.Tag
	for tag := range 256 {
		if value, ok := m.Get(meta.Tag(tag)); ok {
			all[meta.Tag(tag)] = string(value)
			tags = append(tags, meta.Tag(tag))
		}
	}
	if !slices.Equal(tags, m.Tags()) {
		t.Errorf("Get finds %v, Tags are %v", tags, m.Tags())
	}
	return all
}

func mustRead(t testing.TB, dev meta.Device) *meta.Meta {
	t.Helper()
	m, err := meta.Read(dev)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// holds checks what a device holds.
func holds(t testing.TB, dev meta.Device, want content) *meta.Meta {
	t.Helper()
	m := mustRead(t, dev)
	if d := cmp.Diff(want, contentOf(t, m)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
	return m
}

// sound also checks that nothing is damaged.
func sound(t testing.TB, dev meta.Device, want content) {
	t.Helper()
	if m := holds(t, dev, want); len(m.Damage()) > 0 {
		t.Errorf("damage %q", m.Damage())
	}
}

// edit makes changes in memory; an empty text deletes.
func edit(t testing.TB, m *meta.Meta, changes content) {
	t.Helper()
	for tag, value := range changes {
		if value == "" {
			m.Delete(tag)
		} else if err := m.Set(tag, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
}

// change reads, edits and commits.
func change(t testing.TB, dev meta.Device, changes content) {
	t.Helper()
	m := mustRead(t, dev)
	edit(t, m, changes)
	if err := m.Commit(); err != nil {
		t.Fatal(err)
	}
}
