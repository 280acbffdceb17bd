package marker_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cryptctl/cryptctl/probe/marker"
)

const uuid = "2f8a6b1c-0d4e-4f5a-9b7c-3e1d2c4b5a69"

// TestVector fixes the bytes: a marker written by one version must be known to
// the next.
func TestVector(t *testing.T) {
	b := marker.Marker{UUID: uuid, Reach: 16 << 20}.Encode()
	head := "CRYPTCTL-FORMAT\n" + "\x00\x00\x00\x00\x01\x00\x00\x00" + uuid
	if len(b) != marker.Size || string(b[:len(head)]) != head || bytes.ContainsFunc(b[len(head):480], func(r rune) bool { return r != 0 }) {
		t.Errorf("the marker begins %q", b[:128])
	}
	const want = "31b4a7d32f5311e5b314a0175d9bd7d586a64f44cb109c6f9b639bc4e1ce3ff2"
	if got := hex.EncodeToString(b[480:]); got != want {
		t.Errorf("checksum %s, want %s", got, want)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := marker.Marker{
			UUID:  rapid.StringMatching(`[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`).Draw(t, "uuid"),
			Reach: rapid.Int64Min(marker.Size).Draw(t, "reach"),
		}
		b := append(m.Encode(), rapid.SliceOfN(rapid.Byte(), 0, 64).Draw(t, "rest")...)
		if got, ok := marker.Decode(b); !ok || got != m {
			t.Fatalf("decoded %v, %v", got, ok)
		}
		flip := rapid.IntRange(0, marker.Size*8-1).Draw(t, "bit")
		b[flip/8] ^= 1 << (flip % 8)
		if got, ok := marker.Decode(b); ok {
			t.Fatalf("with bit %d flipped: decoded %v", flip, got)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	good := marker.Marker{UUID: uuid, Reach: 1 << 20}.Encode()
	// sealed changes bytes and makes the checksum right again.
	sealed := func(at int, with []byte) []byte {
		b := slices.Clone(good)
		copy(b[at:], with)
		sum := sha256.Sum256(b[:480])
		copy(b[480:], sum[:])
		return b
	}
	reach := func(n uint64) []byte { return sealed(16, binary.BigEndian.AppendUint64(nil, n)) }
	tests := []struct {
		name string
		in   []byte
	}{
		{"nothing", nil},
		{"zeros", make([]byte, marker.Size)},
		{"one byte short", good[:marker.Size-1]},
		{"cut in the middle", append(slices.Clone(good[:256]), make([]byte, 256)...)},
		{"other magic", sealed(0, []byte("CRYPTCTL-FORMAU\n"))},
		{"byte in the padding", sealed(479, []byte{1})},
		{"reach 0", reach(0)},
		{"reach within the marker", reach(marker.Size - 1)},
		{"reach beyond int64", reach(1 << 63)},
		{"no UUID", sealed(24, make([]byte, 36))},
		{"UUID with a letter too far", sealed(24, []byte(strings.Replace(uuid, "a", "g", 1)))},
		{"UUID with control bytes", sealed(24, []byte("\x1b[2J"))},
		{"UUID with a dash missing", sealed(24+8, []byte("0"))},
	}
	if _, ok := marker.Decode(sealed(0, nil)); !ok {
		t.Fatal("the unchanged marker is refused: the rows below prove nothing")
	}
	for _, test := range tests {
		if m, ok := marker.Decode(test.in); ok {
			t.Errorf("%s: decoded %v", test.name, m)
		}
	}
}

// TestEncodeOfNonsense: a caller's bad values give a block that is refused.
func TestEncodeOfNonsense(t *testing.T) {
	for _, m := range []marker.Marker{{}, {UUID: uuid}, {UUID: uuid, Reach: -1}, {UUID: uuid + "x", Reach: 8192}, {UUID: "x", Reach: 8192}} {
		b := m.Encode()
		if got, ok := marker.Decode(b); len(b) != marker.Size || ok {
			t.Errorf("%v: %d bytes, decoded %v, %v", m, len(b), got, ok)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(marker.Marker{UUID: uuid, Reach: 1 << 20}.Encode())
	f.Add(make([]byte, marker.Size))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, ok := marker.Decode(b); ok && !bytes.Equal(m.Encode(), b[:marker.Size]) {
			t.Errorf("%v does not encode to what it was decoded from", m)
		}
	})
}
