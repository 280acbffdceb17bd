package blob_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cryptctl/cryptctl/kms/blob"
	"github.com/cryptctl/cryptctl/secret"
)

const (
	nodeA = blob.Node("01234567-89ab-cdef-0123-456789abcdef")
	nodeB = blob.Node("01234567-89ab-cdef-0123-456789abcdee")
)

// vector is one line of testdata/blobs.json, made from the package's description
// with Python's cryptography, not by this package.
type vector struct {
	Name, Key, Node, Blob, Data string
	KeyVersion                  uint32
	Expect                      string // "opens", "malformed" or "not authentic"
}

func vectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/blobs.json")
	if err != nil {
		t.Fatal(err)
	}
	var vs []vector
	if err := json.Unmarshal(raw, &vs); err != nil {
		t.Fatal(err)
	}
	if len(vs) < 8 {
		t.Fatalf("%d vectors; the file is cut", len(vs))
	}
	return vs
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func open(raw []byte, key *secret.Bytes, node blob.Node) (*secret.Bytes, uint32, error) {
	b, err := blob.Parse(raw)
	if err != nil {
		return nil, 0, err
	}
	data, err := b.Open(key, node)
	return data, b.KeyVersion, err
}

func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			data, version, err := open(unhex(t, v.Blob), secret.Copy(unhex(t, v.Key)), blob.Node(v.Node))
			switch v.Expect {
			case "opens":
				if err != nil || hex.EncodeToString(data.Bytes()) != v.Data || version != v.KeyVersion {
					t.Fatalf("data %x, key version %d, error %v", data.Bytes(), version, err)
				}
			case "malformed":
				if !errors.Is(err, blob.ErrMalformed) {
					t.Fatalf("error %v, want malformed", err)
				}
			case "not authentic":
				if !errors.Is(err, blob.ErrNotAuthentic) {
					t.Fatalf("error %v, want not authentic", err)
				}
			default:
				t.Fatalf("expect %q is not known", v.Expect)
			}
		})
	}
}

func TestEveryChangedBitIsFound(t *testing.T) {
	key := secret.Random(blob.KeySize)
	raw, err := blob.Seal(key, 7, nodeA, secret.Copy([]byte("thirty-two bytes of a passphrase")))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(raw, key, nodeA); err != nil {
		t.Fatal(err)
	}
	for i := range len(raw) * 8 {
		changed := bytes.Clone(raw)
		changed[i/8] ^= 1 << (i % 8)
		if data, _, err := open(changed, key, nodeA); err == nil {
			t.Fatalf("bit %d changed and it still gives %d bytes", i, data.Len())
		}
	}
	for n := range raw {
		if _, _, err := open(raw[:n], key, nodeA); err == nil {
			t.Fatalf("cut to %d bytes and it opens", n)
		}
	}
}

func TestBoundToNodeAndKey(t *testing.T) {
	key := secret.Random(blob.KeySize)
	raw, err := blob.Seal(key, 1, nodeA, secret.Copy([]byte("data")))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := open(raw, key, nodeB); !errors.Is(err, blob.ErrNotAuthentic) {
		t.Errorf("another node: %v", err)
	}
	if _, _, err := open(raw, secret.Random(blob.KeySize), nodeA); !errors.Is(err, blob.ErrNotAuthentic) {
		t.Errorf("another key: %v", err)
	}
	if _, _, err := open(raw, secret.New(0), nodeA); err == nil || errors.Is(err, blob.ErrNotAuthentic) {
		t.Errorf("an empty key: %v", err)
	}
	again, err := blob.Seal(key, 1, nodeA, secret.Copy([]byte("data")))
	if err != nil || bytes.Equal(raw, again) {
		t.Errorf("sealing twice gives the same bytes (%v)", err)
	}
}

func TestOpenInto(t *testing.T) {
	key := secret.Random(blob.KeySize)
	raw, err := blob.Seal(key, 1, nodeA, secret.Copy([]byte("data")))
	if err != nil {
		t.Fatal(err)
	}
	b, err := blob.Parse(raw)
	if err != nil || b.Size() != 4 {
		t.Fatal(b.Size(), err)
	}
	out := secret.Copy([]byte("old!"))
	if err := b.OpenInto(out, key, nodeA); err != nil || string(out.Bytes()) != "data" {
		t.Errorf("%v", err)
	}
	if err := b.OpenInto(out, key, nodeB); !errors.Is(err, blob.ErrNotAuthentic) || string(out.Bytes()) != "\x00\x00\x00\x00" {
		t.Errorf("of another node: %x, %v", out.Bytes(), err)
	}
	for _, n := range []int{0, 3, 5} {
		if err := b.OpenInto(secret.New(n), key, nodeA); err == nil {
			t.Errorf("into %d bytes", n)
		}
	}
	if err := (blob.Blob{}).OpenInto(secret.New(0), key, nodeA); !errors.Is(err, blob.ErrMalformed) {
		t.Errorf("no blob: %v", err)
	}
}

func TestSizes(t *testing.T) {
	key := secret.Random(blob.KeySize)
	for _, n := range []int{1, 32, blob.MaxData} {
		data := secret.Random(n)
		raw, err := blob.Seal(key, 1, nodeA, data)
		if err != nil || len(raw) != n+blob.Overhead {
			t.Fatalf("%d bytes: blob of %d, %v", n, len(raw), err)
		}
		if got, _, err := open(raw, key, nodeA); err != nil || !got.Equal(data) {
			t.Fatalf("%d bytes do not come back: %v", n, err)
		}
	}
	for _, n := range []int{0, blob.MaxData + 1} {
		if _, err := blob.Seal(key, 1, nodeA, secret.New(n)); !errors.Is(err, blob.ErrMalformed) {
			t.Errorf("%d bytes sealed: %v", n, err)
		}
	}
	if _, err := blob.Seal(key, 0, nodeA, secret.New(1)); err == nil {
		t.Error("key version 0 sealed")
	}
}

func TestParseNode(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"01234567-89AB-cdef-0123-456789ABCDEF", string(nodeA)},
		{string(nodeA), string(nodeA)},
		{"", ""},
		{"0123456789abcdef0123456789abcdef", ""},
		{"{01234567-89ab-cdef-0123-456789abcdef}", ""},
		{"urn:uuid:01234567-89ab-cdef-0123-456789abcdef", ""},
		{"01234567-89ab-cdef-0123-456789abcdeg", ""},
		{"01234567_89ab-cdef-0123-456789abcdef", ""},
		{"00000000-0000-0000-0000-000000000000", ""},
		{"FFFFFFFF-ffff-FFFF-ffff-FFFFFFFFFFFF", ""},
		{strings.Repeat("x", 1<<20), ""},
	} {
		got, err := blob.ParseNode(tt.in)
		if string(got) != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%.40q: %q, %v", tt.in, got, err)
		}
		if err != nil && (!errors.Is(err, blob.ErrNode) || len(err.Error()) > 200) {
			t.Errorf("%.40q: error %v", tt.in, err)
		}
	}
}

func TestReference(t *testing.T) {
	data := []byte("0123456789abcdef0123456789ABCDEF")
	for _, size := range []int{16, 24, 32} {
		key := secret.Random(size)
		block, err := aes.NewCipher(key.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		raw := aead.Seal([]byte("nonce, of 12"), []byte("nonce, of 12"), data, nil)
		r, err := blob.NewReference(key)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.Open(raw); err != nil || !bytes.Equal(got.Bytes(), data) {
			t.Errorf("key of %d: %v", size, err)
		}
		raw[20] ^= 1
		if _, err := r.Open(raw); !errors.Is(err, blob.ErrNotAuthentic) {
			t.Errorf("changed: %v", err)
		}
		if _, err := r.Open(raw[:59]); !errors.Is(err, blob.ErrMalformed) {
			t.Errorf("short: %v", err)
		}
		r.Wipe()
		if _, err := r.Open(raw); err == nil || errors.Is(err, blob.ErrNotAuthentic) {
			t.Errorf("wiped: %v", err)
		}
	}
	if _, err := blob.NewReference(secret.New(33)); err == nil || !strings.Contains(err.Error(), "line end") {
		t.Errorf("a key file with a line end: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	key := secret.Copy(bytes.Repeat([]byte{7}, blob.KeySize))
	for _, v := range vectors(f) {
		f.Add(unhex(f, v.Blob))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := blob.Parse(raw)
		if err != nil {
			if !errors.Is(err, blob.ErrMalformed) || b.KeyVersion != 0 {
				t.Fatalf("%+v, %v", b, err)
			}
			return
		}
		if _, err := b.Open(key, "no vector's node"); !errors.Is(err, blob.ErrNotAuthentic) {
			t.Fatalf("made-up bytes: %v", err)
		}
	})
}
